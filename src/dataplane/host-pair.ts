/**
 * The pair beside a macvlan endpoint by which its host and it reach each other (`hostAccess: veth`), and the way back for what came by
 * the host: connections that came by the pair carry a mark (container-chains.ts), a rule leads what has it into a table of its own.
 *
 * In: an endpoint whose macvlan stands, its open namespace. Out: the pair, the host's routes to the endpoint, the container's to the
 * host's own addresses, the rule and the table. Never: a default route by way of the host in the container's main table, an interface of
 * the container's own taken away.
 */
import { KernelError, type Linux, type Netns, type Routing } from '../linux/ports.ts';
import { routeProtocol } from '../linux/route-protocols.ts';
import {
  type HostPairSpec,
  planHostPair,
  planWayBackRules,
  planWayToHost,
  wayBackOf,
} from '../macvlan/plan.ts';
import { type Address, familyOf } from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';
import { gateways, hostMac, planHostRoutes } from '../veth/plan.ts';
import { twoIndexes } from './indexes.ts';
import { missingOnHost } from './routed-inspection.ts';

/** Of the container's end, where it needs one; nothing is sent from or to it. */
const pairAddress = '169.254.1.2' as Address;

export class HostPair {
  readonly #linux: Linux;
  readonly #host: Routing;
  readonly #hostAddresses: readonly Address[];

  /** @param hostAddresses of this node, by which its containers know it */
  constructor(linux: Linux, host: Routing, hostAddresses: readonly Address[]) {
    this.#linux = linux;
    this.#host = host;
    this.#hostAddresses = hostAddresses;
  }

  /** @throws KernelError; what is left, `unmake` takes away */
  make(endpoint: Endpoint, netns: Netns): void {
    const [hostIndex, containerIndex] = twoIndexes();
    const spec: HostPairSpec = {
      hostInterface: endpoint.hostInterface,
      hostIndex,
      hostMac,
      containerInterface: insideName(endpoint),
      containerIndex,
      netnsFd: netns.fd,
      mac: endpoint.mac,
      mtuBytes: endpoint.mtuBytes,
    };
    this.#host.batch([
      ...planHostPair(spec),
      ...planHostRoutes(hostIndex, endpoint.mac, endpoint.addresses, new Set()),
    ]);
    const path = `net/ipv6/conf/${spec.containerInterface}/disable_ipv6`;
    const hasIpv6 = endpoint.addresses.some((address) => familyOf(address) === 6);
    if (hasIpv6 && this.#linux.readSysctl(path, netns).trim() !== '0')
      this.#linux.writeSysctl(path, '0', netns);
    this.#loosenReversePath(spec.containerInterface, containerIndex, netns);
    this.#leadBack(endpoint, containerIndex, netns);
  }

  /** Its rules in the container go where its namespace lives on: their table is empty by then. */
  async unmake({ hostInterface }: Endpoint, netns: Netns | null): Promise<void> {
    const link = this.#host.link({ name: hostInterface });
    if (link !== null) await this.#linux.deleteLink(link.index);
    if (netns === null) return;
    const container = this.#linux.openRouting(netns);
    try {
      const there = (await container.markRules()).filter(
        ({ table }) => table === wayBackOf(hostInterface).table,
      );
      container.batch(there.map((rule) => ({ kind: 'mark-rule-delete', ...rule })));
    } finally {
      container.close();
    }
  }

  stands({ hostInterface }: Endpoint): boolean {
    return this.#host.link({ name: hostInterface }) !== null;
  }

  /** @param container its namespace */
  async inspect(endpoint: Endpoint, container: Routing): Promise<string[]> {
    const link = this.#host.link({ name: endpoint.hostInterface });
    if (link === null) return [`host interface ${endpoint.hostInterface} is missing`];
    if (!link.up) return [`host interface ${endpoint.hostInterface} is down`];
    const hostRoutes = await this.#host.routes({ protocol: routeProtocol });
    return [
      ...(await missingOnHost({ host: this.#host, endpoint, hostRoutes }, link)),
      ...(await this.#inspectWayBack(endpoint, container)),
    ];
  }

  /** Puts the way back right where somebody has changed it. Returns what was wrong, in words. @throws KernelError */
  async mend(endpoint: Endpoint, netns: Netns): Promise<string[]> {
    const container = this.#linux.openRouting(netns);
    try {
      const wrong = await this.#inspectWayBack(endpoint, container);
      const inside = container.link({ name: insideName(endpoint) });
      if (wrong.length > 0 && inside !== null) this.#leadBack(endpoint, inside.index, netns);
      return wrong;
    } finally {
      container.close();
    }
  }

  async #inspectWayBack({ hostInterface, addresses }: Endpoint, container: Routing): Promise<string[]> {
    const { mark, mask, table } = wayBackOf(hostInterface);
    const rules = await container.markRules();
    const routes = await container.routes({ table });
    return [...new Set(addresses.map(familyOf))].flatMap((family) => {
      const isLed = rules.some(
        (rule) => rule.family === family && rule.mark === mark && rule.mask === mask && rule.table === table,
      );
      return [
        ...(isLed ? [] : [`the IPv${family} rule for what came by the host is missing in the container`]),
        ...(routes.some(({ gateway }) => gateway === gateways[family])
          ? []
          : [`the IPv${family} route back by the host is missing in the container`]),
      ];
    });
  }

  #leadBack({ hostInterface, addresses, mtuBytes }: Endpoint, containerIndex: number, netns: Netns): void {
    const container = this.#linux.openRouting(netns);
    try {
      const spec = { hostInterface, hostMac, containerIndex, mtuBytes };
      container.batch(planWayToHost(spec, this.#hostAddresses, gateways, addresses));
      for (const request of planWayBackRules(hostInterface, addresses)) {
        try {
          container.batch([request]);
        } catch (error) {
          if (!(error instanceof KernelError) || error.errno !== 'EEXIST') throw error;
        }
      }
    } finally {
      container.close();
    }
  }

  /**
   * Strict, it would drop what comes by the host from those to whom the container's own way leads elsewhere. Loose (2) wins over the setting
   * for all interfaces, but lets nothing in by an interface without an address.
   */
  #loosenReversePath(name: string, index: number, netns: Netns): void {
    const path = (of: string): string => `net/ipv4/conf/${of}/rp_filter`;
    const isFiltered = ['all', name].some((of) => this.#linux.readSysctl(path(of), netns).trim() !== '0');
    if (!isFiltered) return;
    this.#linux.writeSysctl(path(name), '2', netns);
    const container = this.#linux.openRouting(netns);
    try {
      container.batch([
        { kind: 'address-add', index, address: pairAddress, prefixLength: 32, scope: 'host' },
      ]);
    } finally {
      container.close();
    }
  }
}

/** Beside `eth0`, `eth0-host`. */
export function insideName(endpoint: Endpoint): string {
  return `${endpoint.interface.slice(0, 10)}-host`;
}
