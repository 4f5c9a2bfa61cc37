/**
 * Links, addresses and routes of routed endpoints: makes them for an ADD, takes them away for a DEL, and puts right what is
 * found wrong.
 *
 * In: endpoints as the store has them, an open namespace. Out: netlink batches (planned in src/veth). Never: a link left behind by
 * a batch that failed half-way, a link or route touched that is not ours (name prefix, route protocol), a correct one touched.
 */
import { NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import {
  KernelError,
  type LinkInfo,
  type Linux,
  type Netns,
  type RouteInfo,
  type Routing,
  type RoutingRequest,
} from '../linux/ports.ts';
import { announcedProtocol, routeProtocol } from '../linux/route-protocols.ts';
import { shimPrefix } from '../macvlan/shim-plan.ts';
import { hostInterfaceIndex, hostInterfacePrefix } from '../model/attachment.ts';
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
import {
  blockRoute,
  planBeside,
  planContainer,
  planHost,
  planHostRoutes,
  type VethSpec,
} from '../veth/plan.ts';
import { hostNotices } from './host-limits.ts';
import { twoIndexes } from './indexes.ts';
import { inspectRouted } from './routed-inspection.ts';
import type { Wiring } from './wiring.ts';

export class EndpointWiring implements Wiring {
  readonly #linux: Linux;
  readonly #host: Routing;
  readonly #isAnnounced: (address: Address) => boolean;
  readonly #logger: Logger;
  readonly #forwarding = new Set<Family>();
  #uplinks: readonly string[] = [];

  /** @param isAnnounced whether the other hosts must be told of the address itself, since no block of this node has it */
  constructor(linux: Linux, isAnnounced: (address: Address) => boolean, logger: Logger) {
    this.#linux = linux;
    this.#isAnnounced = isAnnounced;
    this.#host = linux.openRouting();
    this.#logger = logger;
  }

  async make(endpoint: Endpoint, netns: Netns): Promise<void> {
    if (endpoint.extraSources.length > 0 || endpoint.addresses.some((address) => familyOf(address) === 6))
      return this.finish(await this.begin(endpoint, netns), netns);
    // No setting of the kernel stands between the batches: they go in one piece, beside those of others.
    const spec = this.#spec(endpoint, netns, 1);
    const refusal = await this.#linux.batches([
      { requests: planHost(spec) },
      { netns, requests: planContainer(spec) },
      { requests: [{ kind: 'link-settle', index: spec.hostIndex }] },
    ]);
    if (refusal === null) return;
    if (refusal.batch === 0) {
      await this.#explain(refusal.error, spec, netns, 1);
      return this.finish(await this.begin(endpoint, netns, 2), netns);
    }
    if (refusal.batch > 1) throw refusal.error;
    this.#inside(netns, (container) => this.#goBeside(refusal.error, spec, container));
    this.#settle(spec);
  }

  unmake({ hostInterface }: Endpoint): Promise<void> {
    return this.remove(hostInterface);
  }

  /**
   * Makes the pair and the host's side; the container's end is there but down until `finish`.
   * @throws INTERFACE_EXISTS when the container has an interface of that name; KernelError; nothing is left behind
   */
  async begin(endpoint: Endpoint, netns: Netns, firstAttempt = 1): Promise<VethSpec> {
    for (let attempt = firstAttempt; ; attempt++) {
      const spec = this.#spec(endpoint, netns, attempt);
      try {
        this.#host.batch(planHost(spec));
        this.loosenReversePath(endpoint);
        return spec;
      } catch (error) {
        await this.#explain(error, spec, netns, attempt);
      }
    }
  }

  /**
   * Lets packets with an extra source pass the kernel's own reverse path filter, where that is strict: loose (2) wins over the strict
   * setting for all interfaces. Does nothing while the interface is not there.
   */
  loosenReversePath({ hostInterface, extraSources }: Endpoint): void {
    if (!extraSources.some((net) => familyOf(net) === 4)) return;
    if (this.#host.link({ name: hostInterface }) === null) return;
    const path = (name: string): string => `net/ipv4/conf/${name}/rp_filter`;
    const isStrict = (name: string): boolean => this.#linux.readSysctl(path(name)).trim() === '1';
    const own = this.#linux.readSysctl(path(hostInterface)).trim();
    if (own === '1' || (own === '0' && isStrict('all'))) {
      this.#linux.writeSysctl(path(hostInterface), '2');
      this.#logger.info({ interface: hostInterface }, 'reverse path filter is loose, for extra sources');
    }
  }

  /** Brings the container's end up with its addresses and routes. The policy must be in the kernel by now. */
  finish(spec: VethSpec, netns: Netns): void {
    if (spec.addresses.some((address) => familyOf(address) === 6))
      this.#enableIpv6(spec.containerInterface, netns);
    this.#inside(netns, (container) => {
      try {
        container.batch(planContainer(spec));
      } catch (error) {
        this.#goBeside(error, spec, container);
      }
    });
    this.#settle(spec);
  }

  /** A container that has a default route already keeps it: that the batch was refused for it is no error. @throws any other */
  #goBeside(error: unknown, spec: VethSpec, container: Routing): void {
    const isBeside =
      error instanceof KernelError &&
      error.errno === 'EEXIST' &&
      planContainer(spec)[error.position]?.kind === 'route-add';
    if (!isBeside) throw error;
    for (const request of planBeside(spec)) {
      try {
        container.batch([request]);
      } catch (refusal) {
        if (!isErrno(refusal, 'EEXIST')) throw refusal;
      }
    }
  }

  #inside(netns: Netns, act: (container: Routing) => void): void {
    const container = this.#linux.openRouting(netns);
    try {
      act(container);
    } finally {
      container.close();
    }
  }

  /** Reading the link makes the kernel settle its carrier: without that the first packets may meet a noop queue. */
  #settle(spec: VethSpec): void {
    this.#host.link({ index: spec.hostIndex });
  }

  /** Resolves when the link (and with it the container's end and the host's routes) is gone, or was not there. */
  remove(hostInterface: string): Promise<void> {
    // Not looked for before: whoever asks about a link waits while others go.
    return this.#linux.deleteLink({ name: hostInterface });
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

  /** The index that belongs to the name may be another link's: the third attempt takes any. */
  #spec(endpoint: Endpoint, netns: Netns, attempt: number): VethSpec {
    const [anyIndex, containerIndex] = twoIndexes();
    const hostIndex = attempt < 3 ? hostInterfaceIndex(endpoint.hostInterface) : anyIndex;
    return {
      hostInterface: endpoint.hostInterface,
      hostIndex,
      containerInterface: endpoint.interface,
      containerIndex,
      netnsFd: netns.fd,
      mac: endpoint.mac,
      mtuBytes: endpoint.mtuBytes,
      addresses: endpoint.addresses,
      announced: this.#announcedOf(endpoint),
    };
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

  /** After a failed host batch: rolls back, then throws the cause in our words, or returns when another attempt makes sense. */
  async #explain(error: unknown, spec: VethSpec, netns: Netns, attempt: number): Promise<void> {
    if (!(error instanceof KernelError)) throw error;
    if (error.position > 0) await this.#linux.deleteLink(spec.hostIndex);
    else if (error.errno === 'EEXIST' || error.errno === 'EBUSY') {
      const container = this.#linux.openRouting(netns);
      const taken = container.link({ name: spec.containerInterface });
      container.close();
      if (taken !== null) {
        throw new NetctlError(
          'INTERFACE_EXISTS',
          `the container already has an interface ${spec.containerInterface}`,
          { interface: spec.containerInterface },
        );
      }
      // A pair of ours whose container end sits elsewhere is a left-over; otherwise a chosen index was taken.
      await this.remove(spec.hostInterface);
      if (attempt < 3) return;
    }
    throw new NetctlError(
      'LINK',
      `cannot make the interface: ${error.message}`,
      { errno: error.errno },
      error,
    );
  }

  /** Docker's namespaces begin with IPv6 switched off; an endpoint with an IPv6 address asks for it. */
  #enableIpv6(containerInterface: string, netns: Netns): void {
    const path = `net/ipv6/conf/${containerInterface}/disable_ipv6`;
    if (this.#linux.readSysctl(path, netns).trim() !== '0') this.#linux.writeSysctl(path, '0', netns);
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

function isErrno(error: unknown, ...names: string[]): boolean {
  return error instanceof KernelError && names.includes(error.errno);
}
