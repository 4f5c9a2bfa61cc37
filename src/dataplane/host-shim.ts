/**
 * The host's own macvlan on each parent that has endpoints with `hostAccess: shim`: made with the first of them, gone with the last.
 *
 * In: endpoints whose macvlan stands, their open namespaces. Out: the shim, the host's routes to the endpoints, the containers' to the host's
 * addresses. Never: an address of the host answered for by the shim; a shim taken away that an endpoint needs.
 */
import { KeyedQueue } from '../lib/keyed-queue.ts';
import type { LinkInfo, Linux, Netns, Routing } from '../linux/ports.ts';
import { routeProtocol } from '../linux/route-protocols.ts';
import {
  planShim,
  planShimRoutes,
  planWayToShim,
  shimMac,
  shimName,
  shimPrefix,
} from '../macvlan/shim-plan.ts';
import { type Address, familyOf, hostCidr } from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';
import { twoIndexes } from './indexes.ts';

/** The host's, as its containers know it. */
export interface ShimHost {
  readonly node: string;
  readonly addresses: readonly Address[];
}

export class HostShim {
  readonly #linux: Linux;
  readonly #host: Routing;
  readonly #own: ShimHost;
  /** By shim: one that is made is not taken away at the same time. */
  readonly #queue = new KeyedQueue();

  constructor(linux: Linux, host: Routing, own: ShimHost) {
    this.#linux = linux;
    this.#host = host;
    this.#own = own;
  }

  /** @throws KernelError; what is left, `unmake` takes away */
  make(endpoint: Endpoint, parent: LinkInfo, netns: Netns): Promise<void> {
    const name = shimName(parent.name);
    return this.#queue.run(name, async () => {
      const shim = this.#standing(name, parent) ?? (await this.#create(name, parent));
      if (!shim.up) this.#bringUp(shim);
      const present = (await this.#host.addresses()).map(({ address }) => address);
      const sources = this.#own.addresses.filter((address) => present.includes(address));
      this.#host.batch(planShimRoutes(shim.index, endpoint, sources));
      const container = this.#linux.openRouting(netns);
      try {
        const link = container.link({ name: endpoint.interface });
        const mac = shimMac(this.#own.node, parent.name);
        if (link !== null)
          container.batch(planWayToShim(link.index, mac, this.#own.addresses, endpoint.addresses));
      } finally {
        container.close();
      }
    });
  }

  /** @param parent its name */
  unmake({ addresses }: Endpoint, parent: string): Promise<void> {
    const name = shimName(parent);
    return this.#queue.run(name, async () => {
      const shim = this.#host.link({ name });
      if (shim === null) return;
      const routes = await this.#routesBy(shim);
      const own = routes.filter((destination) =>
        addresses.some((address) => hostCidr(address) === destination),
      );
      this.#host.batch(
        own.map((destination) => ({ kind: 'route-delete', route: routeBy(shim, destination) })),
      );
      if (own.length === routes.length) await this.#linux.deleteLink(shim.index);
    });
  }

  /** What is missing or wrong, in words. @param container its namespace */
  async inspect(endpoint: Endpoint, parent: LinkInfo, container: Routing): Promise<string[]> {
    const name = shimName(parent.name);
    const shim = this.#standing(name, parent);
    if (shim === null) return [`the host's own interface ${name} on ${parent.name} is missing`];
    if (!shim.up) return [`the host's own interface ${name} on ${parent.name} is down`];
    const routes = await this.#routesBy(shim);
    const inside = (await container.routes()).map(({ destination }) => destination);
    const reachable = this.#own.addresses.filter((host) =>
      endpoint.addresses.some((own) => familyOf(own) === familyOf(host)),
    );
    return [
      ...endpoint.addresses
        .filter((address) => !routes.includes(hostCidr(address)))
        .map((address) => `the host's route to ${address} by ${name} is missing`),
      ...reachable
        .filter((address) => !inside.includes(hostCidr(address)))
        .map((address) => `the route to the host's ${address} is missing in the container`),
    ];
  }

  /** Removes shims and routes by them that no endpoint has: left by a crash. Returns what, in words. @throws KernelError */
  async tidy(endpoints: readonly (readonly [endpoint: Endpoint, parent: string])[]): Promise<string[]> {
    const shims = (await this.#host.links()).filter(({ name }) => name.startsWith(shimPrefix));
    const removed: string[] = [];
    for (const shim of shims)
      await this.#queue.run(shim.name, async () => {
        const users = endpoints.filter(([, parent]) => shimName(parent) === shim.name);
        if (users.length === 0) {
          await this.#linux.deleteLink(shim.index);
          removed.push(`interface ${shim.name}`);
          return;
        }
        const known = new Set<string>(users.flatMap(([{ addresses }]) => addresses.map(hostCidr)));
        const stale = (await this.#routesBy(shim)).filter((destination) => !known.has(destination));
        this.#host.batch(
          stale.map((destination) => ({ kind: 'route-delete', route: routeBy(shim, destination) })),
        );
        removed.push(...stale.map((destination) => `route to ${destination} by ${shim.name}`));
      });
    return removed;
  }

  #standing(name: string, parent: LinkInfo): LinkInfo | null {
    const shim = this.#host.link({ name });
    const isRight = shim?.parentIndex === parent.index && shim.mac === shimMac(this.#own.node, parent.name);
    return isRight ? shim : null;
  }

  async #create(name: string, parent: LinkInfo): Promise<LinkInfo> {
    const wrong = this.#host.link({ name });
    if (wrong !== null) await this.#linux.deleteLink(wrong.index);
    const [index] = twoIndexes();
    const mac = shimMac(this.#own.node, parent.name);
    this.#host.batch(planShim({ parentIndex: parent.index, name, index, mac, mtuBytes: parent.mtuBytes }));
    return this.#host.link({ index })!;
  }

  /** Containers know its MAC without asking: whoever else asks on the wire for an address of the host is answered by the parent alone. */
  #bringUp({ name, index }: LinkInfo): void {
    this.#linux.writeSysctl(`net/ipv4/conf/${name}/arp_ignore`, '8');
    this.#host.batch([{ kind: 'link-set', index, up: true }]);
  }

  async #routesBy(shim: LinkInfo) {
    const routes = await this.#host.routes({ protocol: routeProtocol });
    return routes.filter(({ linkIndex }) => linkIndex === shim.index).map(({ destination }) => destination);
  }
}

function routeBy({ index }: LinkInfo, destination: ReturnType<typeof hostCidr>) {
  return { destination, type: 'unicast', linkIndex: index, scope: 'link', protocol: routeProtocol } as const;
}
