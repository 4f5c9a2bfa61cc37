/**
 * containerd with netctl: `ctr run --cni`, and its CRI as a kubelet calls it.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Daemon } from '../../lab/daemon.ts';
import { eventually } from '../../lab/run.ts';
import { Cri, type PodConfig } from './runtime-cri.ts';
import { image, RuntimeHost, server } from './runtime-host.ts';
import { livesUnder, type Runtime } from './runtime-life.ts';

const edge = {
  cniVersion: '1.0.0',
  name: 'edge',
  plugins: [{ type: 'netctl', capabilities: { ips: true, mac: true } }],
};

const config = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${image}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
`;

describe('containerd', () => {
  let host: RuntimeHost;
  let containerd: Daemon;

  async function startContainerd(): Promise<void> {
    await containerd.start(['containerd', '--config', '/run/host/containerd.toml']);
    await eventually(
      'containerd answers',
      20_000,
      async () => (await host.exec(['ctr', 'version'])).code === 0,
    );
  }

  async function crash(): Promise<void> {
    await containerd.kill('SIGKILL');
    await startContainerd();
  }

  before(async () => {
    host = await RuntimeHost.boot();
    host.writeConflist(edge);
    host.write('/run/host/containerd.toml', config);
    containerd = host.daemon('containerd');
    await startContainerd();
    for (const namespace of ['default', 'k8s.io'])
      await host.mustExec(['ctr', '-n', namespace, 'image', 'import', '/run/host/image.tar']);
  });
  after(() => host?.close());

  describe('ctr run --cni', () => {
    // Only `ctr` itself, while it waits in the foreground, calls DEL; with -d nobody does.
    const foreground = new Map<string, Daemon>();
    const runtime: Runtime = {
      async start(name) {
        const ctr = host.daemon(`ctr-${name}-${foreground.size}`);
        foreground.set(name, ctr);
        await ctr.start([
          'ctr',
          'run',
          '--cni',
          '--rm',
          '--cgroup',
          `/${host.cgroup}/${name}`,
          image,
          name,
          ...server,
        ]);
        await eventually(`${name} runs`, 10_000, async () => {
          if (ctr.pid === null) throw new Error(ctr.log());
          return (await host.exec(['ctr', 'task', 'ls'])).stdout
            .split('\n')
            .some((line) => line.startsWith(`${name} `) && line.includes('RUNNING'));
        });
      },
      exec: (name, command) =>
        host.exec(['ctr', 'task', 'exec', '--exec-id', `x${process.hrtime.bigint()}`, name, ...command]),
      remove: (name) => signal(name, 'SIGTERM'),
      forceRemove: (name) => signal(name, 'SIGKILL'),
      crash: null,
    };
    async function signal(name: string, which: string): Promise<void> {
      await host.mustExec(['ctr', 'task', 'kill', '--signal', which, name]);
      const ended = async () => foreground.get(name)?.pid === null;
      // The first process of a namespace does not hear a signal that it has no handler for.
      if (which === 'SIGTERM' && !(await eventually('it ends', 1000, ended).catch(() => false)))
        await host.mustExec(['ctr', 'task', 'kill', '--signal', 'SIGKILL', name]);
      await eventually(`ctr run of ${name} ends`, 10_000, ended);
    }

    livesUnder(() => ({ host, runtime }));
  });

  describe('CRI', () => {
    const pods = new Map<string, { pod: string; container: string }>();
    let cri: Cri;
    before(() => {
      cri = new Cri(host.machine.path('/run/containerd/containerd.sock'));
    });
    after(() => cri.close());

    const podConfig = (name: string): PodConfig => ({
      metadata: { name, uid: `${name}-${process.hrtime.bigint()}`, namespace: 'default', attempt: 0 },
      hostname: name,
      log_directory: '/run/host/pods',
      linux: { cgroup_parent: `/${host.cgroup}` },
    });

    const runtime: Runtime = {
      async start(name) {
        const config = podConfig(name);
        const pod = await cri.runPod(config);
        pods.set(name, { pod, container: '' });
        pods.set(name, { pod, container: await cri.runContainer(pod, config, image, server) });
      },
      exec: (name, command) => cri.exec(pods.get(name)!.container, command),
      async remove(name) {
        const { pod } = pods.get(name)!;
        await cri.stopPod(pod);
        await cri.stopPod(pod);
        await cri.removePod(pod);
      },
      // Without a stop before: containerd stops it itself.
      async forceRemove(name) {
        await cri.removePod(pods.get(name)!.pod);
      },
      crash,
    };

    livesUnder(() => ({ host, runtime }));

    test('the status has the address, and containerd finds the network ready', async () => {
      await runtime.start('web');
      const [endpoint] = await host.endpoints();
      assert.equal(await cri.addressOf(pods.get('web')!.pod), endpoint?.addresses[0]);
      assert.deepEqual(
        (await cri.conditions()).map(({ type, status }) => [type, status]),
        [
          ['RuntimeReady', true],
          ['NetworkReady', true],
        ],
      );
      await runtime.remove('web');
    });

    test('a pod whose ADD is refused leaves nothing, and starts once the cause is gone', async () => {
      await host.kill('SIGKILL');
      await assert.rejects(runtime.start('web'), /agent|netctl/i);
      await host.start();
      await runtime.start('web');
      await runtime.remove('web');
    });
  });
});
