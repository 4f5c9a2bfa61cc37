/** Who changes rules in which container is heard from outside, by the kernel's own word, and no container lives longer for it. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../../lab/run.ts';
import type { RuleWatch } from '../../src/linux/ports.ts';
import { createLinux } from '../../src/linux/real/linux.ts';
import { addNetns, enterSandbox, ip, removeNetns } from './linux-contract-sandbox.ts';

enterSandbox(import.meta.url);

const heard: (number | null)[] = [];
let linux: Awaited<ReturnType<typeof createLinux>>;
let watch: RuleWatch;
const inodes = new Map<string, number>();

before(async () => {
  linux = await createLinux({ iptablesBackend: 'nft' });
  // By this the agent learns its own number, if it lives in a namespace of processes.
  const trial = { family: 4, table: 'netctl-trial' } as const;
  watch = linux.watchRulesIn((inode) => heard.push(inode));
  linux.nftables.transact([
    { ...trial, kind: 'table-add' },
    { ...trial, kind: 'table-delete' },
  ]);
  for (const name of ['one', 'two', 'unwatched']) {
    const netns = linux.openNetns(addNetns(name));
    inodes.set(name, netns.identity.inode);
    if (name !== 'unwatched') watch.add(netns);
    // A second time, as after a restart of the agent.
    if (name === 'two') watch.add(netns);
    netns.close();
  }
});
after(() => {
  watch.close();
  linux.close();
});

const nft = (name: string, words: string): void => {
  execFileSync('ip', ['netns', 'exec', name, 'nft', words]);
};

test('a change by somebody else is heard, with the container', async () => {
  nft('one', 'add table ip theirs');
  await eventually('it is heard', 5000, async () => heard.length > 0);
  nft('two', 'add table ip6 theirs');
  await eventually('the other one is heard', 5000, async () => heard.length > 1);
  nft('unwatched', 'add table ip theirs');
  await sleep(200);
  assert.deepEqual(heard.splice(0), [inodes.get('one'), inodes.get('two')]);
});

test('what the agent changes itself is not', async () => {
  const netns = linux.openNetns('/run/netns/one');
  const nftables = linux.openNftables(netns);
  nftables.transact([{ family: 4, table: 'netctl-ours', kind: 'table-add' }]);
  nftables.close();
  netns.close();
  await sleep(200);
  assert.deepEqual(heard.splice(0), []);
});

test('what others change is heard, however often the agent has changed something', async () => {
  for (let i = 0; i < 3; i++) {
    linux.nftables.transact([
      { family: 4, table: 'netctl-trial', kind: 'table-add' },
      { family: 4, table: 'netctl-trial', kind: 'table-delete' },
    ]);
    await sleep(20);
  }
  nft('two', 'add table ip again');
  await eventually('it is heard', 5000, async () => heard.length > 0);
  assert.deepEqual(heard.splice(0), [inodes.get('two')]);
});

test('a container that is watched ends as any other', async () => {
  ip('link', 'add', 'here', 'type', 'veth', 'peer', 'name', 'there', 'netns', 'one');
  removeNetns('one');
  await eventually(
    'its end of the pair takes ours along',
    10_000,
    async () => !/here/.test(ip('-o', 'link')),
  );
});
