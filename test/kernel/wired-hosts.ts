/**
 * Hosts whose macvlan parents share one bridge, with a router that is none of them: what a rack with a switch is.
 *
 *     host1 ──eth1──┐           ┌──eth1── host2          eth1: the wire, parent of macvlans; the hosts have no address there
 *       └──eth0──┐  └── bridge ─┘  ┌──eth0──┘            eth0: to the router, and by it to etcd and to each other
 *                └───── router ────┘
 *
 * In: how many hosts. Out: them with agents on one etcd, pools of both families on the wire and routed, containers with addresses of
 * both. Never: anything left after close().
 */
import { type Conflist, Container } from '../../lab/container.ts';
import type { Host } from '../../lab/host.ts';
import { eventually, mustRun, run } from '../../lab/run.ts';
import { EtcdHosts } from './etcd-hosts.ts';
import { addExamples } from './wired-host.ts';

/** What the router, hosts and other machines have on the wire. */
const others = { 4: '10.66.0.192/26', 6: 'fd66::/118' } as const;
/** Of the router. */
export const gateways = { 4: '10.66.0.254', 6: 'fd66::fe' } as const;
const pools: readonly string[] = [
  `10.66.0.0/24 --name wire --kind macvlan --exclude ${others[4]} --gateway ${gateways[4]}`,
  `fd66::/64 --name wire6 --kind macvlan --exclude ${others[6]} --gateway ${gateways[6]}`,
  '10.65.0.0/16 --name routed',
  'fd65::/64 --name routed6',
];

export const wire = (profile: string, words: object = {}): Conflist => ({
  cniVersion: '1.0.0',
  name: 'wire',
  plugins: [
    {
      type: 'netctl',
      mode: 'macvlan',
      parent: 'eth1',
      profiles: [profile],
      pools: ['wire', 'wire6'],
      ...words,
    },
  ],
});
export const routed = (profile: string): Conflist => ({
  cniVersion: '1.0.0',
  name: 'edge',
  plugins: [{ type: 'netctl', profiles: [profile], pools: ['routed', 'routed6'] }],
});

export interface WiredMember {
  readonly name: string;
  readonly container: Container;
  readonly address4: string;
  readonly address6: string;
}

export class WiredHosts {
  readonly all: EtcdHosts;
  readonly #bridge: string;
  readonly #containers: Container[] = [];

  private constructor(all: EtcdHosts, bridge: string) {
    this.all = all;
    this.#bridge = bridge;
  }

  /** In a namespace of the caller's own (enterSandbox), which becomes the router. @param tag as EtcdHosts has it */
  static async create(tag: string, count: number, flags: readonly string[] = []): Promise<WiredHosts> {
    const wired = new WiredHosts(await EtcdHosts.create(tag, count, flags), `br${tag}${process.pid}`);
    try {
      await wired.#furnish();
      return wired;
    } catch (error) {
      await wired.close();
      throw error;
    }
  }

  get hosts(): readonly Host[] {
    return this.all.hosts;
  }

  async #furnish(): Promise<void> {
    const bridge = this.#bridge;
    await mustRun(['ip', 'link', 'add', bridge, 'up', 'type', 'bridge', 'mcast_snooping', '0']);
    for (const path of ['net/ipv4/ip_forward', 'net/ipv6/conf/all/forwarding'])
      await mustRun(['sh', '-c', `echo 1 > /proc/sys/${path}`]);
    await mustRun(['ip', 'address', 'add', `${gateways[4]}/24`, 'dev', bridge]);
    await mustRun(['ip', 'address', 'add', `${gateways[6]}/64`, 'dev', bridge, 'nodad']);
    for (const [i, host] of this.hosts.entries()) {
      const port = portOf(host);
      const [up, netns] = [`up-${host.name}`, `nct-${host.name}`];
      await mustRun(
        `ip link add ${port} up master ${bridge} type veth peer name eth1 netns ${netns}`.split(' '),
      );
      await host.mustExec(['ip', 'link', 'set', 'eth1', 'up']);
      // Who forwards asks for neighbours from an address of the link alone.
      for (const prefix of ['fe80', `fd99:${i}`]) {
        await mustRun(['ip', 'address', 'add', `${prefix}::fe/64`, 'dev', up, 'nodad']);
        await host.mustExec(['ip', 'address', 'add', `${prefix}::1/64`, 'dev', 'eth0', 'nodad']);
      }
      await host.mustExec(['ip', 'route', 'add', 'default', 'via', `198.18.${i}.254`]);
      await host.mustExec(['ip', '-6', 'route', 'add', 'default', 'via', `fd99:${i}::fe`]);
    }
    const [first] = this.hosts;
    for (const pool of pools) await first!.mustNetctl(['pool', 'add', ...pool.split(' '), '--cooldown', '0']);
    await this.everywhere('the pools', ['pool', 'show'], 'routed6');
  }

  /** As where the parent is the host's own way into its network. */
  async putHostsOnWire(): Promise<void> {
    for (const [i, host] of this.hosts.entries()) {
      await host.mustExec(['ip', 'address', 'add', `10.66.0.${201 + i}/24`, 'dev', 'eth1']);
      await host.mustExec(['ip', 'address', 'add', `fd66::${201 + i}/64`, 'dev', 'eth1', 'nodad']);
    }
  }

  /** Waits until every host's `netctl WORDS` names it. */
  async everywhere(what: string, words: readonly string[], name: string): Promise<void> {
    for (const host of this.hosts)
      await eventually(`${host.name} knows ${what}`, 20_000, async () =>
        (await host.netctl(words)).stdout.includes(name),
      );
  }

  /** The profiles of conf/examples, which WEB → APP → DB is. */
  async addExamples(): Promise<void> {
    await addExamples(this.hosts[0]!);
    await this.everywhere('the profiles', ['profile', 'show'], 'web');
  }

  /** A container of the host joins. Where its network is routed, the router learns of it. */
  async join(host: Host, name: string, network: Conflist): Promise<WiredMember> {
    const container = await Container.create(host, name);
    this.#containers.push(container);
    const { ips } = await container.cniAdd(network);
    const addresses = ips.map(({ address }) => address.split('/')[0]!);
    const [address4, address6] = [/\./, /:/].map((of) => addresses.find((address) => of.test(address))!);
    if (network.name === 'edge') {
      const i = this.hosts.indexOf(host);
      await mustRun(['ip', 'route', 'add', `${address4}/32`, 'via', `198.18.${i}.1`]);
      await mustRun(['ip', '-6', 'route', 'add', `${address6}/128`, 'via', `fd99:${i}::1`]);
    }
    return { name, container, address4: address4!, address6: address6! };
  }

  async close(): Promise<void> {
    await Promise.all(this.#containers.map((container) => container.close()));
    await this.all.close();
    // The kernel may take seconds to clear a namespace, and the next hosts have the same names.
    for (const host of this.hosts) await run(['ip', 'link', 'delete', portOf(host)]);
    await run(['ip', 'link', 'delete', this.#bridge]);
  }
}

/** The bridge's end of the host's wire. */
const portOf = ({ name }: Host): string => `w${name}`.slice(0, 15);
