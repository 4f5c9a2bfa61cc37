/**
 * Containers that may change their own rules: what they take away is put back at once and shown, and where the configuration says `refuse`,
 * nothing passes to or from them any more.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { type Container, connectFrom } from '../../lab/container.ts';
import { eventually } from '../../lab/run.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';
import { MacvlanHost, type MacvlanMember, rulesOf } from './wired-host.ts';

enterSandbox(import.meta.url);

/** The periodic look comes too late for these tests. */
const noResync = ['--resync-seconds', '300'];

describe('rules taken away by a container', () => {
  let one: MacvlanHost;
  before(async () => {
    one = await MacvlanHost.create('ma', noResync);
  });
  after(() => one.close());

  const shown = (): Promise<string> => one.host.mustNetctl(['endpoint', 'show', '--detailed']);

  test('are back within seconds, and it is said of the endpoint', async () => {
    const victim = await one.join('flushed', 'web');
    const before = await rulesOf(victim.container);
    assert.doesNotMatch(await shown(), /put right/);
    await victim.container.mustExec(['nft', 'flush', 'ruleset']);
    await eventually('the rules are back', 10_000, async () => (await rulesOf(victim.container)) === before);
    await eventually('it is shown', 10_000, async () =>
      /container and guard, rules in the container were changed and put right at 20/.test(await shown()),
    );
    assert.match(await one.host.mustNetctl(['endpoint', 'show', '-o', 'json']), /flushed/);
  });

  test('again and again: each time, and soon after an agent has started again', async () => {
    const victim = await one.join('again', 'web');
    const lines = async (): Promise<string> =>
      (await rulesOf(victim.container)).split('\n').sort().join('\n');
    const before = await lines();
    const isBack = async (): Promise<boolean> => (await lines()) === before;
    for (let i = 0; i < 3; i++) {
      await victim.container.mustExec(['nft', 'delete', 'table', 'ip', 'netctl-eth0']);
      await eventually('the rules are back', 10_000, isBack);
    }
    await one.host.restart();
    await victim.container.mustExec(['nft', 'flush', 'ruleset']);
    await eventually('the rules are back', 10_000, isBack);
  });

  test('a second interface of the container is put right with the first', async () => {
    const victim = await one.join('both', 'web');
    await victim.container.cniAdd(one.network('db'), { interface: 'net1' });
    const before = await rulesOf(victim.container);
    assert.match(before, /table ip netctl-net1/);
    await victim.container.mustExec(['nft', 'flush', 'ruleset']);
    await eventually('the rules are back', 10_000, async () => {
      const now = await rulesOf(victim.container);
      return /netctl-net1-6/.test(now) && /netctl-eth0-6/.test(now);
    });
  });
});

/** As programs in containers run that may not change the network. */
const plain = (command: readonly string[]): string[] => [
  ...['setpriv', '--bounding-set', '-net_admin'],
  ...command,
];

/** The client, too, is a process in its container. */
async function reaches(from: Container, address: string, port: number): Promise<boolean> {
  const exec = (command: readonly string[]): Promise<string> => from.mustExec(plain(command));
  return (await connectFrom(exec, [{ address, port }], 700))[0]!;
}

describe('refuse', () => {
  let one: MacvlanHost;
  let peer: MacvlanMember;
  before(async () => {
    one = await MacvlanHost.create('mr', [...noResync, '--macvlan-privileged', 'refuse']);
    peer = await one.join('peer', 'web');
  });
  after(() => one.close());

  const shown = (container: string): Promise<string> =>
    one.host
      .mustNetctl(['endpoint', 'show', '--detailed'])
      .then((text) => text.split('\n\n').find((part) => part.includes(container)) ?? '');

  test('a container with a process that may change its rules is closed on the parent, soon after ADD', async () => {
    const admin = await one.container('admin');
    // As root of the namespace, with all capabilities.
    await admin.serve([80]);
    const { ips } = await admin.cniAdd(one.network('web'));
    const address = ips[0]!.address.split('/')[0]!;
    await eventually('it is closed', 10_000, async () =>
      /closed: nothing passes to or from it; advisory: process \d+/.test(await shown(admin.id)),
    );
    assert.equal(await reaches(peer.container, address, 80), false);
    // Nor when it takes its rules away.
    await admin.mustExec(['nft', 'flush', 'ruleset']);
    assert.equal(await reaches(peer.container, address, 80), false);
    assert.equal((await admin.exec(['ping', '-c', '1', '-W', '1', peer.address])).code, 1);
  });

  test('one without is not; a process that may comes with the first change of rules', async () => {
    const harmless = await one.join('harmless', 'web');
    const serving = harmless.container.command(plain([process.execPath, 'lab/tcp.ts', 'serve', '80']));
    const server = spawn(serving[0]!, serving.slice(1), { stdio: ['pipe', 'ignore', 'ignore'] });
    try {
      // What starts the server may change rules, for a moment.
      await eventually('it answers', 20_000, () => reaches(peer.container, harmless.address, 80));
      await eventually(
        'nothing is said',
        20_000,
        async () => !/closed|advisory/.test(await shown(harmless.container.id)),
      );
      assert.doesNotMatch(await shown(harmless.container.id), /closed|advisory/);
      // A process that may, and stays.
      await harmless.container.hold({ address: harmless.address, port: 80 });
      await harmless.container.mustExec(['nft', 'flush', 'ruleset']);
      await eventually('it is closed', 10_000, async () =>
        /closed: nothing passes/.test(await shown(harmless.container.id)),
      );
      assert.equal(await reaches(peer.container, harmless.address, 80), false);
    } finally {
      server.kill('SIGKILL');
    }
  });
});
