/**
 * Batches: as if each operation had been carried out by itself, in few transactions.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { Operation } from '../../../src/ipam/operations.ts';
import { invalid } from '../../../src/lib/errors.ts';
import { type Address, parseCidr } from '../../../src/model/ip.ts';
import type { Store } from '../../../src/store/store.ts';
import { cluster, type TestNode } from './cluster.ts';

const pool = { cidr: parseCidr('10.0.0.0/24'), blockSize: 28, cooldownSeconds: 0 };

async function node(quota?: number): Promise<TestNode> {
  const options = quota === undefined ? {} : { quotas: { t: quota } };
  const [one] = await cluster({ p: pool }, options);
  return one!;
}

const reserve = (id: string, more: object = {}): Operation => ({
  verb: 'reserve',
  request: {
    ...{ id, tenant: 't', app: 'a', instances: [id], ipv4: 1, ipv6: 0, addresses: [], macs: [] },
    ...{ kind: 'routed', pools: [], ranges: [], skip: [], node: null, onRelease: 'delete' },
    ...{ retainSeconds: null, ttlSeconds: 300, mode: 'all' },
    ...more,
  },
});
const bind = (address: Address, container: string, generation = 1): Operation => ({
  verb: 'bind',
  request: { address, container, generation, tenant: null, node: 'n1', endpoint: null },
});
const unbind = (address: Address, container: string): Operation => ({
  verb: 'unbind',
  request: { address, container, generation: null, tenant: null },
});
const cancel = (id: string): Operation => ({ verb: 'cancel', request: { id, tenant: null } });

async function reserved(one: TestNode, count: number): Promise<Address[]> {
  const ids = Array.from({ length: count }, (_, i) => `r${i}`);
  const items = await one.ipam.batch(
    ids.map((id) => reserve(id)),
    { atomic: false },
  );
  return items.map((item) => {
    assert.ok(item.ok);
    return (item.result as { addresses: { address: Address }[] }).addresses[0]!.address;
  });
}

/** How many transactions the work took, and the largest number of writes in one. */
async function counting<T>(
  store: Store,
  work: () => Promise<T>,
): Promise<{ result: T; transactions: number; most: number }> {
  const transact = store.transact.bind(store);
  const sizes: number[] = [];
  store.transact = (compares, writes) => {
    sizes.push(Math.max(compares.length, writes.length));
    return transact(compares, writes);
  };
  try {
    return { result: await work(), transactions: sizes.length, most: Math.max(...sizes) };
  } finally {
    store.transact = transact;
  }
}

const outcomes = (items: readonly { ok: boolean; error?: { code: string } }[]) =>
  items.map((item) => (item.ok ? 'ok' : item.error!.code));

describe('a batch', () => {
  test('of independent operations takes few transactions, none too large for etcd', async () => {
    const one = await node();
    const { result: addresses, transactions, most } = await counting(one.store, () => reserved(one, 200));
    assert.equal(new Set(addresses).size, 200);
    assert.ok(transactions <= 8 && most <= 120, `${transactions} transactions of at most ${most}`);
    const binds = await counting(one.store, () =>
      one.ipam.batch(
        addresses.map((address, i) => bind(address, `c${i}`)),
        { atomic: false },
      ),
    );
    assert.ok(binds.result.every(({ ok }) => ok));
    assert.ok(binds.transactions <= 4 && binds.most <= 120, `${binds.transactions} of at most ${binds.most}`);
    assert.deepEqual(await one.check(), []);
  });

  test('what depends on what came before sees it', async () => {
    const one = await node();
    const [address] = (await reserved(one, 1)) as [Address];
    const items = await one.ipam.batch(
      [
        bind(address, 'c', 1),
        { verb: 'activate', request: { address, generation: 2, tenant: null, mac: null } },
        bind(address, 'd', 2),
        unbind(address, 'c'),
        bind(address, 'e', 3),
        cancel('r0'),
        reserve('again', { addresses: [address] }),
      ],
      { atomic: false },
    );
    assert.deepEqual(outcomes(items), ['ok', 'ok', 'IN_USE', 'ok', 'STALE_GENERATION', 'ok', 'ok']);
  });

  test('one that fails leaves the others; a quota holds over the whole of it', async () => {
    const one = await node(3);
    const items = await one.ipam.batch(
      ['a', 'b', 'c', 'd', 'e'].map((id) => reserve(id)),
      { atomic: false },
    );
    assert.deepEqual(outcomes(items), ['ok', 'ok', 'ok', 'QUOTA_EXCEEDED', 'QUOTA_EXCEEDED']);
  });

  test('the limit of a node holds over the whole of it', async () => {
    const [one] = (await cluster({ p: { ...pool, maxAddressesPerNode: 2 } })) as [TestNode];
    const addresses = await reserved(one, 4);
    const binds = addresses.map((address, i) => bind(address, `c${i}`));
    const items = await one.ipam.batch(binds, { atomic: false });
    assert.deepEqual(outcomes(items), ['ok', 'ok', 'NODE_LIMIT', 'NODE_LIMIT']);
    assert.ok(!one.book.isHeld('node n1 p'));
  });

  test('atomic: all in one transaction, or the first refusal with its position and nothing done', async () => {
    const one = await node();
    const addresses = await reserved(one, 30);
    const binds = addresses.map((address, i) => bind(address, `c${i}`));
    const { revision: before } = await one.store.list('');
    await assert.rejects(one.ipam.batch([...binds, bind(addresses[3]!, 'x', 7)], { atomic: true }), {
      code: 'INVALID',
    });
    await assert.rejects(
      one.ipam.batch([...binds.slice(0, 5), bind(addresses[9]!, 'x', 7), ...binds.slice(5, 9)], {
        atomic: true,
      }),
      {
        code: 'STALE_GENERATION',
        message: /^operations\[5\]: /,
      },
    );
    const many = Array.from({ length: 61 }, (_, i) => reserve(`m${i}`));
    await assert.rejects(one.ipam.batch(many, { atomic: true }), {
      code: 'INVALID',
      message: /fit into one transaction/,
    });
    assert.equal((await one.store.list('')).revision, before);
    const { result, transactions } = await counting(one.store, () => one.ipam.batch(binds, { atomic: true }));
    assert.deepEqual([result.every(({ ok }) => ok), transactions], [true, 1]);
    assert.ok(!one.book.isHeld(addresses[0]!));
    assert.deepEqual(await one.check(), []);
  });

  test('what is not begun when the time is over says so', async () => {
    const one = await node();
    const addresses = await reserved(one, 150);
    let asked = 0;
    const isLate = () => (asked++ < 1 ? null : invalid('time', 0, 'more'));
    const items = await one.ipam.batch(
      addresses.map((address, i) => bind(address, `c${i}`)),
      { atomic: false, isLate },
    );
    const done = items.findIndex(({ ok }) => !ok);
    assert.ok(done > 50 && done < 150 && items.slice(done).every(({ ok }) => !ok), String(done));
  });

  test('property: any batch ends as its operations one by one', async () => {
    const step = fc.record({
      verb: fc.constantFrom('bind', 'unbind', 'cancel', 'reserve', 'release', 'transfer'),
      which: fc.nat(3),
      generation: fc.integer({ min: 1, max: 3 }),
      container: fc.constantFrom('c', 'd'),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 14 }), async (steps) => {
        const ends = [];
        for (const together of [true, false]) {
          const one = await node();
          const start = Array.from({ length: 4 }, (_, i) =>
            reserve(`r${i}`, { addresses: [`10.0.0.${20 + i}`] }),
          );
          await one.ipam.batch(start, { atomic: false });
          const operations = steps.map(({ verb, which, generation, container }, i): Operation => {
            const address = `10.0.0.${20 + which}` as Address;
            const fence = { address, generation, tenant: null };
            if (verb === 'bind') return bind(address, container, generation);
            if (verb === 'unbind') return unbind(address, container);
            if (verb === 'cancel') return cancel(`r${which}`);
            if (verb === 'reserve') return reserve(`n${i}`, { addresses: [address] });
            if (verb === 'release') return { verb, request: { ...fence, force: false } };
            return { verb: 'transfer', request: { ...fence, toOwner: null, toNode: null } };
          });
          const items = [];
          if (together) items.push(...(await one.ipam.batch(operations, { atomic: false })));
          else
            for (const operation of operations)
              items.push(...(await one.ipam.batch([operation], { atomic: false })));
          assert.deepEqual(await one.check(), []);
          const records = [...one.book.addresses()].map(([address, { value }]) => [
            address,
            value.state,
            value.generation,
            value.container,
          ]);
          ends.push([outcomes(items), records.sort()]);
        }
        assert.deepEqual(ends[0], ends[1]);
      }),
      { numRuns: 60 },
    );
  });
});
