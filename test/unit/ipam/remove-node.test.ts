/** Removing a node: whatever it has goes, and cut short after any transaction the next attempt brings it to the same end. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { lookAtNode, planNodeRemoval, removeNode } from '../../../src/ipam/remove-node.ts';
import { readSnapshot } from '../../../src/ipam/snapshot.ts';
import { parseCidr } from '../../../src/model/ip.ts';
import { endpointKey, nodeKey } from '../../../src/model/keys.ts';
import { MemoryStore } from '../../../src/store/memory.ts';
import type { Json, Store } from '../../../src/store/store.ts';
import { cluster, type TestNode } from './cluster.ts';

const pools = { p: { cidr: parseCidr('10.0.0.0/22'), blockSize: 28, cooldownSeconds: 60 } };
const request = (self: TestNode) => ({ node: 'gone', self: 'stays', now: self.now() });

/** Plain and fixed addresses, reservations, cooldowns; others' endpoints in its blocks and its own in theirs. */
async function populated(): Promise<{ stays: TestNode; gone: TestNode }> {
  const [stays, gone] = (await cluster(pools, { names: ['stays', 'gone'], strictAffinity: false })) as [
    TestNode,
    TestNode,
  ];
  for (let i = 0; i < 45; i++) await gone.assign(`plain${i}`);
  const fixed = (node: TestNode, name: string, onRelease: 'immutable' | 'ttl') =>
    node.assign(name, { onRelease, ttlSeconds: onRelease === 'ttl' ? 3600 : null });
  await fixed(gone, 'fixed', 'immutable');
  await fixed(gone, 'timed', 'ttl');
  await gone.release('idle', await fixed(gone, 'idle', 'immutable'));
  await gone.release('cools', await gone.assign('cools'));
  await gone.settled();
  await stays.settled();
  await stays.assign('own');
  await stays.reserve('r', { node: 'gone', ipv4: 3 });
  await stays.reserve('other', { node: 'stays' });
  await stays.settled();
  return { stays, gone };
}

async function stateOf(node: TestNode): Promise<string[]> {
  const { entries } = await node.store.list('');
  return entries
    .map(({ key, value }) => {
      const { state = '', node: where = '', endpoint = '' } = value as Record<string, string>;
      return `${key} ${state} ${where} ${endpoint}`;
    })
    .filter((line) => !line.startsWith('owners/'));
}

/** After so many transactions the process is killed. */
function mortal(store: Store, transactions: number): Store {
  let left = transactions;
  return new Proxy(store, {
    get(target, key) {
      const value = Reflect.get(target, key, target);
      if (key !== 'transact') return typeof value === 'function' ? value.bind(target) : value;
      return (...args: Parameters<Store['transact']>) => {
        if (left-- === 0) throw new Error('killed');
        return target.transact(...args);
      };
    },
  });
}

describe('removing a node', () => {
  test('everything of it goes; fixed addresses stay their owners’, cooldowns go on, others keep what is theirs', async () => {
    const { stays } = await populated();
    const holdings = await removeNode(stays.store, request(stays));
    assert.deepEqual(
      { ...holdings, blocks: 0 },
      { registered: true, blocks: 0, endpoints: 47, released: 46, retained: 3, reservations: 1 },
    );
    await stays.settled();
    const lines = await stateOf(stays);
    assert.deepEqual(
      lines.filter((line) => line.includes('gone')),
      [],
    );
    const count = (pattern: RegExp) => lines.filter((line) => pattern.test(line)).length;
    assert.equal(count(/^addresses\/\S+ retained {2}$/) + count(/^addresses\/\S+ retained null null$/), 3);
    assert.equal(count(/^addresses\/\S+ cooldown stays/), 46);
    assert.equal(count(/^addresses\/\S+ active stays own/), 1);
    assert.equal(count(/^reservations\//), 1);
    assert.deepEqual(await stays.check(), []);
    assert.deepEqual((await lookAtNode(stays.store, request(stays))).steps, []);
    stays.clock.advance(61_000);
    await stays.ipam.expire();
    await stays.settled();
    const left = (await stateOf(stays)).filter((line) => line.startsWith('addresses/'));
    assert.equal(left.length, 5, 'three retained, one in use, one reserved');
  });

  test('cut short after any transaction, the next attempt comes to the same end', async () => {
    const reference = await populated();
    await removeNode(reference.stays.store, request(reference.stays));
    const expected = await stateOf(reference.stays);
    for (let transactions = 0; ; transactions++) {
      const { stays } = await populated();
      const outcome = await removeNode(mortal(stays.store, transactions), request(stays)).catch(
        (error: Error) => error.message,
      );
      if (outcome !== 'killed') {
        assert.ok(transactions > 5, `${transactions} transactions`);
        return;
      }
      await removeNode(stays.store, request(stays));
      assert.deepEqual(await stateOf(stays), expected, `after ${transactions}`);
    }
  });

  test('transactions stay below what etcd takes, however much there is', async () => {
    const { stays } = await populated();
    await stays.reserve('large', { node: 'gone', ipv4: 60 });
    const { entries, revision } = await stays.store.list('');
    const { steps } = planNodeRemoval(
      readSnapshot(entries, revision),
      entries.map(({ key }) => key),
      request(stays),
    );
    // One compare and one write more are the node's own fence.
    for (const { compares, writes } of steps) assert.ok(Math.max(compares.length, writes.length) < 127);
  });

  test('records that change meanwhile are looked at anew; a node of which there is nothing has no steps', async () => {
    const { stays, gone } = await populated();
    let raced = false;
    const store = new Proxy(stays.store, {
      get(target, key) {
        const value = Reflect.get(target, key, target);
        if (key !== 'transact') return typeof value === 'function' ? value.bind(target) : value;
        return async (...args: Parameters<Store['transact']>) => {
          if (!raced && args[1].some((write) => write.key.startsWith('addresses/'))) {
            raced = true;
            await gone.release('plain7', [...(gone.endpoints.get('plain7')?.value.addresses ?? [])]);
            const address = gone.book.addressesOf({ tenant: 't', app: 'a', instance: 'plain8' });
            const [first] = address;
            const entry = await target.get(`addresses/${first}`);
            const value = { ...(entry!.value as object), mac: '02:00:00:00:00:01' } as Json;
            await target.transact([], [{ kind: 'put', key: entry!.key, value }]);
          }
          return target.transact(...args);
        };
      },
    });
    await removeNode(store, request(stays));
    assert.ok(raced);
    assert.deepEqual(
      (await stateOf(stays)).filter((line) => line.includes('gone')),
      [],
    );
    assert.deepEqual((await lookAtNode(new MemoryStore(), request(stays))).steps, []);
    await stays.store.transact([], [{ kind: 'put', key: endpointKey('gone', 'x'), value: { broken: true } }]);
    await stays.store.transact([], [{ kind: 'put', key: nodeKey('gone'), value: { broken: true } }]);
    await removeNode(stays.store, request(stays));
    assert.equal(await stays.store.get(endpointKey('gone', 'x')), null, 'also what cannot be read');
  });
});
