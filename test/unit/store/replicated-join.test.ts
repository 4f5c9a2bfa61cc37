/** A host that was alone joins a cluster: what it has is taken up where it is free, cut short anywhere; else it is told what is not. */
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { type Cidr, parseAddress } from '../../../src/model/ip.ts';
import { addressKey, blockKey, endpointKey, ownerKey } from '../../../src/model/keys.ts';
import { MemoryStore } from '../../../src/store/memory.ts';
import type { Json, Write } from '../../../src/store/store.ts';
import { ManualClock } from './manual-clock.ts';
import { agrees, claim, eventually, TestNode, visible } from './replicated-fixture.ts';

const owner = { tenant: 't', app: 'a', instance: 'i' };
const put = (key: string, value: Json = key): Write => ({ kind: 'put', key, value });
const exclusive = '10.0.0.0/26' as Cidr;
const shared = '10.0.0.64/26' as Cidr;
const fixed = parseAddress('10.0.0.70');

/** An embedded host's life so far: documents, a pool, a block of its own with endpoints, a shared one with a fixed address. */
const alone: Write[] = [
  put('settings', { strictAffinity: true }),
  put('profiles/edge', { tags: [] }),
  put('pools/p', { cidr: '10.0.0.0/16' }),
  put(blockKey(exclusive), claim('n1')),
  put(blockKey(shared), { ...(claim('n1') as object), shared: true } as Json),
  put(addressKey(fixed), { node: 'n1', state: 'retained' }),
  put(ownerKey(owner, fixed), { pool: 'p' }),
  put('reservations/r', { node: null }),
  put('nodes/n1', { version: '0' }),
  ...[1, 2, 3].flatMap((n) => [
    put(`addresses/10.0.0.${n}`, { node: 'n1', endpoint: `e${n}` }),
    put(endpointKey('n1', `e${n}`), { addresses: [`10.0.0.${n}`] }),
  ]),
];
const brought = Object.fromEntries(
  alone.flatMap((write) =>
    write.kind === 'put' && write.key !== 'nodes/n1' ? [[write.key, write.value]] : [],
  ),
);

describe('joining a cluster', () => {
  let cluster: MemoryStore;
  let clock: ManualClock;
  let local: MemoryStore;

  beforeEach(async () => {
    cluster = new MemoryStore();
    clock = new ManualClock();
    local = new MemoryStore();
    for (const write of alone) await local.transact([], [write]);
    const other = await new TestNode('n2', cluster, clock).open();
    await other.put('profiles/others', 'others');
    await other.put(blockKey('10.9.0.0/26' as Cidr), claim('n2'));
    await agrees(other);
    await other.store.close();
  });

  const host = (): TestNode => new TestNode('n1', cluster, clock, {}, local);
  const inCluster = async (): Promise<Record<string, Json>> => visible(await cluster.list(''));
  async function isWhole(node: TestNode, expected: Record<string, Json> = brought): Promise<void> {
    await agrees(node);
    const all = await inCluster();
    for (const [key, value] of Object.entries(expected)) assert.deepEqual(all[key], value, key);
    assert.equal(all['profiles/others'], 'others');
    assert.equal(node.store.status().held, null);
    assert.deepEqual(node.lost, []);
  }

  test('what it has is the cluster’s, and what the cluster has is here; it goes on as any node', async () => {
    const one = await host().open();
    await isWhole(one);
    assert.equal((await one.records())['profiles/others'], 'others');
    await one.put(addressKey(parseAddress('10.0.0.9')), { node: 'n1', endpoint: 'e9' });
    await one.put('profiles/new');
    await agrees(one);
    one.kill();
    await one.open();
    await isWhole(one);
  });

  test('an empty cluster is named by it', async () => {
    cluster = new MemoryStore();
    const one = await host().open();
    await agrees(one);
    assert.deepEqual({ ...(await inCluster()), 'nodes/n1': null }, { ...brought, 'nodes/n1': null });
  });

  test('what happens here meanwhile arrives, too', async () => {
    const one = await host().open();
    one.wire.before = async () => {
      await one.store.transact(
        [],
        [{ kind: 'delete', key: endpointKey('n1', 'e1') }, put('addresses/10.0.0.1', { state: 'cooldown' })],
      );
      await one.put(endpointKey('n1', 'e4'), { addresses: ['10.0.0.4'] });
    };
    const { [endpointKey('n1', 'e1')]: _, ...others } = brought;
    await isWhole(one, {
      ...others,
      'addresses/10.0.0.1': { state: 'cooldown' },
      [endpointKey('n1', 'e4')]: { addresses: ['10.0.0.4'] },
    });
    assert.equal((await inCluster())[endpointKey('n1', 'e1')], undefined);
  });

  test('cut short at any transaction, killed or its answer lost: the next start goes on', async () => {
    for (const way of ['killed before', 'killed after', 'answer lost'] as const) {
      for (let at = 1; ; at++) {
        const there = new MemoryStore();
        const mine = new MemoryStore();
        // More than one transaction takes.
        const profiles = Array.from({ length: 60 }, (_, i) => put(`profiles/more${i}`));
        for (const write of [...alone, ...profiles]) await mine.transact([], [write]);
        await there.transact([], [put('profiles/others', 'others'), put('cluster', { id: 'c' })]);
        const node = new TestNode('n1', there, clock, {}, mine);
        await node.open();
        let count = 0;
        const { wire } = node;
        const watch = (): void => {
          wire.before = async () => {
            count += 1;
            if (count < at) watch();
            else if (way === 'answer lost') wire.loseAnswers = 1;
            else if (way === 'killed before') node.kill();
            else setImmediate(() => node.kill());
          };
        };
        watch();
        for (let round = 0; round < 200 && count < at; round++) {
          clock.advance(20);
          await new Promise(setImmediate);
        }
        if (count < at) {
          assert.ok(at > 3, `${at} transactions`);
          break;
        }
        if (way !== 'answer lost') {
          await new Promise(setImmediate);
          await node.open();
        }
        cluster = there;
        await isWhole(node);
        await node.store.close();
      }
    }
  });

  const conflicts: [string, Write, RegExp][] = [
    [
      'a block',
      put(blockKey(exclusive), claim('n2')),
      /block 10\.0\.0\.0\/26 is claimed by node n2 in the cluster/,
    ],
    ['a fixed address', put(addressKey(fixed), { node: 'n2' }), /address 10\.0\.0\.70 is taken on node n2/],
    [
      'an address of its own block',
      put('addresses/10.0.0.2', { node: 'n2' }),
      /address 10\.0\.0\.2 is taken on node n2/,
    ],
    ['a document', put('profiles/edge', { tags: ['x'] }), /profiles\/edge is another one in the cluster/],
    [
      'a pool',
      put('pools/q', { cidr: '10.0.0.0/8' }),
      /pool p \(10\.0\.0\.0\/16\) overlaps q \(10\.0\.0\.0\/8\)/,
    ],
    [
      'the node’s own name',
      put('replication/n1', { store: 'another', sent: 1, done: 0, turn: 'x/1' }),
      /knows another store of node n1: remove that node first/,
    ],
  ];
  for (const [what, write, message] of conflicts) {
    test(`${what} stands in the way: refused by name, nothing is sent or dropped, the host goes on; resolved, it joins`, async () => {
      await cluster.transact([], [write]);
      const before = await inCluster();
      const one = await host().open();
      await eventually(clock, () => one.store.status().held !== null, 'held');
      assert.match(one.store.status().held!, message);
      assert.deepEqual(await inCluster(), before);
      await one.put('addresses/10.0.0.5', { node: 'n1', endpoint: 'e5' });
      assert.ok('endpoints/n1/e1' in (await one.records()));
      await assert.rejects(one.put('profiles/new'), /cluster: .*|stands|together|knows/);
      await cluster.transact([], [{ kind: 'delete', key: write.key }]);
      one.kill();
      await one.open();
      await isWhole(one, { ...brought, 'addresses/10.0.0.5': { node: 'n1', endpoint: 'e5' } });
    });
  }

  test('a pool whose name is another’s: it is called after its prefix from now on, with all that is in it', async () => {
    await cluster.transact([], [put('pools/p', { cidr: '10.1.0.0/16' })]);
    const inPool = ['addresses/10.0.0.1', ownerKey(owner, parseAddress('10.0.0.1'))];
    for (const key of inPool) await local.transact([], [put(key, { pool: 'p', node: 'n1', endpoint: 'e1' })]);
    const one = await host().open();
    await agrees(one);
    assert.equal(one.store.status().held, null);
    const all = await inCluster();
    assert.deepEqual(all['pools/p'], { cidr: '10.1.0.0/16' });
    assert.deepEqual(all['pools/10.0.0.0-16'], { cidr: '10.0.0.0/16' });
    const renamed = [blockKey(exclusive), blockKey(shared), ownerKey(owner, fixed), ...inPool];
    for (const key of renamed) assert.equal((all[key] as { pool: string }).pool, '10.0.0.0-16', key);
    assert.ok('endpoints/n1/e1' in all);
    assert.deepEqual(one.lost, []);
    // Its claims are its own as before.
    one.wire.cut();
    await one.put('addresses/10.0.0.8', { node: 'n1', endpoint: 'e8' });
  });

  test('records of another node are not brought up under this one’s name', async () => {
    const one = await new TestNode('renamed', cluster, clock, {}, local).open();
    await eventually(clock, () => one.store.status().held !== null, 'held');
    assert.match(one.store.status().held!, /is of another node than renamed/);
  });

  test('with the operator’s word the cluster’s records take the place of this host’s', async () => {
    const one = await host().open({ acceptCluster: true });
    await agrees(one);
    assert.ok(!('pools/p' in (await one.records())));
  });
});
