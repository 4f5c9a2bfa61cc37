/** Run inside a network namespace by nft-dataplane.test.ts: the scenarios of PolicyDataplane with nftables on the real Linux. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createLinux } from '../../src/linux/real/linux.ts';
import { newProfile } from '../../src/model/profile.ts';
import { ruleFromJson } from '../../src/model/rule.ts';
import { NftAgent, nftScenarios } from '../unit/dataplane/nft-scenarios.ts';

const linux = await createLinux({ iptablesBackend: 'nft' });
after(() => linux.close());

/** This namespace is ours alone, so that "all tables" are those of these tests. */
async function emptied(): Promise<typeof linux> {
  nft('flush', 'ruleset');
  return linux;
}

nftScenarios(emptied);

test('the packet counters of what is right survive a restart and the change of another chain', async () => {
  await emptied();
  const first = new NftAgent(linux);
  first.profile('web');
  first.endpoint('a', '10.0.0.1', 'web');
  await first.dataplane.start();
  execFileSync('ip', ['link', 'set', 'lo', 'name', 'nctla']);
  execFileSync('ip', ['link', 'set', 'nctla', 'up']);
  // From our interface to this host with a source that no endpoint has: dropped as spoofed, and counted.
  for (const address of ['127.0.0.1', '::1']) await sendTo(address);
  execFileSync('ip', ['link', 'set', 'nctla', 'down']);
  execFileSync('ip', ['link', 'set', 'nctla', 'name', 'lo']);
  assert.deepEqual(spoofed(), ['1', '1']);

  const second = new NftAgent(linux);
  second.engine.onProfile('web', { ...newProfile('web'), inbound: [ruleFromJson({ action: 'deny' })] });
  second.endpoint('a', '10.0.0.1', 'web');
  second.endpoint('b', '10.0.0.2', 'app');
  await second.dataplane.start();
  assert.equal(second.linux.count.transactions, 1);
  assert.deepEqual(spoofed(), ['1', '1']);
});

test('changes by others are told, our own are not', async () => {
  await emptied();
  const agent = new NftAgent(linux);
  agent.profile('web');
  let told = 0;
  const stop = agent.dataplane.watch(() => told++);
  await agent.dataplane.start();
  agent.endpoint('a', '10.0.0.1', 'web');
  await agent.dataplane.flush();
  nft('add', 'table', 'ip', 'another');
  await sleep(50);
  assert.equal(told, 0);
  nft('flush', 'chain', 'ip', 'netctl', 'nctl-from');
  await sleep(50);
  assert(told > 0);
  told = 0;
  nft('flush', 'ruleset');
  await sleep(50);
  assert(told > 0);
  stop();
  await agent.dataplane.resync();
});

test('a table that was switched off is made anew', async () => {
  await emptied();
  const agent = new NftAgent(linux);
  agent.profile('web');
  await agent.dataplane.start();
  nft('add', 'table', 'ip', 'netctl', '{ flags dormant; }');
  assert.deepEqual(await agent.dataplane.resync(), ['table netctl (IPv4) switched off']);
  assert.doesNotMatch(nft('list', 'table', 'ip', 'netctl'), /dormant/);
});

function nft(...args: string[]): string {
  return execFileSync('nft', args, { encoding: 'utf8' });
}

function sendTo(address: string): Promise<void> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  return new Promise((resolve, reject) =>
    socket.send('x', 9, address, (error) => {
      socket.close();
      error ? reject(error) : resolve();
    }),
  );
}

/** Packets dropped by the rule in nctl-INPUT, per family. */
function spoofed(): string[] {
  return ['ip', 'ip6'].map(
    (family) =>
      /counter packets (\d+) .*spoofed/.exec(nft('list', 'chain', family, 'netctl', 'nctl-INPUT'))![1]!,
  );
}
