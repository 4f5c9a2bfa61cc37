/** What the engine tells reaches the containers that it concerns, in whatever order it comes; on the strict fake. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ContainerPolicies } from '../../../src/dataplane/container-policies.ts';
import { FakeLinux } from '../../../src/linux/fake/linux.ts';
import type { Address } from '../../../src/model/ip.ts';
import { ACCEPT, goto, rule } from '../../../src/policy/chain.ts';
import { ManualClock } from '../store/manual-clock.ts';
import { macvlanEndpoint } from './macvlan-endpoint.ts';

const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const path = '/run/netns/one';

async function container() {
  const linux = new FakeLinux();
  linux.addNetns(path);
  const netns = linux.openNetns(path);
  const all = new ContainerPolicies(
    { linux, node: 'here', hostAddresses: [], hasEgress: () => false, logger: quiet },
    { clock: new ManualClock(), atWork: () => 0 },
  );
  const endpoint = macvlanEndpoint(path, netns, {
    hostInterface: 'nctl1',
    mac: '02:00:00:00:00:01',
    parent: 'eth1',
    addresses: ['10.0.0.1' as Address],
  });
  all.want(endpoint);
  const chains = async (): Promise<Map<string, readonly unknown[]>> => {
    const table = await linux.openNftables(netns).read(4, 'netctl-eth0');
    return new Map([...(table?.chains ?? [])].map(([name, { comments }]) => [name, comments]));
  };
  return { all, endpoint, netns, chains, linux };
}

test('a chain that is told after one that leads to it is in the container', async () => {
  const { all, endpoint, netns, chains } = await container();
  all.set('nctl4-ep-L', { type: 'net,iface', family: 4 });
  all.member('nctl4-ep-L', '10.0.0.1/32,nctl1', true);
  all.chain(4, 'nctl-in-L', { name: 'nctl-in-L', rules: [rule([], ACCEPT, 'all')] });
  all.chain(4, 'nctl-out-L', { name: 'nctl-out-L', rules: [rule([], goto('nctl-po-L'), 'pass')] });
  all.chain(4, 'nctl-po-L', { name: 'nctl-po-L', rules: [rule([], ACCEPT, 'all')] });
  await all.bring(endpoint, netns);
  assert.equal((await chains()).get('nctl-po-L')?.length, 1);
});

test('a list that an endpoint gets before its chains are told', async () => {
  const { all, endpoint, netns, chains } = await container();
  all.set('nctl4-ep-L', { type: 'net,iface', family: 4 });
  all.member('nctl4-ep-L', '10.0.0.1/32,nctl1', true);
  for (const name of ['nctl-in-L', 'nctl-out-L'])
    all.chain(4, name, { name, rules: [rule([], ACCEPT, 'all')] });
  await all.bring(endpoint, netns);
  assert.deepEqual([...(await chains()).keys()].filter((name) => name.endsWith('-L')).sort(), [
    'nctl-in-L',
    'nctl-out-L',
  ]);
});

test('what somebody has left in the container under our name is put right', async () => {
  const { all, endpoint, netns, chains, linux } = await container();
  const place = { family: 4, table: 'netctl-eth0' } as const;
  const nftables = linux.openNftables(netns);
  nftables.transact([
    { ...place, kind: 'table-add' },
    { ...place, kind: 'chain-add', chain: 'left', hook: null },
  ]);
  await all.bring(endpoint, netns);
  assert.equal((await chains()).has('left'), false);
  assert.ok((await chains()).size > 0);
  assert.equal(all.statusOf(endpoint.hostInterface)?.inSync, true);
});

test('a container that refuses a member has it with the next resync, and others at once', async () => {
  const { all, endpoint, netns, linux } = await container();
  all.set('nctl4-tag-t', { type: 'net', family: 4 });
  all.set('nctl4-ep-L', { type: 'net,iface', family: 4 });
  all.member('nctl4-ep-L', '10.0.0.1/32,nctl1', true);
  const fromTag = rule(
    [{ kind: 'set', set: 'nctl4-tag-t', side: 'src', withInterface: false, negated: false }],
    ACCEPT,
    'tag',
  );
  for (const name of ['nctl-in-L', 'nctl-out-L']) all.chain(4, name, { name, rules: [fromTag] });
  await all.bring(endpoint, netns);
  const members = async (): Promise<readonly unknown[]> =>
    (await linux.openNftables(netns).read(4, 'netctl-eth0'))!.sets.get('nctl4-tag-t')!.elements;
  all.member('nctl4-tag-t', '10.0.0.2/32', true);
  linux.failNext('nftables', 'ENOMEM');
  linux.failNext('nftables.read', 'ENOMEM');
  await assert.rejects(all.flush(), /ENOMEM/);
  await assert.rejects(all.flush());
  await all.resync();
  assert.equal((await members()).length, 1);
  all.member('nctl4-tag-t', '10.0.0.3/32', true);
  await Promise.all([all.flush(), all.flush()]);
  assert.equal((await members()).length, 2);
});
