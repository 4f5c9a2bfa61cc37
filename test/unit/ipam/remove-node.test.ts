/** The end of a node that will not come back: nothing of it is left, and nobody loses what is theirs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Cidr } from '../../../src/model/ip.ts';
import { cluster, type TestNode } from './cluster.ts';

test('blocks go, addresses cool down on no node, fixed ones wait for their owner', async () => {
  const pool = { cidr: '10.0.0.0/16' as Cidr, blockSize: 26, cooldownSeconds: 30 };
  const [n1, n2] = (await cluster({ four: pool }, ['n1', 'n2'])) as [TestNode, TestNode];
  const owner = { tenant: 't', app: 'db', instance: '1' };
  const [fixed] = await n2.assign('fixed', { owner, onRelease: 'immutable' });
  for (let i = 0; i < 100; i++) await n2.assign(`e${i}`);
  const [kept] = await n1.assign('kept');
  await n1.settled();
  const before = n1.ipam.holdings('n2');
  assert.equal(before.addresses.length, 101);
  assert.ok(before.blocks.length >= 2);
  await n1.ipam.removeNode('n2');
  assert.deepEqual(n1.ipam.holdings('n2'), { blocks: [], addresses: [] });
  assert.equal(n1.ipam.holdings('n1').addresses.includes(kept!), true);
  const record = n1.book.address(fixed!)?.value;
  assert.deepEqual([record?.state, record?.node, record?.owner], ['retained', null, owner]);
  assert.equal(n1.book.cooling('').size, 100);
  // Its owner comes up on the other node, with the same address.
  const [again] = await n1.assign('fixed', { owner });
  assert.equal(again, fixed);
  n1.clock.advance(31_000);
  await n1.ipam.expire();
  n1.clock.advance(600_000);
  await n1.ipam.expire();
  assert.equal(n1.book.cooling('').size, 0);
  assert.ok([...n1.book.blocks().values()].every(({ value }) => value.node === 'n1'));
});
