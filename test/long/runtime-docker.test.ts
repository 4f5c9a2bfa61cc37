/**
 * Docker with netctl as its network and IPAM driver, and with netctl-oci as its runtime (docs/docker.md).
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { connectFrom } from '../../lab/container.ts';
import type { Daemon } from '../../lab/daemon.ts';
import { eventually } from '../../lab/run.ts';
import { docker as dockerOn, startDocker as startDockerOn } from './runtime-dockerd.ts';
import { image, RuntimeHost, server } from './runtime-host.ts';
import { livesUnder, type Runtime, reach } from './runtime-life.ts';

interface Inspected {
  readonly NetworkSettings: {
    readonly Networks: Readonly<
      Record<
        string,
        {
          readonly IPAddress: string;
          readonly GlobalIPv6Address: string;
          readonly MacAddress: string;
          readonly EndpointID: string;
        }
      >
    >;
  };
}

describe('Docker, libnetwork drivers', () => {
  let host: RuntimeHost;
  let dockerd: Daemon;
  const docker = (...words: string[]) => dockerOn(host, ...words);
  async function mustDocker(...words: string[]): Promise<string> {
    const { code, stdout, stderr } = await docker(...words);
    assert.equal(code, 0, `docker ${words.join(' ')}: ${stderr}`);
    return stdout;
  }
  const run = (name: string, ...options: string[]) =>
    mustDocker('run', '-d', '--name', name, ...options, image, ...server);
  const inspect = async (name: string) =>
    (JSON.parse(await mustDocker('inspect', name)) as [Inspected])[0].NetworkSettings.Networks;

  const startDocker = () => startDockerOn(host, dockerd);

  async function crash(): Promise<void> {
    await dockerd.kill('SIGKILL');
    await startDocker();
  }

  before(async () => {
    host = await RuntimeHost.boot([
      '--docker-socket',
      '/run/docker/plugins/netctl.sock',
      '--resync-seconds',
      '2',
    ]);
    dockerd = host.daemon('dockerd');
    await startDocker();
    await mustDocker('load', '-i', '/run/host/image.tar');
    const network = ['network', 'create', '-d', 'netctl', '--ipam-driver', 'netctl'];
    await mustDocker(...network, '--subnet', '10.65.0.0/16', '-o', 'netctl.network=edge', 'edge');
  });
  after(() => host?.close());

  const runtime: Runtime = {
    start: async (name) => void (await run(name, '--network', 'edge')),
    exec: (name, command) => docker('exec', name, ...command),
    async remove(name) {
      await mustDocker('stop', '-t', '0', name);
      await mustDocker('rm', name);
    },
    async forceRemove(name) {
      await mustDocker('rm', '-f', name);
    },
    crash,
  };

  livesUnder(() => ({ host, runtime }));

  test('inspect shows the address; --ip asks for one; options of the container name profiles and labels', async () => {
    await host.mustNetctl(['profile', 'add', 'db']);
    await run(
      'db',
      '--ip',
      '10.65.9.9',
      '--network',
      'name=edge,driver-opt=netctl.profile=db,driver-opt=netctl.labels=role:db',
    );
    const { edge } = await inspect('db');
    const [endpoint] = await host.endpoints();
    assert.equal(edge?.IPAddress, '10.65.9.9');
    assert.deepEqual(endpoint?.addresses, ['10.65.9.9']);
    assert.deepEqual(endpoint?.profiles, ['db']);
    assert.equal(endpoint?.containerId, edge?.EndpointID);
    const taken = await docker('run', '--rm', '--network', 'edge', '--ip', '10.65.9.9', image, '/bin/true');
    assert.match(taken.stderr, /10\.65\.9\.9 is taken/);
    const misspelt = await docker(
      'run',
      '--rm',
      '--network',
      'name=edge,driver-opt=netctl.profil=db',
      image,
      '/bin/true',
    );
    assert.match(misspelt.stderr, /netctl\.profil/);
    await mustDocker('rm', '-f', 'db');
  });

  test('the first thing that a container does, it does with its network and under its policy', async () => {
    await run('web', '--network', 'edge');
    const { edge } = await inspect('web');
    const request = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 1 ${edge?.IPAddress} 80 | grep -q '^served$'`;
    for (let attempt = 0; attempt < 5; attempt++) {
      const { code, stderr } = await docker(
        'run',
        '--rm',
        '--network',
        'edge',
        image,
        '/bin/sh',
        '-c',
        request,
      );
      assert.equal(code, 0, stderr);
    }
    await host.mustNetctl(['profile', 'add', 'alone']);
    const denied = await docker(
      'run',
      '--rm',
      '--network',
      'name=edge,driver-opt=netctl.profile=alone',
      image,
      '/bin/sh',
      '-c',
      request,
    );
    assert.equal(denied.code, 1, denied.stderr);
    await mustDocker('rm', '-f', 'web');
  });

  test('-p: a port of the host leads to the container, for as long as it is there', async () => {
    const port = { address: host.address, port: 8080 };
    const opened = () => connectFrom((command) => host.mustExec(command), [port], 2000);
    await run('web', '--network', 'edge', '-p', '8080:80');
    assert.deepEqual(await opened(), [true]);
    assert.match(await host.mustNetctl(['ipam', 'port', 'show']), /8080 +tcp/);
    const taken = await docker('run', '--rm', '--network', 'edge', '-p', '8080:80', image, '/bin/true');
    assert.match(taken.stderr, /8080/);
    const unnamed = await docker('run', '--rm', '--network', 'edge', '-p', '80', image, '/bin/true');
    assert.match(unnamed.stderr, /one port of the host/);
    await mustDocker('rm', '-f', 'web');
    assert.deepEqual(await opened(), [false]);
    assert.doesNotMatch(await host.mustNetctl(['ipam', 'port', 'show']), /8080/);
  });

  test('an owner keeps its address, with the null IPAM driver', async () => {
    await mustDocker(
      'network',
      'create',
      '-d',
      'netctl',
      '--ipam-driver',
      'null',
      '-o',
      'netctl.network=edge',
      'fixed',
    );
    const addresses: (string | undefined)[] = [];
    for (let round = 0; round < 2; round++) {
      await run('owned', '--network', 'name=fixed,driver-opt=netctl.owner=shop/db/0');
      addresses.push((await inspect('owned'))['fixed']?.IPAddress);
      await mustDocker('rm', '-f', 'owned');
      await run('between', '--network', 'edge');
      await mustDocker('rm', '-f', 'between');
    }
    assert.match(addresses[0] ?? '', /^10\.65\./);
    assert.equal(addresses[0], addresses[1]);
    await mustDocker('network', 'rm', 'fixed');
  });

  test('docker restart, disconnect and connect', async () => {
    await run('web', '--network', 'edge');
    await mustDocker('restart', '-t', '0', 'web');
    await run('client', '--network', 'edge');
    assert.ok(await reach(runtime, 'client', (await inspect('web'))['edge']!.IPAddress));
    await mustDocker('network', 'disconnect', 'edge', 'web');
    assert.equal((await host.endpoints()).length, 1);
    await mustDocker('network', 'connect', 'edge', 'web');
    assert.ok(await reach(runtime, 'client', (await inspect('web'))['edge']!.IPAddress));
    await mustDocker('rm', '-f', 'web', 'client');
  });

  test('dockerd and agent restarted in either order, with live restore', async () => {
    await run('web', '--network', 'edge');
    await run('client', '--network', 'edge');
    const address = (await inspect('web'))['edge']!.IPAddress;
    const works = async () => assert.ok(await reach(runtime, 'client', address));
    await host.kill('SIGTERM');
    await dockerd.kill('SIGTERM');
    await host.start();
    await startDocker();
    await works();
    await host.kill('SIGKILL');
    await dockerd.kill('SIGKILL');
    await startDocker();
    await host.start();
    await works();
    assert.equal((await host.endpoints()).length, 2);
    await mustDocker('rm', '-f', 'web', 'client');
    await run('late', '--network', 'edge');
    await mustDocker('rm', '-f', 'late');
  });

  test('a container that ends while dockerd is away leaves nothing', async () => {
    await run('web', '--network', 'edge');
    const pid = (await mustDocker('inspect', '-f', '{{.State.Pid}}', 'web')).trim();
    await dockerd.kill('SIGKILL');
    await host.mustExec(['kill', '-9', pid]);
    await startDocker();
    await eventually('it is known to have ended', 10_000, async () =>
      (await mustDocker('inspect', '-f', '{{.State.Running}}', 'web')).startsWith('false'),
    );
    await mustDocker('rm', '-f', 'web');
  });

  test('both families: a network with --ipv6', async () => {
    await host.mustNetctl(['pool', 'add', 'fd00:65::/64', '--cooldown', '0']);
    const subnets = ['--ipv6', '--subnet', '10.65.0.0/16', '--subnet', 'fd00:65::/64'];
    const network = ['network', 'create', '-d', 'netctl', '--ipam-driver', 'netctl'];
    await mustDocker(...network, ...subnets, '-o', 'netctl.network=edge', 'dual');
    await run('web', '--network', 'dual');
    await run('client', '--network', 'dual');
    const { IPAddress, GlobalIPv6Address } = (await inspect('web'))['dual']!;
    const endpoint = (await host.endpoints()).find(({ addresses }) => addresses.includes(IPAddress));
    assert.deepEqual(endpoint?.addresses, [IPAddress, GlobalIPv6Address]);
    assert.match(GlobalIPv6Address, /^fd00:65::/);
    assert.ok(await reach(runtime, 'client', IPAddress));
    assert.ok(await reach(runtime, 'client', GlobalIPv6Address));
    await mustDocker('rm', '-f', 'web', 'client');
    await mustDocker('network', 'rm', 'dual');
    await host.clean();
  });

  test('swarm: Docker refuses a network of its scope, and networks of the host go on', async () => {
    const create = () =>
      docker('network', 'create', '--scope', 'swarm', '-d', 'netctl', '--ipam-driver', 'netctl', 'wide');
    assert.match((await create()).stderr, /swarm is not active/);
    // Docker takes no part in a swarm with live restore.
    await dockerd.kill('SIGTERM');
    await startDockerOn(host, dockerd, '--live-restore=false');
    await mustDocker('swarm', 'init', '--advertise-addr', '192.0.2.1');
    assert.match(
      (await create()).stderr,
      /legacy plugin netctl of type NetworkDriver is not supported in swarm mode/,
    );
    const service = await docker('service', 'create', '--detach', '--network', 'edge', image, '/bin/true');
    assert.match(service.stderr, /network edge not found/);
    await run('web', '--network', 'edge');
    await run('client', '--network', 'edge');
    assert.ok(await reach(runtime, 'client', (await inspect('web'))['edge']!.IPAddress));
    await mustDocker('rm', '-f', 'web', 'client');
    await mustDocker('swarm', 'leave', '--force');
    await dockerd.kill('SIGTERM');
    await startDocker();
  });

  test('what netctl cannot do for Docker is refused with the reason', async () => {
    const create = (...words: string[]) => docker('network', 'create', '-d', 'netctl', ...words, 'refused');
    for (const [words, reason] of [
      [['--ipam-driver', 'netctl', '--subnet', '10.99.0.0/16'], /netctl has no such pool/],
      [['--ipam-driver', 'netctl', '--subnet', '10.65.0.0/16', '--ip-range', '10.65.1.0/24'], /--ip-range/],
      [['--ipam-driver', 'netctl', '--ipam-opt', 'netctl.pool=none'], /no routed IPv4 pool none/],
      [['--ipam-driver', 'netctl', '--internal'], /--internal/],
      [['--ipam-driver', 'netctl', '-o', 'parent=eth0'], /netctl\.network/],
    ] as const) {
      const { code, stderr } = await create(...words);
      assert.equal(code, 1, `${words}: ${stderr}`);
      assert.match(stderr, reason);
    }
  });

  afterEach(async () => {
    assert.doesNotMatch(await host.mustExec(['ip', 'address']), /169\.254\.1\.1/);
  });
});
