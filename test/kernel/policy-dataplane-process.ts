/**
 * Run inside a network namespace by policy-dataplane.test.ts, with the name of a back end (`nftables`, `nft`, `legacy`): the scenarios
 * of PolicyDataplane on the real Linux.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { after, test } from 'node:test';
import { eventually } from '../../lab/run.ts';
import { createLinux } from '../../src/linux/real/linux.ts';
import { newProfile } from '../../src/model/profile.ts';
import { ruleFromJson } from '../../src/model/rule.ts';
import { NftAgent, nftScenarios } from '../unit/dataplane/nft-scenarios.ts';
import { Agent, policyScenarios } from '../unit/dataplane/policy-scenarios.ts';

const backend = process.argv[2] as 'nftables' | 'nft' | 'legacy';
const variant = backend === 'legacy' ? 'legacy' : 'nft';
const linux = await createLinux({ iptablesBackend: variant });
after(() => linux.close());

/** This namespace is ours alone, so that "all rules" and "all sets" are those of these tests. */
async function emptied(): Promise<typeof linux> {
  if (backend === 'nftables') nft('flush', 'ruleset');
  for (const program of backend === 'nftables' ? [] : ['iptables', 'ip6tables']) {
    run(`${program}-${variant}`, '-F');
    run(`${program}-${variant}`, '-X');
  }
  if (backend !== 'nftables') run('ipset', 'destroy');
  return linux;
}

const agent = () => (backend === 'nftables' ? new NftAgent(linux) : new Agent(linux));

if (backend === 'nftables') {
  nftScenarios(emptied);

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
    assert.equal(await toldOf(() => nft('flush', 'chain', 'ip', 'netctl', 'nctl-from')), 1);
    told = 0;
    nft('flush', 'ruleset');
    await eventually('the flush is told', 10_000, async () => told > 0);
    stop();
    await agent.dataplane.resync();

    /** Of what was done before, nothing was told: notifications come in order. */
    async function toldOf(act: () => void): Promise<number> {
      act();
      await eventually('the change is told', 10_000, async () => told > 0);
      return told;
    }
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
} else {
  policyScenarios(emptied);
}

test('the packet counters of what is right survive a restart and the change of another chain', async () => {
  await emptied();
  const first = agent();
  first.profile('web');
  first.endpoint('a', '10.0.0.1', 'web');
  await first.dataplane.start();
  run('ip', 'link', 'set', 'lo', 'name', 'nctla');
  run('ip', 'link', 'set', 'nctla', 'up');
  // From our interface to this host with a source that no endpoint has: dropped as spoofed, and counted.
  for (const address of ['127.0.0.1', '::1']) await sendTo(address);
  run('ip', 'link', 'set', 'nctla', 'down');
  run('ip', 'link', 'set', 'nctla', 'name', 'lo');
  assert.deepEqual(spoofed(), ['1', '1']);

  const second = agent();
  second.engine.onProfile('web', { ...newProfile('web'), inbound: [ruleFromJson({ action: 'deny' })] });
  second.endpoint('a', '10.0.0.1', 'web');
  second.endpoint('b', '10.0.0.2', 'app');
  await second.dataplane.start();
  const { count } = second.linux;
  assert.equal('restores' in count ? count.restores : count.transactions, 1);
  assert.deepEqual(spoofed(), ['1', '1']);
});

if (backend !== 'nftables') {
  test('rules of others are told where the kernel tells of them, our own never', async () => {
    await emptied();
    let told = 0;
    const stop = linux.watchForeignRules('netctl', () => told++);
    const agent = new Agent(linux);
    agent.profile('web');
    agent.endpoint('a', '10.0.0.1', 'web');
    await agent.dataplane.start();
    run(`iptables-${variant}`, '-A', 'FORWARD', '-i', 'eth7', '-j', 'ACCEPT');
    if (variant === 'nft') await eventually('the rule is told', 10_000, async () => told > 0);
    // One notification carries the whole of another program's change.
    assert(told <= 1, `told ${told} times`);
    stop();
  });
}

function nft(...args: string[]): string {
  return run('nft', ...args);
}

function run(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: 'utf8' });
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
  if (backend === 'nftables') {
    return ['ip', 'ip6'].map(
      (family) =>
        /counter packets (\d+) .*spoofed/.exec(nft('list', 'chain', family, 'netctl', 'nctl-INPUT'))![1]!,
    );
  }
  return ['iptables', 'ip6tables'].map((program) => {
    const saved = run(`${program}-${variant}-save`, '-c', '-t', 'filter');
    return /^\[(\d+):\d+\] -A nctl-INPUT .*spoofed/m.exec(saved)![1]!;
  });
}
