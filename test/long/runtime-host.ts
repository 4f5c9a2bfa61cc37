/**
 * A machine on which a container runtime lives: namespaces and directories of its own, the agent, our plugins beside Debian's, and an
 * image made by hand of busybox.
 *
 * In: a name. Out: the host, its daemons, what is left on it. Never: anything of the test's own machine touched (its /etc, /opt and
 * /var/lib are only read), a control group left behind.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Conflist } from '../../lab/container.ts';
import { Daemon } from '../../lab/daemon.ts';
import { Host } from '../../lab/host.ts';
import { Machine } from '../../lab/machine.ts';
import { eventually, mustRun, run } from '../../lab/run.ts';

export const image = 'docker.io/library/netctl-test:1';
/** Answers with `served`. */
export const server: readonly string[] = ['/bin/httpd', '-f', '-p', '80', '-h', '/www'];

/** $1 is the host's directory on the disk, its /run/host. Data of runtimes lies in memory: overlayfs does not sit on overlayfs. */
const furnish = `mount -n --make-rprivate /
mount -n -t proc proc /proc
mount -n -t tmpfs -o mode=755 tmpfs /mnt
mkdir -p /mnt/host /mnt/netns /mnt/lock /mnt/cgroup /mnt/layers
mount -n --bind "$1" /mnt/host
mount -n --move /mnt /run
for directory in /etc /opt /var/lib; do
  layer=/run/layers$directory
  mkdir -p "$layer/upper" "$layer/work"
  mount -n -t overlay -o "lowerdir=$directory,upperdir=$layer/upper,workdir=$layer/work" overlay "$directory"
done
for directory in containerd docker containers cni; do
  mkdir -p "/var/lib/$directory"
  mount -n -t tmpfs tmpfs "/var/lib/$directory"
done
mount -n --rbind /sys/fs/cgroup /run/cgroup
mount -n -t sysfs sysfs /sys
mount -n --move /run/cgroup /sys/fs/cgroup
rm -rf /etc/cni/net.d
mkdir -p /etc/cni/net.d /opt/cni/bin /etc/docker
ip link set lo up
ip link add eth0 type veth peer name switch
ip link set switch up
ip link set eth0 up
ip address add 192.0.2.1/24 dev eth0
hostname runtime`;

export class RuntimeHost extends Host {
  readonly machine: Machine;
  /** Parent of the control groups of all containers. */
  readonly cgroup: string;
  readonly #directory: string;

  constructor(name: string, machine: Machine, directory: string, flags: readonly string[]) {
    super(
      { name, address: '192.0.2.1' },
      machine,
      { run: '/run/netctl', state: '/run/host/state', log: '/run/host' },
      [
        '--node',
        name,
        '--address',
        '192.0.2.1',
        '--run-dir',
        '/run/netctl',
        '--state-dir',
        '/run/host/state',
        ...flags,
      ],
    );
    this.machine = machine;
    this.cgroup = `netctl-${name}`;
    this.#directory = directory;
  }

  /** With the agent running, a pool, and our plugins where runtimes look for them. */
  static async boot(flags: readonly string[] = []): Promise<RuntimeHost> {
    const name = `rt${process.pid}`;
    const directory = mkdtempSync(join(tmpdir(), `netctl-${name}-`));
    mkdirSync(join(directory, 'state'), { mode: 0o700 });
    const machine = await Machine.boot({ name, furnish, arguments: [directory] });
    const host = new RuntimeHost(name, machine, directory, flags);
    try {
      for (const plugin of ['netctl', 'netctl-ipam'])
        symlinkSync(host.programs.cni, machine.path(`/opt/cni/bin/${plugin}`));
      for (const plugin of ['loopback', 'host-local', 'portmap', 'tuning'])
        symlinkSync(`/usr/lib/cni/${plugin}`, machine.path(`/opt/cni/bin/${plugin}`));
      await makeImage(directory);
      await host.start();
      await host.mustNetctl(['pool', 'add', '10.65.0.0/16', '--cooldown', '0']);
      return host;
    } catch (error) {
      await host.close();
      throw error;
    }
  }

  daemon(name: string): Daemon {
    return new Daemon(this.machine, name, '/run/host');
  }

  /** Where every runtime looks. */
  writeConflist(conflist: Conflist): void {
    this.write(`/etc/cni/net.d/10-${conflist.name}.conflist`, JSON.stringify(conflist));
  }

  write(path: string, text: string): void {
    writeFileSync(this.machine.path(path), text);
  }

  /** Endpoints as `netctl endpoint show` knows them. */
  async endpoints(): Promise<ShownEndpoint[]> {
    return JSON.parse(await this.mustNetctl(['endpoint', 'show', '-o', 'json'])) as ShownEndpoint[];
  }

  /** Nothing of any container is left: endpoints, addresses, links. */
  async clean(): Promise<void> {
    await eventually('no endpoint is left', 10_000, async () => (await this.endpoints()).length === 0);
    const check = await this.netctl(['ipam', 'check']);
    assert.equal(check.code, 0, check.stdout + check.stderr);
    assert.doesNotMatch(await this.mustExec(['ip', '-o', 'link']), /: nct[ld]/);
    assert.equal((await this.mustExec(['ip', 'route', 'show', 'proto', '110'])).trim(), '');
  }

  /** And ends every process that is there. */
  override async close(): Promise<void> {
    await this.machine.kill();
    for (const hierarchy of [
      'cpu',
      'cpuacct',
      'cpuset',
      'memory',
      'devices',
      'freezer',
      'blkio',
      'pids',
      'systemd',
      'unified',
      '',
    ]) {
      const path = `/sys/fs/cgroup/${hierarchy}/${this.cgroup}`;
      if (existsSync(path)) await run(['find', path, '-depth', '-type', 'd', '-exec', 'rmdir', '{}', ';']);
    }
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

export interface ShownEndpoint {
  readonly network: string;
  readonly containerId: string;
  readonly interface: string;
  readonly addresses: readonly string[];
  readonly profiles: readonly string[];
}

/** `rootfs` and `image.tar` (docker-archive, which containerd, podman and dockerd all read) in the directory. */
async function makeImage(directory: string): Promise<void> {
  const rootfs = join(directory, 'rootfs');
  for (const path of ['bin', 'etc', 'proc', 'sys', 'dev', 'tmp', 'run', 'var', 'www'])
    mkdirSync(join(rootfs, path), { recursive: true });
  await mustRun(['cp', '/bin/busybox', join(rootfs, 'bin/busybox')]);
  for (const applet of (await mustRun(['/bin/busybox', '--list'])).trim().split('\n'))
    if (applet !== 'busybox') symlinkSync('busybox', join(rootfs, 'bin', applet));
  writeFileSync(join(rootfs, 'etc/passwd'), 'root:x:0:0:root:/:/bin/sh\n');
  writeFileSync(join(rootfs, 'etc/group'), 'root:x:0:\n');
  writeFileSync(join(rootfs, 'www/index.html'), 'served\n');
  const archive = join(directory, 'archive');
  mkdirSync(join(archive, 'layer'), { recursive: true });
  await mustRun([
    'tar',
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '-C',
    rootfs,
    '-cf',
    join(archive, 'layer/layer.tar'),
    '.',
  ]);
  const layer = (await mustRun(['sha256sum', join(archive, 'layer/layer.tar')])).split(' ')[0];
  const config = JSON.stringify({
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
    os: 'linux',
    config: { Env: ['PATH=/bin'], Cmd: ['/bin/sleep', '100000'] },
    rootfs: { type: 'layers', diff_ids: [`sha256:${layer}`] },
  });
  const name = `${createHash('sha256').update(config).digest('hex')}.json`;
  writeFileSync(join(archive, name), config);
  const manifest = [{ Config: name, RepoTags: [image], Layers: ['layer/layer.tar'] }];
  writeFileSync(join(archive, 'manifest.json'), JSON.stringify(manifest));
  await mustRun(['tar', '-C', archive, '-cf', join(directory, 'image.tar'), '.']);
}
