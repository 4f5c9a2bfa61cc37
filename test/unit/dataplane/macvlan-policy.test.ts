/** When containers are looked at whose rules somebody has changed, and what is done about those who may; on the strict fake. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { MacvlanPolicy, type PrivilegedChoice } from '../../../src/dataplane/macvlan-policy.ts';
import { FakeLinux } from '../../../src/linux/fake/linux.ts';
import type { Address } from '../../../src/model/ip.ts';
import type { Mac } from '../../../src/model/mac.ts';
import { ManualClock } from '../store/manual-clock.ts';
import { bootId, macvlanEndpoint } from './macvlan-endpoint.ts';

const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const table = 'netctl-eth0';

async function rig(macvlanPrivileged: PrivilegedChoice) {
  const [linux, clock] = [new FakeLinux(), new ManualClock()];
  const mac = '02:00:00:00:00:01' as Mac;
  linux.addDevice({ name: 'eth1', index: 9, mac: '02:00:00:00:00:09' as Mac, mtuBytes: 1500 });
  linux.addNetns('/ns/one');
  const netns = linux.openNetns('/ns/one');
  const link = { name: 'eth0', index: 5, mac, mtuBytes: 1500, netnsFd: netns.fd };
  linux.openRouting().batch([{ kind: 'macvlan-add', parentIndex: 9, mode: 'bridge', link }]);
  const endpoint = macvlanEndpoint('/ns/one', netns, {
    hostInterface: 'nctl1',
    mac,
    parent: 'eth1',
    addresses: ['10.0.0.1' as Address],
  });
  const policy = new MacvlanPolicy(
    linux,
    { bootId, node: 'here', hostAddresses: [], macvlanPrivileged, requests: () => 0, clock },
    quiet,
  );
  policy.onEndpoint(null, endpoint);
  await policy.start();
  const nftables = linux.openNftables(netns);
  const { inode } = netns.identity;
  return {
    ...{ linux, clock, policy, inode },
    isThere: async () => (await nftables.read(4, table)) !== null,
    takeAway(tell: number | null = inode) {
      nftables.transact([{ family: 4, table, kind: 'table-delete' }]);
      linux.tellContainerRules(tell);
    },
    async pass(milliseconds: number) {
      clock.advance(milliseconds);
      for (let i = 0; i < 20; i++) await setImmediate();
    },
    notice: () => policy.enforcement([['e', { value: endpoint }]], true)[0]?.notice ?? '',
  };
}

test('rules are back a moment after they were taken away, and not more often than every two seconds', async () => {
  const { takeAway, pass, isThere, notice, policy } = await rig('flag');
  assert.equal(await isThere(), true);
  assert.equal(notice(), '');
  takeAway();
  await pass(99);
  assert.equal(await isThere(), false);
  await pass(1);
  assert.equal(await isThere(), true);
  assert.match(notice(), /were changed and put right at/);
  takeAway();
  await pass(1999);
  assert.equal(await isThere(), false);
  await pass(101);
  assert.equal(await isThere(), true);
  policy.stop();
  await pass(3000);
  takeAway();
  await pass(10_000);
  assert.equal(await isThere(), false);
});

test('when notifications were lost, all are looked at', async () => {
  const { takeAway, pass, isThere } = await rig('flag');
  takeAway(null);
  await pass(100);
  assert.equal(await isThere(), true);
});

test('refuse: who may change rules is closed when that shows, and open again when it is over', async () => {
  const { linux, inode, takeAway, pass, notice } = await rig('refuse');
  linux.admins.set(inode, 77);
  takeAway();
  await pass(100);
  await pass(100);
  assert.match(
    notice(),
    /^closed: nothing passes to or from it; advisory: process 77 .*; rules in the container/,
  );
  await pass(5000);
  await pass(100);
  assert.match(notice(), /closed/);
  linux.admins.clear();
  await pass(5000);
  await pass(100);
  assert.doesNotMatch(notice(), /closed|advisory/);
});
