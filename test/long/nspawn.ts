/**
 * Machines with systemd as their first process, out of one Debian root: what vagrant/provision.sh makes hosts of.
 *
 * In: a Debian root (made by scripts/machine-root), names, addresses. Out: boot, commands inside, reboot, power cut. Never:
 * anything outside the ground they stand on: a machine of the lab whose end is theirs; control groups are removed.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Daemon } from '../../lab/daemon.ts';
import { Machine } from '../../lab/machine.ts';
import { eventually, mustRun, type Result, type RunOptions, run } from '../../lab/run.ts';

/** A bridge, and /sys for this network with the control groups still in it. */
const furnish = `mount -n -t proc proc /proc
mount -n -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/cgroup /run/netns
mount -n --rbind /sys/fs/cgroup /run/cgroup
mount -n -t sysfs sysfs /sys
mount -n --move /run/cgroup /sys/fs/cgroup
ip link set lo up
ip link add lan type bridge mcast_snooping 0
ip address add 192.168.78.2/24 dev lan
ip link set lan up`;

/**
 * Where control groups are of both versions, all machines would share that of this process: each gets one of its own in each
 * hierarchy. Only /proc/sys/net may be written by a guest: the rest would be the machine's own settings.
 */
const nspawn = `set -e
hierarchies=/sys/fs/cgroup/*/
[ ! -e /sys/fs/cgroup/cgroup.procs ] || hierarchies=/sys/fs/cgroup/
for hierarchy in $hierarchies; do
  [ -w "$hierarchy/cgroup.procs" ] || continue
  mkdir -p "$hierarchy$1"
  case $hierarchy in */cpuset/)
    cat "$hierarchy/cpuset.cpus" >"$hierarchy$1/cpuset.cpus"
    cat "$hierarchy/cpuset.mems" >"$hierarchy$1/cpuset.mems" ;;
  esac
  echo $$ >"$hierarchy$1/cgroup.procs"
done
export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network SYSTEMD_SECCOMP=0
exec systemd-nspawn --register=no --keep-unit --machine="$2" --directory="$3" --boot --capability=all --console=pipe \
  --link-journal=no --resolv-conf=off --timezone=off --network-bridge=lan`;

export class Ground {
  readonly #machine: Machine;
  readonly #directory: string;
  readonly #guests: Guest[] = [];

  private constructor(machine: Machine, directory: string) {
    this.#machine = machine;
    this.#directory = directory;
  }

  static async create(): Promise<Ground> {
    const directory = mkdtempSync(join(tmpdir(), 'netctl-machines-'));
    return new Ground(await Machine.boot({ name: 'ground', furnish }), directory);
  }

  /** A copy of the root that costs nothing, with an address and the files given. Not booted. */
  async guest(
    root: string,
    name: string,
    address: string,
    files: Readonly<Record<string, string>>,
  ): Promise<Guest> {
    const directory = join(this.#directory, name);
    const merged = join(directory, 'root');
    for (const part of ['upper', 'work', 'root']) mkdirSync(join(directory, part), { recursive: true });
    const layers = `lowerdir=${root},upperdir=${directory}/upper,workdir=${directory}/work`;
    await mustRun(this.#machine.command(['mount', '-n', '-t', 'overlay', '-o', layers, 'overlay', merged]));
    const inside = (path: string) => this.#machine.path(join(merged, path));
    writeFileSync(
      inside('etc/systemd/network/10-lab.network'),
      `[Match]\nName=host0\n[Network]\nAddress=${address}/24\nLinkLocalAddressing=no\nDHCP=no\nIPv6AcceptRA=no\n`,
    );
    // Without one it would be a first boot, which enables all units anew.
    writeFileSync(inside('etc/machine-id'), `${randomBytes(16).toString('hex')}\n`);
    for (const [path, source] of Object.entries(files)) writeFileSync(inside(path), readFileSync(source));
    const guest = new Guest(this.#machine, name, directory);
    this.#guests.push(guest);
    return guest;
  }

  async close(): Promise<void> {
    await this.#machine.kill();
    rmSync(this.#directory, { recursive: true, force: true });
    for (const { group } of this.#guests) {
      // A group goes once its last process is gone, which the kernel may need a moment for.
      const groups = `/sys/fs/cgroup/${group} /sys/fs/cgroup/*/${group}`;
      const remove = `find ${groups} -depth -type d -exec rmdir {} + 2>/dev/null; ! ls -d ${groups} 2>/dev/null | grep -q .`;
      await eventually(
        `no control group ${group}`,
        5000,
        async () => (await run(['sh', '-c', remove])).code === 0,
      );
    }
  }
}

export class Guest {
  readonly name: string;
  readonly group: string;
  readonly #ground: Machine;
  readonly #directory: string;
  readonly #nspawn: Daemon;

  constructor(ground: Machine, name: string, directory: string) {
    this.name = name;
    this.group = `netctl-${process.pid}-${name}`;
    this.#ground = ground;
    this.#directory = directory;
    this.#nspawn = new Daemon(ground, `${name}-nspawn`, directory);
  }

  /** Returns when all units have been started. @throws naming those that failed */
  async boot(): Promise<void> {
    await this.#nspawn.start([
      'sh',
      '-c',
      nspawn,
      'nspawn',
      this.group,
      this.name,
      join(this.#directory, 'root'),
    ]);
    await this.running();
  }

  async running(): Promise<void> {
    await eventually(`${this.name} has booted`, 60_000, async () => {
      if (this.#nspawn.pid === null)
        throw new Error(`${this.name} has ended: ${this.#nspawn.log().slice(-2000)}`);
      if (this.#leader() === null) return false;
      const { stdout } = await this.exec(['systemctl', 'is-system-running']);
      return /^(running|degraded)/.test(stdout);
    });
    const failed = (await this.exec(['systemctl', 'list-units', '--failed', '--plain', '--no-legend']))
      .stdout;
    if (failed.trim() !== '') throw new Error(`${this.name}: units failed: ${failed}`);
  }

  /** In good order, as an operator does it. */
  async reboot(): Promise<void> {
    await this.exec(['systemctl', 'reboot']);
    // It leaves starting anew to who started it.
    await eventually(`${this.name} goes down`, 60_000, async () => this.#nspawn.pid === null);
    await this.boot();
  }

  /** Without a word to anything that runs on it. */
  async cutPower(): Promise<void> {
    const leader = this.#leader();
    if (leader !== null) await run(this.#ground.command(['kill', '-KILL', leader]));
    await eventually(`the end of ${this.name}`, 20_000, async () => this.#nspawn.pid === null);
  }

  exec(command: readonly string[], options: RunOptions = {}): Promise<Result> {
    const leader = this.#leader();
    if (leader === null) return Promise.reject(new Error(`${this.name} is down`));
    return run(this.#ground.command(['nsenter', '--target', leader, '--all', ...command]), options);
  }

  async mustExec(command: readonly string[], options: RunOptions = {}): Promise<string> {
    const { code, stdout, stderr } = await this.exec(command, options);
    if (code !== 0)
      throw new Error(`${this.name}: ${command.join(' ')}: exit code ${code}: ${stderr || stdout}`);
    return stdout;
  }

  /** The guest's systemd, as the ground numbers it. */
  #leader(): string | null {
    const { pid } = this.#nspawn;
    if (pid === null) return null;
    try {
      const children = readFileSync(this.#ground.path(`/proc/${pid}/task/${pid}/children`), 'utf8').trim();
      return children === '' ? null : (children.split(' ')[0] ?? null);
    } catch {
      return null;
    }
  }
}
