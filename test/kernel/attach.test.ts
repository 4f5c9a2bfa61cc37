/** Interfaces added to, and taken from, a container that runs: `netctl attach` and `netctl detach`. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';

const edge: Conflist = { cniVersion: '1.1.0', name: 'edge', plugins: [{ type: 'netctl' }] };
const wire: Conflist = {
  cniVersion: '1.1.0',
  name: 'wire',
  plugins: [{ type: 'netctl', mode: 'macvlan', parent: 'eth0', profiles: ['web'] }],
};
const led: Conflist = {
  cniVersion: '1.1.0',
  name: 'led',
  plugins: [{ type: 'netctl', mode: 'macvlan', parent: 'eth0', profiles: ['web'], hostAccess: 'veth' }],
};
const chained: Conflist = {
  cniVersion: '1.1.0',
  name: 'chained',
  plugins: [{ type: 'netctl' }, { type: 'portmap' }],
};

describe('attach by hand', () => {
  const directory = mkdtempSync(join(tmpdir(), 'netctl-networks-'));
  let host: Host;
  let container: Container;
  let sleeper: ChildProcess;

  before(async () => {
    for (const network of [edge, wire, led, chained])
      writeFileSync(join(directory, `10-${network.name}.conflist`), JSON.stringify(network));
    writeFileSync(join(directory, '00-broken.conflist'), '{');
    host = await Host.create({ name: `at${process.pid}`, address: '192.0.2.1' });
    await host.start(['--cni-config-dir', directory]);
    await host.mustNetctl(['pool', 'add', '10.65.0.0/16', '--cooldown', '0']);
    const macvlan = ['--kind', 'macvlan', '--name', 'wire', '--gateway', '10.66.0.1', '--cooldown', '0'];
    await host.mustNetctl(['pool', 'add', '10.66.0.0/24', ...macvlan]);
    for (const profile of ['web', 'db']) await host.mustNetctl(['profile', 'add', profile]);
    container = await Container.create(host, 'runs');
    await container.cniAdd(edge);
    const [program, ...args] = container.command(['sleep', '300']) as [string, ...string[]];
    sleeper = spawn(program, args, { stdio: 'ignore' });
  });
  after(async () => {
    sleeper?.kill('SIGKILL');
    await container?.cniDel(edge);
    await container?.close();
    await host?.close();
    rmSync(directory, { recursive: true });
  });

  test('with ports of the host, where the network leads to it by the host', async () => {
    const publish = (network: string) =>
      host.netctl(['attach', container.netns, network, 'net9', '--publish', '192.0.2.1:8081:80/udp']);
    const refused = await publish('wire');
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /set hostAccess to veth/);
    assert.equal((await publish('led')).code, 0);
    assert.match(await host.mustNetctl(['ipam', 'port', 'show']), /8081 +udp +192\.0\.2\.1 +container runs-/);
    await host.mustNetctl(['detach', container.netns, 'net9']);
    assert.doesNotMatch(await host.mustNetctl(['ipam', 'port', 'show']), /8081/);
  });

  test('a macvlan beside the routed eth0, by process id; the default route stays; detach leaves eth0 alone', async () => {
    // ip netns exec becomes the program: its namespace is the container's once it runs.
    const made = JSON.parse(
      await host.mustNetctl([
        'attach',
        String(await inNetns(sleeper.pid!)),
        'wire',
        '--profile',
        'db',
        '--ip',
        '10.66.0.9',
        '-o',
        'json',
      ]),
    ) as { interface: string; addresses: string[]; containerId: string };
    assert.deepEqual(
      [made.interface, made.addresses, made.containerId],
      ['net1', ['10.66.0.9'], container.id],
    );
    assert.match(await container.mustExec(['ip', '-o', 'address', 'show', 'net1']), /10\.66\.0\.9\/24/);
    const routes = await container.mustExec(['ip', 'route', 'show', 'default']);
    assert.match(routes, /^default via 169\.254\.1\.1 dev eth0/);
    assert.equal(routes.trim().split('\n').length, 1);
    const shown = JSON.parse(await host.mustNetctl(['endpoint', 'show', '-o', 'json'])) as {
      interface: string;
      profiles: string[];
      kind: string;
    }[];
    assert.deepEqual(shown.map((each) => [each.interface, each.kind, each.profiles.join()]).sort(), [
      ['eth0', 'routed', 'edge'],
      ['net1', 'macvlan', 'db'],
    ]);
    // What the runtime of that network knows nothing of is not its to collect.
    const { code } = await container.cni('GC', {
      ...wire,
      plugins: [{ ...wire.plugins[0], 'cni.dev/valid-attachments': [] }],
    });
    assert.equal(code, 0);
    await container.mustExec(['ip', 'link', 'show', 'net1']);
    await host.mustNetctl(['detach', String(sleeper.pid), 'net1']);
    assert.notEqual((await container.exec(['ip', 'link', 'show', 'net1'])).code, 0);
    await container.mustExec(['ip', 'link', 'show', 'eth0']);
    const again = await host.netctl(['detach', container.netns, 'net1']);
    assert.equal(again.code, 1);
    assert.match(again.stderr, /has no interface net1 of ours/);
  });

  test('by the name of the namespace, two of them, with names of their own or given ones', async () => {
    assert.match(
      await host.mustNetctl(['attach', container.netns, 'wire']),
      /^net1 on wire: 10\.66\.0\.\d+$/m,
    );
    assert.match(
      await host.mustNetctl(['attach', `/run/netns/${container.netns}`, 'wire', 'back0']),
      /^back0 on wire/,
    );
    for (const name of ['net1', 'back0']) await host.mustNetctl(['detach', container.netns, name]);
    assert.doesNotMatch(await container.mustExec(['ip', '-o', 'link']), /net1|back0/);
  });

  test('what cannot be is refused, and leaves nothing', async () => {
    for (const [words, message] of [
      [['attach', container.netns, 'nowhere'], /no network nowhere in .*: it has chained, edge, led, wire/],
      [
        ['attach', container.netns, 'chained'],
        /network chained .*: expected the plugin netctl alone, not netctl, portmap/,
      ],
      [['attach', 'absent', 'wire'], /\/run\/netns\/absent: ENOENT/],
      [['attach', String(host.agentPid), 'wire'], /is the network namespace of the host itself/],
      [['attach', container.netns, 'edge', 'eth0'], null],
      [['attach', container.netns, 'wire', '--ip', 'x;MAC=1'], /addresses: "x;MAC=1" is not valid/],
    ] as const) {
      const { code, stderr } = await host.netctl(words);
      // The interface that is there already is what was asked for.
      if (message === null) assert.equal(code, 0, stderr);
      else {
        assert.equal(code, 1, words.join(' '));
        assert.match(stderr, message);
      }
    }
    const endpoints = JSON.parse(await host.mustNetctl(['endpoint', 'show', '-o', 'json'])) as unknown[];
    assert.equal(endpoints.length, 1);
  });

  /** Resolves when the process has entered the container's namespace. */
  async function inNetns(pid: number): Promise<number> {
    const wanted = (await container.mustExec(['readlink', '/proc/self/ns/net'])).trim();
    for (;;) {
      if ((await host.mustExec(['readlink', `/proc/${pid}/ns/net`])).trim() === wanted) return pid;
      await new Promise((wake) => setTimeout(wake, 20));
    }
  }
});
