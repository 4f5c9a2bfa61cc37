/** Two first ADDs of one owner at the same moment, on every store that decides by itself, and on two agents with a cluster. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Cidr, parseCidr } from '../../../src/model/ip.ts';
import { nodeKey, poolKey } from '../../../src/model/keys.ts';
import { type Pool, poolSchema } from '../../../src/model/records.ts';
import { MemoryStore } from '../../../src/store/memory.ts';
import { SqliteStore } from '../../../src/store/sqlite.ts';
import type { Json, Store } from '../../../src/store/store.ts';
import { ManualClock } from '../store/manual-clock.ts';
import { agrees, eventually, TestNode as Replica } from '../store/replicated-fixture.ts';
import { commit, put } from '../store/support.ts';
import { TestNode } from './cluster.ts';
import { oneIsFirst } from './first-addresses.ts';

const pool = (kind: Pool['kind'], cidr: Cidr, blockSize: number): Json =>
  poolSchema.parse({ kind, cidr, blockSize, cooldownSeconds: 0 }) as unknown as Json;

async function fill(store: Store, names: readonly string[]): Promise<void> {
  await commit(
    store,
    put(poolKey('r4'), pool('routed', parseCidr('10.0.0.0/24'), 28)),
    put(poolKey('r6'), pool('routed', parseCidr('fd00::/112'), 122)),
    put(poolKey('m4'), pool('macvlan', parseCidr('10.1.0.0/24'), 24)),
    put(poolKey('m6'), pool('macvlan', parseCidr('fd01::/112'), 112)),
  );
  const node = { address4: null, address6: null, version: '1', startedAt: '2026-01-01T00:00:00.000Z' };
  for (const name of names) await commit(store, put(nodeKey(name), node));
}

test('three nodes on one store: one is first', async () => {
  const store = new MemoryStore();
  await fill(store, ['n1', 'n2', 'n3']);
  const nodes = ['n1', 'n2', 'n3'].map((name) => new TestNode(name, store));
  await Promise.all(nodes.map((node) => node.follow()));
  await oneIsFirst(nodes);
});

test('a host alone, on SQLite: one is first', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'netctl-first-'));
  const store = new SqliteStore({ path: join(directory, 'x.db') });
  try {
    await fill(store, ['n1']);
    const node = new TestNode('n1', store);
    const syncer = await node.follow();
    await oneIsFirst([node, node]);
    syncer.stop();
  } finally {
    await store.close();
    await rm(directory, { recursive: true, force: true });
  }
});

test('two agents with a cluster, of which one hears late: one is first, and the other learns where', async () => {
  const store = new MemoryStore();
  await fill(store, ['n1', 'n2']);
  const clock = new ManualClock();
  const start = async (name: string) => {
    const replica = await new Replica(name, store, clock).open();
    await agrees(replica);
    const node = new TestNode(name, replica.store);
    await node.follow();
    return { replica, node };
  };
  const [one, two] = [await start('n1'), await start('n2')];
  await oneIsFirst([one.node, two.node]);
  await agrees(two.replica);
  const owner = { tenant: 't', app: 'late', instance: '0' };
  two.replica.wire.late = [];
  const [first] = await one.node.assign('first', { owner, kind: 'macvlan', onRelease: 'ttl' });
  let refusal = '';
  void two.node
    .assign('second', { owner, kind: 'macvlan', onRelease: 'ttl' })
    .then(String, (error: Error) => error.message)
    .then((text) => {
      refusal = text;
    });
  const asked = two.replica.wire.transactions;
  await eventually(clock, () => two.replica.wire.transactions > asked, 'the question');
  two.replica.wire.catchUp();
  await eventually(clock, () => refusal !== '', 'the refusal');
  assert.match(refusal, new RegExp(`address ${first} of t/late/0 is still in use on node n1`));
});

test('what the owner has in another kind of pool is no hindrance, nor is what nobody keeps', async () => {
  const store = new MemoryStore();
  await fill(store, ['n1']);
  const node = new TestNode('n1', store);
  await node.follow();
  const owner = { tenant: 't', app: 'a', instance: '0' };
  const [r4] = await node.assign('a', { owner, kind: 'routed', onRelease: 'immutable' });
  const [m4] = await node.assign('b', { owner, kind: 'macvlan', onRelease: 'immutable' });
  assert.match(`${r4} ${m4}`, /^10\.0\.0\.\d+ 10\.1\.0\.\d+$/);
  const passing = { owner: { ...owner, app: 'b' }, onRelease: 'delete' } as const;
  await Promise.all([node.assign('c', passing), node.assign('d', passing)]);
});
