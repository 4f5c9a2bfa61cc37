/**
 * A host of the lab: a station with the agent on it, and containers that join by the real CNI plugin.
 *
 * In: a station, labels. Out: boot, crash, the cable, containers by name. Never: state of its own beside what is
 * on the machine: another process that opens the lab sees the same.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type Conflist, Container } from './container.ts';
import { etcdUrl } from './etcd.ts';
import { Host } from './host.ts';
import type { Machine } from './machine.ts';
import { type Station, stationDirectory } from './station.ts';

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

export class LabNode extends Host {
  readonly address6: string;
  readonly #station: Station;
  readonly #labels: Readonly<Record<string, string>>;

  constructor(station: Station, labels: Readonly<Record<string, string>>) {
    const { name, addresses } = station;
    const directories = { run: '/run/netctl', state: `${stationDirectory}/state`, log: stationDirectory };
    super({ name, address: addresses.address4 }, station, directories, [
      '--config',
      `${stationDirectory}/netctld.yaml`,
    ]);
    this.address6 = addresses.address6;
    this.#station = station;
    this.#labels = labels;
  }

  /** @throws while it is down */
  get machine(): Machine {
    return this.#station.machine;
  }

  get isUp(): boolean {
    return this.#station.isUp;
  }

  /** Makes the machine and plugs it in. What a former one had in its state directory is there. The agent is not started. */
  async boot(): Promise<void> {
    const { directory } = this.#station;
    mkdirSync(`${directory}/state`, { recursive: true, mode: 0o700 });
    writeFileSync(`${directory}/netctld.yaml`, this.#config(), { mode: 0o600 });
    await this.#station.boot();
  }

  /** As pulling the plug: agent, BIRD and containers are gone at once, and nobody has said goodbye. */
  async crash(): Promise<void> {
    await this.#station.crash();
  }

  /** The cable to the switch, pulled at the switch's end: the host sees its carrier go. */
  async cable(state: 'up' | 'down'): Promise<void> {
    await this.#station.cable(state);
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
    const labels = JSON.stringify(this.#labels);
    return `node: {name: ${this.name}, address4: ${this.address}, address6: "${this.address6}", labels: ${labels}}
datastore: {type: etcd, endpoints: ["${etcdUrl}"]}
stateDir: ${stationDirectory}/state
`;
  }
}
