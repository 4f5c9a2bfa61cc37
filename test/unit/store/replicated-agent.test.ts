/** The agent's own planning (address book, assigner, commit) on two nodes of a cluster whose wires can be cut. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCidr } from '../../../src/model/ip.ts';
import { nodeKey, poolKey } from '../../../src/model/keys.ts';
import { poolSchema } from '../../../src/model/records.ts';
import { MemoryStore } from '../../../src/store/memory.ts';
import type { Json } from '../../../src/store/store.ts';
import { TestNode as Ipam } from '../ipam/cluster.ts';
import { ManualClock } from './manual-clock.ts';
import { agrees, eventually, TestNode, visible } from './replicated-fixture.ts';
import { aWhile, commit, put } from './support.ts';

test('cut off: ADD and DEL from the own block work, a new block fails fast; mended, all arrives', async () => {
  const cluster = new MemoryStore();
  const clock = new ManualClock();
  const pool = poolSchema.parse({ cidr: parseCidr('10.0.0.0/24'), blockSize: 29, cooldownSeconds: 0 });
  await commit(cluster, put(poolKey('p'), pool as unknown as Json));
  const start = async (name: string): Promise<[TestNode, Ipam]> => {
    const replica = await new TestNode(name, cluster, clock).open();
    await agrees(replica);
    const node = { address4: null, address6: null, version: '1', startedAt: '2026-01-01T00:00:00.000Z' };
    await replica.put(nodeKey(name), node);
    const ipam = new Ipam(name, replica.store);
    await ipam.follow();
    return [replica, ipam];
  };
  const [one, first] = await start('n1');
  const [two, second] = await start('n2');
  const [a] = await first.assign('a');
  const [b] = await second.assign('b');
  await agrees(one);
  await agrees(two);

  one.wire.cut();
  await aWhile();
  const before = one.wire.transactions;
  const more: string[] = [];
  for (let i = 0; i < 5; i++) more.push(...(await first.assign(`more-${i}`)));
  await first.release('a', [a!]);
  assert.equal(one.wire.transactions, before, 'nothing asked of the cluster');
  more.push(...(await first.assign('again')));
  let failed: unknown;
  const waiting = (async () => {
    for (let i = 0; i < 4; i++) more.push(...(await first.assign(`last-${i}`)));
  })().catch((error: unknown) => {
    failed = error;
  });
  const started = clock.now();
  await eventually(clock, () => failed !== undefined, 'the refusal');
  await waiting;
  assert.equal((failed as { code: string }).code, 'STORE_UNAVAILABLE');
  assert.ok(clock.now() - started <= 3100);
  // It holds nothing of what it did not get: a released address is given again.
  await first.release('again', [
    more.find((address) =>
      first.endpoints.get('again')?.value.addresses.includes(address as never),
    )! as never,
  ]);
  more.push(...(await first.assign('after')));

  await second.assign('c');
  one.wire.mend();
  await agrees(one);
  await agrees(two);
  const records = visible(await cluster.list(''));
  for (const node of [first, second]) {
    for (const [id, { value }] of node.endpoints.all()) {
      assert.ok(`endpoints/${node.name}/${id}` in records);
      for (const address of value.addresses) {
        assert.equal((records[`addresses/${address}`] as { endpoint: string }).endpoint, id);
      }
    }
  }
  const held = Object.keys(records).filter((key) => key.startsWith('addresses/'));
  assert.equal(held.length, first.endpoints.size + second.endpoints.size);
  assert.ok(held.includes(`addresses/${b}`));
  assert.equal((await first.assign('new')).length, 1, 'a new block, now that the cluster is there');
});
