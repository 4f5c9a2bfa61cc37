/** Run inside a network namespace by policy-dataplane.test.ts: the scenarios of PolicyDataplane on the real Linux. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { after, test } from 'node:test';
import { createLinux } from '../../src/linux/real/linux.ts';
import { newProfile } from '../../src/model/profile.ts';
import { ruleFromJson } from '../../src/model/rule.ts';
import { Agent, policyScenarios } from '../unit/dataplane/policy-scenarios.ts';

const backend = process.argv[2] === 'nft' ? 'nft' : 'legacy';
const linux = await createLinux({ iptablesBackend: backend });
after(() => linux.close());

/** This namespace is ours alone, so that "all rules" and "all sets" are those of these tests. */
async function emptied(): Promise<typeof linux> {
  for (const program of ['iptables', 'ip6tables']) {
    execFileSync(`${program}-${backend}`, ['-F']);
    execFileSync(`${program}-${backend}`, ['-X']);
  }
  execFileSync('ipset', ['destroy']);
  return linux;
}

policyScenarios(emptied);

test('the packet counters of what is right survive a restart and the change of another chain', async () => {
  await emptied();
  const first = new Agent(linux);
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

  const second = new Agent(linux);
  second.profile('web');
  second.engine.onProfile('web', { ...newProfile('web'), inbound: [ruleFromJson({ action: 'deny' })] });
  second.endpoint('a', '10.0.0.1', 'web');
  second.endpoint('b', '10.0.0.2', 'app');
  await second.dataplane.start();
  assert.equal(second.linux.count.restores, 2);
  assert.deepEqual(spoofed(), ['1', '1']);
});

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
  return ['iptables', 'ip6tables'].map((program) => {
    const saved = execFileSync(`${program}-${backend}-save`, ['-c', '-t', 'filter'], { encoding: 'utf8' });
    return /^\[(\d+):\d+\] -A nctl-INPUT .*spoofed/m.exec(saved)![1]!;
  });
}
