/**
 * A host of the lab: a machine on the switch with the agent on it, and containers that join by the real CNI plugin.
 *
 * In: the lab's switch, a name, addresses. Out: boot, crash, the cable, containers by name. Never: state of its own beside what is
 * on the machine: another process that opens the lab sees the same.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type Conflist, Container } from './container.ts';
import { Host } from './host.ts';
import { Machine } from './machine.ts';
import { type Addresses, cableCommands, hostCommands, switchAddresses } from './network.ts';
import { mustRun, run } from './run.ts';

/** A network for containers: what a file in /etc/cni/net.d would say. */
export function conflistOf(network: string): Conflist {
  return { cniVersion: '1.0.0', name: network, plugins: [{ type: 'netctl' }] };
}

/** What `lab attach` found out; kept on the host, in /run, so that it is gone after a reboot like the container. */
export interface LabContainer {
  readonly name: string;
  readonly id: string;
  readonly network: string;
  readonly addresses: readonly string[];
}

/** /run of the machine's own; its directory on the disk is /run/lab, and stays when the machine ends. */
export const furnishHost = `mount -n -t proc proc /proc
mount -n -t tmpfs -o mode=755 tmpfs /mnt
mkdir -p /mnt/lab /mnt/netns /mnt/lock /mnt/containers /mnt/cgroup
mount -n --bind "$2" /mnt/lab
mount -n --move /mnt /run
mount -n --rbind /sys/fs/cgroup /run/cgroup
mount -n -t sysfs sysfs /sys
mount -n --move /run/cgroup /sys/fs/cgroup
hostname "$1"`;

export class LabNode extends Host {
  readonly address6: string;
  readonly #switch: Machine;
  readonly #labels: Readonly<Record<string, string>>;
  readonly #neighbours: readonly Addresses[];
  readonly #directory: string;
  #machine: Machine | null;

  /**
   * @param directory here, of this node alone
   * @param neighbours all other addresses on the switch
   * @param machine null until boot()
   */
  constructor(
    name: string,
    own: Addresses,
    labels: Readonly<Record<string, string>>,
    neighbours: readonly Addresses[],
    directory: string,
    onSwitch: Machine,
    machine: Machine | null,
  ) {
    const place = {
      command: (command: readonly string[], netns?: string) => this.machine.command(command, netns),
      path: (path: string) => this.machine.path(path),
    };
    const directories = { run: '/run/netctl', state: '/run/lab/state', log: '/run/lab' };
    super({ name, address: own.address4 }, place, directories, ['--config', '/run/lab/netctld.yaml']);
    this.address6 = own.address6;
    this.#switch = onSwitch;
    this.#labels = labels;
    this.#neighbours = neighbours;
    this.#directory = directory;
    this.#machine = machine;
  }

  /** @throws while it is down */
  get machine(): Machine {
    if (this.#machine === null) throw new Error(`${this.name} is down`);
    return this.#machine;
  }

  get isUp(): boolean {
    return this.#machine?.isRunning === true;
  }

  /** Makes the machine and plugs it in. What a former one had in its state directory is there. The agent is not started. */
  async boot(): Promise<void> {
    if (this.isUp) throw new Error(`${this.name} is up already`);
    mkdirSync(`${this.#directory}/state`, { recursive: true, mode: 0o700 });
    writeFileSync(`${this.#directory}/netctld.yaml`, this.#config(), { mode: 0o600 });
    this.#machine = await Machine.boot({
      name: this.name,
      furnish: furnishHost,
      arguments: [this.name, this.#directory],
      within: this.#switch,
    });
    const own = { address4: this.address, address6: this.address6 };
    await batch(
      this.#switch.networkCommand(['ip', '-batch', '-']),
      cableCommands(this.name, own, this.#machine.process.pid),
    );
    await batch(this.command(['ip', '-batch', '-']), hostCommands(own, [], this.#neighbours));
  }

  /** As pulling the plug: agent, BIRD and containers are gone at once, and nobody has said goodbye. */
  async crash(): Promise<void> {
    await this.machine.kill();
    this.#machine = null;
    // The kernel takes it away some time after the host's end.
    await run(this.#switch.networkCommand(['ip', 'link', 'delete', this.name]));
  }

  /** The cable to the switch, pulled at the switch's end: the host sees its carrier go. */
  async cable(state: 'up' | 'down'): Promise<void> {
    await mustRun(this.#switch.networkCommand(['ip', 'link', 'set', this.name, state]));
  }

  /** A container that joins a network. @throws with the plugin's error; nothing is left then */
  async attach(
    name: string,
    { network = 'edge', profiles = [] as readonly string[], args = '' } = {},
  ): Promise<LabContainer> {
    if (!/^[a-z0-9][\w.-]{0,40}$/i.test(name))
      throw new Error(
        `"${name}" is no name of a container: up to 41 letters, digits, dots, dashes, underscores`,
      );
    if (this.containers().some((one) => one.name === name))
      throw new Error(`${this.name} has a container ${name} already`);
    const container = await Container.create(this, name, name);
    try {
      const wanted = [profiles.length > 0 ? `NETCTL_PROFILE=${profiles.join(',')}` : '', args];
      const { ips } = await container.cniAdd(conflistOf(network), { args: wanted.filter(Boolean).join(';') });
      const addresses = ips.map(({ address }) => address.replace(/\/.*/, ''));
      const made = { name, id: container.id, network, addresses };
      writeFileSync(this.#containerFile(name), JSON.stringify(made));
      return made;
    } catch (error) {
      await container.close();
      throw error;
    }
  }

  /** @throws when there is none of that name */
  async detach(name: string): Promise<void> {
    const { network } = this.#recorded(name);
    const container = this.container(name);
    await container.cniDel(conflistOf(network));
    await container.close();
    rmSync(this.#containerFile(name));
  }

  /** For programs and TCP in it. @throws when there is none of that name */
  container(name: string): Container {
    return new Container(this, { name, id: this.#recorded(name).id, netns: name });
  }

  containers(): LabContainer[] {
    return readdirSync(this.machine.path('/run/containers'))
      .filter((file) => file.endsWith('.json'))
      .sort()
      .map((file) => this.#recorded(file.slice(0, -'.json'.length)));
  }

  #recorded(name: string): LabContainer {
    try {
      return JSON.parse(readFileSync(this.#containerFile(name), 'utf8')) as LabContainer;
    } catch {
      throw new Error(
        `${this.name} has no container ${name}: netctl lab attach ${this.name} ${name} makes one`,
      );
    }
  }

  #containerFile(name: string): string {
    return this.machine.path(`/run/containers/${name}.json`);
  }

  #config(): string {
    return `node: {name: ${this.name}, address4: ${this.address}, address6: "${this.address6}", labels: ${JSON.stringify(this.#labels)}}
datastore: {type: etcd, endpoints: ["http://${switchAddresses.address4}:2379"]}
stateDir: /run/lab/state
`;
  }
}

/** Gives `ip -batch -` its commands. */
export async function batch(command: readonly string[], commands: string): Promise<void> {
  await mustRun(command, { stdin: commands });
}
