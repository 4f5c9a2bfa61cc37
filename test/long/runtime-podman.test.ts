/**
 * podman with its CNI backend and netctl.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { image, RuntimeHost, server } from './runtime-host.ts';
import { livesUnder, type Runtime, reach } from './runtime-life.ts';

/** runc, since crun refuses the two kinds of control groups side by side that this may run on; limits that need no capability. */
const config = `[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
network_config_dir = "/etc/cni/net.d"
default_network = "edge"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
`;

describe('podman, CNI backend', () => {
  let host: RuntimeHost;
  const podman = (...words: string[]) =>
    host.exec(['podman', ...words], { env: { CONTAINERS_CONF: '/run/host/containers.conf' } });
  const mustPodman = (...words: string[]) =>
    host.mustExec(['podman', ...words], { env: { CONTAINERS_CONF: '/run/host/containers.conf' } });
  const start = async (name: string, ...options: string[]) => {
    await mustPodman(
      'run',
      '-d',
      '--cgroup-parent',
      `/${host.cgroup}`,
      '--name',
      name,
      ...options,
      image,
      ...server,
    );
  };

  before(async () => {
    host = await RuntimeHost.boot();
    for (const name of ['edge', 'back'])
      host.writeConflist({ cniVersion: '1.0.0', name, plugins: [{ type: 'netctl' }] });
    host.write('/run/host/containers.conf', config);
    await mustPodman('load', '-i', '/run/host/image.tar');
  });
  after(() => host?.close());

  const runtime: Runtime = {
    start: (name) => start(name, '--network', 'edge'),
    exec: (name, command) => podman('exec', name, ...command),
    async remove(name) {
      await mustPodman('stop', '-t', '0', name);
      await mustPodman('rm', name);
    },
    async forceRemove(name) {
      await mustPodman('rm', '-f', '-t', '0', name);
    },
    crash: null,
  };

  livesUnder(() => ({ host, runtime }));

  test('a fixed address and MAC, two networks, and what podman itself says of them', async () => {
    await start('fixed', '--network', 'edge:ip=10.65.9.9,mac=02:00:00:00:09:09', '--network', 'back');
    const [inspected] = JSON.parse(await mustPodman('inspect', 'fixed')) as [
      { NetworkSettings: { Networks: Record<string, { IPAddress: string; MacAddress: string }> } },
    ];
    const { edge, back } = inspected.NetworkSettings.Networks;
    assert.deepEqual([edge?.IPAddress, edge?.MacAddress], ['10.65.9.9', '02:00:00:00:09:09']);
    const endpoints = await host.endpoints();
    assert.deepEqual(endpoints.map(({ network, addresses }) => [network, addresses[0]]).sort(), [
      ['back', back?.IPAddress],
      ['edge', '10.65.9.9'],
    ]);
    await start('peer', '--network', 'edge');
    assert.ok(await reach(runtime, 'peer', '10.65.9.9'));
    await mustPodman('rm', '-f', '-t', '0', 'fixed', 'peer');
  });

  test('restart keeps a container on the network', async () => {
    await start('again', '--network', 'edge');
    await mustPodman('restart', '-t', '0', 'again');
    await start('peer', '--network', 'edge');
    const endpoints = await host.endpoints();
    assert.equal(endpoints.length, 2);
    const [inspected] = JSON.parse(await mustPodman('inspect', 'again')) as [
      { NetworkSettings: { Networks: Record<string, { IPAddress: string }> } },
    ];
    assert.ok(await reach(runtime, 'peer', inspected.NetworkSettings.Networks['edge']!.IPAddress));
    await mustPodman('rm', '-f', '-t', '0', 'again', 'peer');
  });
});
