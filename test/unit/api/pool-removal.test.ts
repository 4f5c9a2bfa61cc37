/**
 * Removing a pool through a node that sees the cluster late: a claim of the last moment is not missed, and none is made after it.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { removePool } from '../../../src/api/pools.ts';
import { parseCidr } from '../../../src/model/ip.ts';
import { blockKey, poolKey } from '../../../src/model/keys.ts';
import { poolSchema } from '../../../src/model/records.ts';
import { MemoryStore } from '../../../src/store/memory.ts';
import type { Json } from '../../../src/store/store.ts';
import { type TestNode as IpamTestNode, cluster as nodesOn } from '../ipam/cluster.ts';
import { ManualClock } from '../store/manual-clock.ts';
import { agrees, claim, TestNode } from '../store/replicated-fixture.ts';

const pool = poolSchema.parse({ cidr: '10.0.0.0/24', blockSize: 28 });

describe('removing a pool', () => {
  test('a block that another node claimed, and that the mirror here does not show yet: refused, the pool as it was', async () => {
    const cluster = new MemoryStore();
    const clock = new ManualClock();
    const one = await new TestNode('n1', cluster, clock).open();
    const two = await new TestNode('n2', cluster, clock).open();
    await one.put(poolKey('p'), pool as unknown as Json);
    await agrees(one);
    await agrees(two);
    two.wire.late = [];
    await one.put(blockKey(parseCidr('10.0.0.16/28')), claim('n1'));
    assert.equal(await two.store.get(blockKey(parseCidr('10.0.0.16/28'))), null, 'it does not know');
    const removal = removePool(two.store, 'p', undefined).then(
      () => 'removed',
      (error: Error) => error.message,
    );
    for (let turn = 0; turn < 200; turn++) await nextTurn();
    two.wire.catchUp();
    assert.match(await removal, /pool p is in use: 0 addresses \(0 in cooldown\), 1 block claimed by n1/);
    await agrees(two);
    assert.deepEqual((await cluster.get(poolKey('p')))?.value, pool);
    await Promise.all([one.store.close(), two.store.close()]);
  });

  test('a claim or an address planned before: refused by its transaction, and planned anew on what is so now', async () => {
    for (const kind of ['routed', 'macvlan'] as const) {
      const pools = { p: { cidr: parseCidr('10.0.0.0/24'), blockSize: 28, kind } };
      const [one] = (await nodesOn(pools, ['n1', 'n2'])) as [IpamTestNode];
      const transact = one.store.transact.bind(one.store);
      let removed = false;
      one.store.transact = async (compares, writes) => {
        if (!removed) {
          removed = true;
          one.store.transact = transact;
          await removePool(one.store, 'p', undefined);
        }
        return transact(compares, writes);
      };
      await assert.rejects(one.assign('a', { kind }), { code: 'POOL_NOT_FOUND' });
      assert.ok(removed);
      assert.deepEqual((await one.store.list('addresses/')).entries, []);
      assert.deepEqual((await one.store.list('blocks/')).entries, []);
    }
  });
});
