/** A quota over several nodes that each have their own local store: two plans at once do not both take the last address. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { IpamNode } from '../../../lab/ipam-node.ts';
import { nodeKey, poolKey, tenantKey } from '../../../src/model/keys.ts';
import { poolSchema } from '../../../src/model/records.ts';
import { MemoryStore } from '../../../src/store/memory.ts';
import type { Json } from '../../../src/store/store.ts';
import { ManualClock } from '../store/manual-clock.ts';
import { agrees, TestNode } from '../store/replicated-fixture.ts';
import { hasCode } from '../store/support.ts';

test('the last address of a quota, released and taken again elsewhere while another node plans to take it', async () => {
  const cluster = new MemoryStore();
  const clock = new ManualClock();
  const put = (key: string, value: unknown) =>
    cluster.transact([], [{ kind: 'put', key, value: value as Json }]);
  const pool = { cidr: '10.66.0.0/24', blockSize: 26, kind: 'macvlan', cooldownSeconds: 0 };
  await put(poolKey('m'), poolSchema.parse(pool));
  await put(tenantKey('limited'), { maxAddresses: 2 });
  for (const name of ['a', 'b']) {
    const node = { address4: null, address6: null, asNumber: null, labels: {}, version: '0' };
    await put(nodeKey(name), { ...node, startedAt: '2026-01-01T00:00:00.000Z' });
  }
  const stores = [
    await new TestNode('a', cluster, clock).open(),
    await new TestNode('b', cluster, clock).open(),
  ] as const;
  const nodes = await Promise.all(
    stores.map(async ({ name, store }) => {
      const node = new IpamNode(name, store, clock);
      await node.follow();
      return node;
    }),
  );
  const [a, b] = nodes as [IpamNode<ManualClock>, IpamNode<ManualClock>];
  const settled = async (): Promise<void> => {
    for (const store of stores) await agrees(store);
    for (const node of nodes) await node.settled();
  };
  const attach = (node: IpamNode<ManualClock>, endpoint: string) =>
    node.attach(endpoint, {
      kind: 'macvlan',
      owner: { tenant: 'limited', app: 'a', instance: endpoint },
    });
  await settled();
  await attach(a, 'one');
  const { addresses } = await attach(a, 'two');
  await settled();
  await a.release('two', addresses);
  await settled();

  // The news of it is on its way into b's local store, and b plans on what it had before.
  let late: Promise<unknown> | undefined;
  stores[1].local.before = async () => {
    late = attach(b, 'late').catch((error: unknown) => error);
    for (let turn = 0; turn < 5; turn++) await nextTurn();
  };
  await attach(a, 'three');
  for (let turn = 0; late === undefined && turn < 1000; turn++) await nextTurn();
  const error = await late;
  assert.ok(hasCode('QUOTA_EXCEEDED')(error), JSON.stringify(error));
  await settled();
  assert.deepEqual([...b.book.addresses().values()].map(({ value }) => value.endpoint).sort(), [
    'one',
    'three',
  ]);
  for (const { store } of stores) await store.close();
});
