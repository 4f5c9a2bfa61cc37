/**
 * One host whose eth0 is the parent of macvlans, with the profiles of conf/examples and a pool of each family on the wire.
 *
 * In: flags for the agent; names and profiles of containers. Out: containers that have joined. Never: anything left after close().
 */
import { type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { mustRun } from '../../lab/run.ts';
import type { Address } from '../../src/model/ip.ts';
import type { Mac } from '../../src/model/mac.ts';

export interface MacvlanMember {
  readonly container: Container;
  readonly address: Address;
  readonly address6: Address;
  readonly mac: Mac;
  readonly network: Conflist;
}

/** WEB → APP → DB. */
export async function addExamples(host: Host): Promise<void> {
  for (const role of ['web', 'app', 'db']) {
    await host.mustNetctl(['profile', 'add', role]);
    const stdin = await mustRun(['cat', `conf/examples/${role}-rule.json`]);
    await host.mustNetctl(['profile', role, 'rule', 'update'], { stdin });
  }
}

export class MacvlanHost {
  readonly host: Host;
  readonly #containers: Container[] = [];

  private constructor(host: Host) {
    this.host = host;
  }

  /** @param tag part of the host's name, short and unique among the test files */
  static async create(tag: string, flags: readonly string[] = []): Promise<MacvlanHost> {
    const host = await Host.create({ name: `${tag}${process.pid}`, address: '192.0.2.1' });
    const one = new MacvlanHost(host);
    try {
      await host.start(flags);
      for (const [net, name] of [
        ['10.66.0.0/24 --exclude 10.66.0.192/26', 'wire'],
        ['fd66::/64', 'wire6'],
      ] as const)
        await host.mustNetctl(`pool add ${net} --name ${name} --kind macvlan --cooldown 0`.split(' '));
      await addExamples(host);
      return one;
    } catch (error) {
      await one.close();
      throw error;
    }
  }

  network(profile: string, words: object = {}): Conflist {
    const plugin = { type: 'netctl', mode: 'macvlan', parent: 'eth0', pools: ['wire', 'wire6'] };
    return { cniVersion: '1.0.0', name: 'wire', plugins: [{ ...plugin, profiles: [profile], ...words }] };
  }

  async container(name: string): Promise<Container> {
    const container = await Container.create(this.host, name);
    this.#containers.push(container);
    return container;
  }

  async join(name: string, profile: string, words: object = {}): Promise<MacvlanMember> {
    const container = await this.container(name);
    const network = this.network(profile, words);
    const { ips, interfaces } = await container.cniAdd(network);
    const addresses = ips.map(({ address }) => address.split('/')[0]! as Address);
    const [address, address6] = [/\./, /:/].map((of) => addresses.find((each) => of.test(each))!);
    const { mac } = interfaces[ips[0]!.interface ?? 0]!;
    return { container, network, address: address!, address6: address6!, mac: mac as Mac };
  }

  async close(): Promise<void> {
    for (const container of this.#containers) await container.close();
    await this.host.close();
  }
}

/** The kernel's own words for all rules in a container, without counters. */
export async function rulesOf(container: Container): Promise<string> {
  return (await container.mustExec(['nft', 'list', 'ruleset'])).replace(/packets \d+ bytes \d+/g, '');
}

export async function reaches(
  from: Container,
  address: string,
  port: number,
  patienceMs = 700,
): Promise<boolean> {
  return (await from.connect([{ address, port }], patienceMs))[0]!;
}
