/**
 * Docker with netctl-oci as a runtime: containers of plain `docker run` join CNI networks, with all that CNI can (docs/docker.md).
 */
import assert from 'node:assert/strict';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Daemon } from '../../lab/daemon.ts';
import { docker as dockerOn, startDocker } from './runtime-dockerd.ts';
import { image, RuntimeHost, server } from './runtime-host.ts';
import { livesUnder, type Runtime, reach } from './runtime-life.ts';

describe('Docker, netctl-oci', () => {
  let host: RuntimeHost;
  let dockerd: Daemon;
  const docker = (...words: string[]) => dockerOn(host, ...words);
  async function mustDocker(...words: string[]): Promise<string> {
    const { code, stdout, stderr } = await docker(...words);
    assert.equal(code, 0, `docker ${words.join(' ')}: ${stderr}`);
    return stdout;
  }
  const joining = (networks: string) => [
    '--runtime',
    'netctl',
    '--net',
    'none',
    '-e',
    `NETCTL_NETWORKS=${networks}`,
  ];
  const run = (name: string, networks: string) =>
    mustDocker('run', '-d', '--name', name, ...joining(networks), image, ...server);
  const start = () =>
    startDocker(host, dockerd, '--add-runtime', `netctl=${join(dirname(host.programs.cni), 'netctl-oci')}`);

  before(async () => {
    host = await RuntimeHost.boot();
    for (const name of ['edge', 'back'])
      host.writeConflist({ cniVersion: '1.0.0', name, plugins: [{ type: 'netctl' }, { type: 'tuning' }] });
    dockerd = host.daemon('dockerd');
    await start();
    await mustDocker('load', '-i', '/run/host/image.tar');
  });
  after(() => host?.close());

  const runtime: Runtime = {
    start: async (name) => void (await run(name, 'edge')),
    exec: (name, command) => docker('exec', name, ...command),
    async remove(name) {
      await mustDocker('stop', '-t', '0', name);
      await mustDocker('rm', name);
    },
    async forceRemove(name) {
      await mustDocker('rm', '-f', name);
    },
    async crash() {
      await dockerd.kill('SIGKILL');
      await start();
    },
  };

  livesUnder(() => ({ host, runtime }));

  test('a fixed address, an owner, a profile, and two networks', async () => {
    await host.mustNetctl(['profile', 'add', 'db']);
    await run('two', 'edge;IP=10.65.9.9;NETCTL_PROFILE=db back;NETCTL_OWNER=shop/db/0');
    const endpoints = (await host.endpoints()).sort((a, b) => a.interface.localeCompare(b.interface));
    assert.deepEqual(
      endpoints.map(({ network, interface: name, profiles }) => [network, name, profiles]),
      [
        ['edge', 'eth0', ['db']],
        ['back', 'eth1', ['back']],
      ],
    );
    assert.deepEqual(endpoints[0]?.addresses, ['10.65.9.9']);
    const kept = endpoints[1]?.addresses;
    await mustDocker('restart', '-t', '0', 'two');
    const again = (await host.endpoints()).find(({ network }) => network === 'back');
    assert.deepEqual(again?.addresses, kept);
    await mustDocker('rm', '-f', 'two');
  });

  test('the first thing that a container does, it does with its network', async () => {
    await run('web', 'edge');
    const [endpoint] = await host.endpoints();
    const request = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 1 ${endpoint?.addresses[0]} 80 | grep -q '^served$'`;
    for (let attempt = 0; attempt < 5; attempt++) {
      const { code, stderr } = await docker(
        'run',
        '--rm',
        ...joining('edge'),
        image,
        '/bin/sh',
        '-c',
        request,
      );
      assert.equal(code, 0, stderr);
    }
    assert.ok(await reach(runtime, 'web', '127.0.0.1'));
    await mustDocker('rm', '-f', 'web');
  });

  test('what cannot join does not start, says why, and leaves nothing', async () => {
    for (const [networks, reason] of [
      ['nowhere', /no network nowhere/],
      ['edge nowhere', /no network nowhere/],
      ['edge back;IP=192.0.2.77', /192\.0\.2\.77/],
      ['"edge"', /without quotes/],
    ] as const) {
      const { code, stderr } = await docker('run', '--rm', ...joining(networks), image, '/bin/true');
      assert.notEqual(code, 0);
      assert.match(stderr, reason);
      assert.deepEqual(await host.endpoints(), []);
    }
  });

  test('a container that asks for nothing is left alone', async () => {
    await mustDocker('run', '--rm', '--runtime', 'netctl', '--net', 'none', image, '/bin/true');
    assert.deepEqual(await host.endpoints(), []);
  });
});
