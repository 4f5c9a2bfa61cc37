/**
 * Links, addresses and routes of routed endpoints: makes them for an ADD, takes them away for a DEL, and puts right what is
 * found wrong.
 *
 * In: endpoints as the store has them, an open namespace. Out: netlink batches (planned in src/veth). Never: a link left behind by
 * a batch that failed half-way, a link or route touched that is not ours (name prefix, route protocol), a correct one touched.
 */
import { NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import type { LinkInfo, Linux, Netns, RouteInfo, Routing, RoutingRequest } from '../linux/ports.ts';
import { announcedProtocol, routeProtocol } from '../linux/route-protocols.ts';
import { shimPrefix } from '../macvlan/shim-plan.ts';
import { hostInterfacePrefix, ownTable } from '../model/attachment.ts';
import {
  type Address,
  addressBits,
  type Cidr,
  type Family,
  familyOf,
  hostCidr,
  prefixLength,
} from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';
import { blockRoute, planHostRoutes, type VethSpec } from '../veth/plan.ts';
import { endBeside } from './container-routes.ts';
import { hostNotices } from './host-limits.ts';
import { isErrno } from './is-errno.ts';
import { PairMaker } from './pair-maker.ts';
import { inspectRouted } from './routed-inspection.ts';
import type { Wiring } from './wiring.ts';

export class EndpointWiring implements Wiring {
  readonly #linux: Linux;
  readonly #host: Routing;
  readonly #isAnnounced: (address: Address) => boolean;
  readonly #logger: Logger;
  readonly #maker: PairMaker;
  readonly #forwarding = new Set<Family>();
  #uplinks: readonly string[] = [];

  /** @param isAnnounced whether the other hosts must be told of the address itself, since no block of this node has it */
  constructor(linux: Linux, isAnnounced: (address: Address) => boolean, logger: Logger) {
    this.#linux = linux;
    this.#isAnnounced = isAnnounced;
    this.#host = linux.openRouting();
    this.#logger = logger;
    this.#maker = new PairMaker({
      linux,
      host: this.#host,
      announcedOf: (endpoint) => this.#announcedOf(endpoint),
      logger,
    });
  }

  make(endpoint: Endpoint, netns: Netns): Promise<void> {
    return this.#maker.make(endpoint, netns);
  }

  /** As of PairMaker: `make`, `remove` or `withdraw` is to follow. */
  prepare(endpoint: Endpoint, netns: Netns): void {
    this.#maker.prepare(endpoint, netns);
  }

  /** The end of what `prepare` began, where it was not used. */
  async withdraw(hostInterface: string): Promise<void> {
    if (this.#maker.forsake(hostInterface)) await this.#linux.deleteLink({ name: hostInterface });
  }

  /** The pair and the host's side only, as of PairMaker. */
  begin(endpoint: Endpoint, netns: Netns): Promise<VethSpec> {
    return this.#maker.begin(endpoint, netns);
  }

  unmake({ hostInterface }: Endpoint): Promise<void> {
    return this.remove(hostInterface);
  }

  /** As of PairMaker. */
  loosenReversePath(endpoint: Endpoint): void {
    this.#maker.loosenReversePath(endpoint);
  }

  /** Resolves when the link (and with it the container's end and the host's routes) is gone, or was not there. */
  remove(hostInterface: string): Promise<void> {
    this.#maker.forsake(hostInterface);
    // Not looked for before: whoever asks about a link waits while others go.
    return this.#linux.deleteLink({ name: hostInterface });
  }

  /** Takes what led beside another default route out of a namespace that lives on. */
  endBeside({ hostInterface, addresses }: Endpoint, netns: Netns): void {
    endBeside(this.#linux, netns, addresses, ownTable(hostInterface));
  }

  /** Whether the endpoint's pair stands, with its container end in the given namespace. */
  stands(endpoint: Endpoint, netns: Netns): boolean {
    const { device, inode } = netns.identity;
    if (endpoint.netns.device !== device || endpoint.netns.inode !== inode) return false;
    const host = this.#host.link({ name: endpoint.hostInterface });
    return host !== null && this.#containerLink(endpoint, netns)?.index === host.peerIndex;
  }

  /** What is missing or wrong of the endpoint in the kernel, in words; empty when all is right. */
  async inspect(endpoint: Endpoint, netns: Netns): Promise<string[]> {
    const hostRoutes = await this.#ownRoutes();
    return inspectRouted({ linux: this.#linux, host: this.#host, endpoint, netns, hostRoutes });
  }

  /** The blackhole for a block that this node holds, or its end. A block of one address has none: its host route is in that place. */
  setBlockRoute(block: Cidr, present: boolean): void {
    if (isOneAddress(block)) return;
    try {
      this.#host.batch([{ kind: present ? 'route-replace' : 'route-delete', route: blockRoute(block) }]);
    } catch (error) {
      if (present || !isErrno(error, 'ESRCH', 'ENOENT')) throw error;
    }
  }

  /** Reads by which interfaces the host may learn its own way out. */
  async learnUplinks(): Promise<void> {
    const links = await this.#host.links();
    this.#uplinks = links.map(({ name }) => name).filter((name) => !name.startsWith(hostInterfacePrefix));
  }

  /** Routed endpoints of the family need a host that forwards. */
  ensureForwarding(family: Family): void {
    if (this.#forwarding.has(family)) return;
    const path = family === 4 ? 'net/ipv4/ip_forward' : 'net/ipv6/conf/all/forwarding';
    if (this.#linux.readSysctl(path).trim() !== '1') {
      if (family === 6) this.#keepAdvertisements();
      this.#linux.writeSysctl(path, '1');
      this.#logger.info({ sysctl: path }, 'switched forwarding on');
    }
    this.#forwarding.add(family);
  }

  /**
   * MTU of the named interface; without a name, of the one that has one of the addresses; 1500 where there is none.
   * @throws NOT_FOUND for a name that no interface has
   */
  async mtuOf(name: string | null, nodeAddresses: readonly Address[]): Promise<number> {
    if (name !== null) {
      const named = this.#host.link({ name });
      if (named === null)
        throw new NetctlError('NOT_FOUND', `node.interface: this host has no interface ${name}`);
      return named.mtuBytes;
    }
    const holder = (await this.#host.addresses()).find(({ address }) => nodeAddresses.includes(address));
    const link = holder === undefined ? null : this.#host.link({ index: holder.linkIndex });
    return link?.mtuBytes ?? 1500;
  }

  /** All addresses of the host's namespace. */
  async hostAddresses(): Promise<Set<Address>> {
    return new Set((await this.#host.addresses()).map(({ address }) => address));
  }

  /** Settings of the kernel that stand in the way, a sentence each. */
  hostNotices(): Promise<string[]> {
    return hostNotices(this.#linux, this.#host);
  }

  /** Our links, by name. */
  async links(): Promise<Map<string, LinkInfo>> {
    const links = (await this.#host.links()).filter(
      ({ name, type }) => type === 'veth' && name.startsWith(hostInterfacePrefix),
    );
    return new Map(links.map((link) => [link.name, link]));
  }

  /**
   * Makes host routes and neighbours of the given endpoints (whose links stand), and the block routes, exactly what they
   * should be; routes of our protocols beyond those go. Returns what it changed, in words.
   */
  async reconcileRoutes(
    endpoints: Iterable<Endpoint>,
    links: ReadonlyMap<string, LinkInfo>,
    blocks: Iterable<Cidr>,
  ): Promise<string[]> {
    const actual = await this.#ownRoutes();
    const present = new Set(actual.map(textOf));
    const neighbours = new Set(
      (await this.#host.neighbours())
        .filter(({ permanent }) => permanent)
        .map(({ linkIndex, address, mac }) => `${linkIndex} ${address} ${mac}`),
    );
    const changed: string[] = [];
    // Sent together: one by one they would take several times as long.
    const requests: RoutingRequest[] = [];
    const wanted = new Set<string>();
    const isThere = (route: Place): boolean => {
      const text = textOf(route);
      wanted.add(text);
      return present.has(text);
    };
    for (const endpoint of endpoints) {
      const link = links.get(endpoint.hostInterface);
      if (link === undefined) continue;
      this.loosenReversePath(endpoint);
      if (!link.up) {
        requests.push({ kind: 'link-set', index: link.index, up: true });
        changed.push(`${link.name} up`);
      }
      const announced = this.#announcedOf(endpoint);
      for (const address of endpoint.addresses) {
        const route = isThere({
          destination: hostCidr(address),
          type: 'unicast',
          linkIndex: link.index,
          protocol: announced.has(address) ? announcedProtocol : routeProtocol,
        });
        if (route && neighbours.has(`${link.index} ${address} ${endpoint.mac}`)) continue;
        requests.push(...planHostRoutes(link.index, endpoint.mac, [address], announced));
        changed.push(`route to ${address}`);
      }
    }
    for (const block of blocks) {
      if (isOneAddress(block) || isThere({ ...blockRoute(block), linkIndex: null })) continue;
      requests.push({ kind: 'route-replace', route: blockRoute(block) });
      changed.push(`block route ${block}`);
    }
    this.#host.batch(requests);
    const shims = (await this.#host.links()).filter(({ name }) => name.startsWith(shimPrefix));
    const isOfShim = (index: number | null): boolean => shims.some((shim) => shim.index === index);
    // Read again: a route that was put right replaced the wrong one.
    for (const route of changed.length > 0 ? await this.#ownRoutes() : actual) {
      if (wanted.has(textOf(route)) || isOfShim(route.linkIndex)) continue;
      this.#deleteRoute(route);
      changed.push(`removed route ${route.destination}`);
    }
    return changed;
  }

  /** Takes the host's way to the address away, and with it what the other hosts are told, though its link stands. */
  async forgetAddress(address: Address): Promise<void> {
    for (const route of await this.#ownRoutes())
      if (route.destination === hostCidr(address)) this.#deleteRoute(route);
  }

  close(): void {
    this.#host.close();
  }

  /** A host that forwards drops what it learned from router advertisements, its default route too, unless told to listen on (2). */
  #keepAdvertisements(): void {
    for (const name of this.#uplinks) {
      const path = `net/ipv6/conf/${name}/accept_ra`;
      try {
        if (this.#linux.readSysctl(path).trim() === '1') this.#linux.writeSysctl(path, '2');
      } catch (error) {
        // It has gone meanwhile, or has no IPv6.
        if (!isErrno(error, 'ENOENT')) throw error;
      }
    }
  }

  #announcedOf({ addresses }: Endpoint): ReadonlySet<Address> {
    return new Set(addresses.filter(this.#isAnnounced));
  }

  async #ownRoutes(): Promise<RouteInfo[]> {
    return (
      await Promise.all([routeProtocol, announcedProtocol].map((protocol) => this.#host.routes({ protocol })))
    ).flat();
  }

  /** One that went meanwhile is no error. */
  #deleteRoute({ destination, type, linkIndex, protocol }: RouteInfo): void {
    const route =
      type === 'blackhole' || linkIndex === null
        ? ({ destination, type: 'blackhole', protocol } as const)
        : ({ destination, type: 'unicast', linkIndex, scope: 'link', protocol } as const);
    try {
      this.#host.batch([{ kind: 'route-delete', route }]);
    } catch (error) {
      if (!isErrno(error, 'ESRCH', 'ENOENT')) throw error;
    }
  }

  #containerLink(endpoint: Endpoint, netns: Netns): LinkInfo | null {
    const container = this.#linux.openRouting(netns);
    try {
      return container.link({ name: endpoint.interface });
    } finally {
      container.close();
    }
  }
}

const isOneAddress = (block: Cidr): boolean => prefixLength(block) === addressBits(familyOf(block));

type Place = Pick<RouteInfo, 'destination' | 'type' | 'linkIndex' | 'protocol'>;

const textOf = ({ destination, type, linkIndex, protocol }: Place): string =>
  `${destination} ${type === 'blackhole' ? type : linkIndex} ${protocol}`;
