/**
 * The pair beside a macvlan endpoint by which its host and it reach each other (`hostAccess: veth`).
 *
 * In: an endpoint whose macvlan stands, its open namespace. Out: the pair, the host's routes to the endpoint, the container's to the
 * host's own addresses. Never: a default route by way of the host, an interface of the container's own taken away.
 */
import type { Linux, Netns, Routing } from '../linux/ports.ts';
import { type HostPairSpec, planHostPair, planWayToHost } from '../macvlan/plan.ts';
import { type Address, familyOf } from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';
import { gateways, hostMac, planHostRoutes } from '../veth/plan.ts';
import { twoIndexes } from './indexes.ts';

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
    const container = this.#linux.openRouting(netns);
    try {
      container.batch(planWayToHost(spec, this.#hostAddresses, gateways, endpoint.addresses));
    } finally {
      container.close();
    }
  }

  async unmake({ hostInterface }: Endpoint): Promise<void> {
    const link = this.#host.link({ name: hostInterface });
    if (link !== null) await this.#linux.deleteLink(link.index);
  }

  stands({ hostInterface }: Endpoint): boolean {
    return this.#host.link({ name: hostInterface }) !== null;
  }

  inspect(endpoint: Endpoint): string[] {
    const link = this.#host.link({ name: endpoint.hostInterface });
    if (link === null) return [`host interface ${endpoint.hostInterface} is missing`];
    return link.up ? [] : [`host interface ${endpoint.hostInterface} is down`];
  }
}

/** Beside `eth0`, `eth0-host`. */
export function insideName(endpoint: Endpoint): string {
  return `${endpoint.interface.slice(0, 10)}-host`;
}
