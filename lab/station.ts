/**
 * What is plugged into the lab's switch: a machine with two addresses on eth0, and a directory on the disk that outlives it.
 *
 * In: the switch, a name, addresses. Out: boot, crash, the cable, programs that run there. Never: a machine without its cable.
 */
import { mkdirSync } from 'node:fs';
import { Daemon } from './daemon.ts';
import { Machine } from './machine.ts';
import { type Addresses, cableCommands, hostCommands } from './network.ts';
import type { Place } from './place.ts';
import { eventually, mustRun, run } from './run.ts';

/** /run of the machine's own; its directory on the disk is /run/lab, and stays when the machine ends. */
const furnish = `mount -n -t proc proc /proc
mount -n -t tmpfs -o mode=755 tmpfs /mnt
mkdir -p /mnt/lab /mnt/netns /mnt/lock /mnt/containers /mnt/cgroup
mount -n --bind "$2" /mnt/lab
mount -n --move /mnt /run
mount -n --rbind /sys/fs/cgroup /run/cgroup
mount -n -t sysfs sysfs /sys
mount -n --move /run/cgroup /sys/fs/cgroup
hostname "$1"`;

/** The station's own directory, as it knows it. */
export const stationDirectory = '/run/lab';

export interface StationOptions {
  readonly name: string;
  readonly addresses: Addresses;
  /** More addresses, on the loopback. */
  readonly loopback?: readonly string[];
  /** All other addresses on the switch. */
  readonly neighbours: readonly Addresses[];
  /** Its directory as it is called here. */
  readonly directory: string;
  readonly onSwitch: Machine;
  /** Null until boot(). */
  readonly machine: Machine | null;
}

export class Station implements Place {
  readonly name: string;
  readonly addresses: Addresses;
  readonly directory: string;
  readonly #options: StationOptions;
  #machine: Machine | null;

  constructor(options: StationOptions) {
    this.name = options.name;
    this.addresses = options.addresses;
    this.directory = options.directory;
    this.#options = options;
    this.#machine = options.machine;
  }

  /** @throws while it is down */
  get machine(): Machine {
    if (this.#machine === null) throw new Error(`${this.name} is down`);
    return this.#machine;
  }

  get isUp(): boolean {
    return this.#machine?.isRunning === true;
  }

  /** Makes the machine and plugs it in. */
  async boot(): Promise<void> {
    if (this.isUp) throw new Error(`${this.name} is up already`);
    const { onSwitch, loopback = [], neighbours } = this.#options;
    mkdirSync(this.directory, { recursive: true });
    const machine = await Machine.boot({
      name: this.name,
      furnish,
      arguments: [this.name, this.directory],
      within: onSwitch,
    });
    this.#machine = machine;
    const { pid } = machine.process;
    await batch(onSwitch.networkCommand(ipBatch), cableCommands(this.name, this.addresses, pid));
    await batch(machine.command(ipBatch), hostCommands(this.addresses, loopback, neighbours));
  }

  /** As pulling the plug: all that ran there is gone at once, and nobody has said goodbye. */
  async crash(): Promise<void> {
    await this.machine.kill();
    this.#machine = null;
    // The kernel takes it away some time after the machine's end.
    await run(this.#options.onSwitch.networkCommand(['ip', 'link', 'delete', this.name]));
  }

  /** The cable, pulled at the switch's end: the station sees its carrier go. */
  async cable(state: 'up' | 'down'): Promise<void> {
    await mustRun(this.#options.onSwitch.networkCommand(['ip', 'link', 'set', this.name, state]));
  }

  daemon(name: string): Daemon {
    return new Daemon(this, name, stationDirectory);
  }

  /** Waits until the program takes connections. @throws with the end of its log, at once when it has ended */
  async listening(program: Daemon, port: number): Promise<void> {
    const { address4 } = this.addresses;
    const probe = this.command(['bash', '-c', `exec 3<>/dev/tcp/${address4}/${port}`]);
    await eventually(`${program.name} listens on ${address4}:${port}`, 30_000, async () => {
      if (program.pid === null) throw new Error(`${program.name} has ended`);
      return (await run(probe)).code === 0;
    }).catch((error: Error) => {
      throw new Error(`${error.message}; its log ends: ${program.log().slice(-1000)}`);
    });
  }

  command(command: readonly string[], netns?: string): string[] {
    return this.machine.command(command, netns);
  }

  path(path: string): string {
    return this.machine.path(path);
  }
}

const ipBatch = ['ip', '-batch', '-'];

/** Gives `ip` its commands in the network of the switch. */
export function atSwitch(onSwitch: Machine, commands: string): Promise<void> {
  return batch(onSwitch.networkCommand(ipBatch), commands);
}

async function batch(command: readonly string[], commands: string): Promise<void> {
  await mustRun(command, { stdin: commands });
}
