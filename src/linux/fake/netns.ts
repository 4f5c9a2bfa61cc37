/**
 * One network namespace of the fake: its links, addresses, routes, neighbours and sysctls, with the kernel's rules on each.
 *
 * In: requests of ports.ts. Out: changed state, or a Refusal with the errno that the kernel has for it. Never: a route by way of
 * a link that is down or not there, a leftover of a link that is gone.
 */
import {
  type Address,
  addressBits,
  type Cidr,
  cidrContains,
  familyOf,
  networkOf,
  prefixLength,
} from '../../model/ip.ts';
import type { Mac } from '../../model/mac.ts';
import type { MacvlanMode } from '../../model/macvlan.ts';
import type { TokenBucket } from '../link-kinds.ts';
import type { AddressInfo, LinkSpec, MarkRule, NeighbourInfo, RouteInfo, RouteSpec } from '../ports.ts';
import { FakeNftables } from './nftables.ts';
import { type Failures, Refusal } from './refusal.ts';

export interface FakeLink {
  readonly spec: LinkSpec;
  readonly type: 'veth' | 'macvlan' | 'vlan' | 'ifb' | null;
  readonly netns: FakeNetns;
  readonly parent: FakeLink | null;
  readonly mode: MacvlanMode | null;
  mtuBytes: number;
  up: boolean;
  addressGeneration: 'none' | 'eui64';
  peer: FakeLink | null;
  bucket: TokenBucket | null;
  redirectedTo: number | null;
  alias: string | null;
  /** Macvlans and VLANs made on it, also those that are gone by now. */
  readonly children: FakeLink[];
}

const KERNEL_PROTOCOL = 2;
const MIN_IPV6_MTU_BYTES = 1280;

export class FakeNetns {
  /** Null for the agent's own. */
  readonly path: string | null;
  readonly inode: number;
  readonly links = new Map<number, FakeLink>();
  readonly sysctls = new Map<string, string>();
  readonly nftables: FakeNftables;
  #addresses: AddressInfo[] = [];
  #routes: RouteSpec[] = [];
  readonly #sourceRules = new Set<string>();
  #markRules: MarkRule[] = [];
  #neighbours: NeighbourInfo[] = [];

  constructor(path: string | null, inode: number, failures: Failures) {
    this.path = path;
    this.inode = inode;
    this.nftables = new FakeNftables(failures, (name) => this.linkNamed(name) !== null);
  }

  link(index: number): FakeLink {
    const link = this.links.get(index);
    if (link === undefined) throw new Refusal('ENODEV');
    return link;
  }

  linkNamed(name: string): FakeLink | null {
    return [...this.links.values()].find((link) => link.spec.name === name) ?? null;
  }

  /** Forgets the link and all that hung on it. */
  drop(link: FakeLink): void {
    this.#clear(link, { addresses: true });
    this.links.delete(link.spec.index);
  }

  setMtu(link: FakeLink, mtuBytes: number): void {
    checkMtu(mtuBytes);
    link.mtuBytes = mtuBytes;
    if (mtuBytes < MIN_IPV6_MTU_BYTES) this.#removeAddresses(link, 6);
  }

  setUp(link: FakeLink, up: boolean): void {
    if (up) checkUp(link);
    link.up = up;
    if (!up) this.#clear(link, { addresses: false });
  }

  addAddress(index: number, address: Address, length: number): void {
    const link = this.link(index);
    const same = (known: AddressInfo) => known.linkIndex === index && known.address === address;
    if (familyOf(address) === 6 && link.mtuBytes < MIN_IPV6_MTU_BYTES) throw new Refusal('EINVAL');
    // IPv4 keeps one address under several prefix lengths, IPv6 does not.
    if (
      this.#addresses.some(
        (known) => same(known) && (familyOf(address) === 6 || known.prefixLength === length),
      )
    ) {
      throw new Refusal(
        'EEXIST',
        familyOf(address) === 4 ? 'ipv4: Address already assigned' : 'address already assigned',
      );
    }
    this.#addresses.push({ linkIndex: index, address, prefixLength: length, tentative: false });
  }

  deleteAddress(index: number, address: Address, length: number): void {
    this.link(index);
    const at = this.#addresses.findIndex(
      (known) => known.linkIndex === index && known.address === address && known.prefixLength === length,
    );
    if (at < 0) throw new Refusal('EADDRNOTAVAIL');
    this.#addresses.splice(at, 1);
  }

  addRoute(route: RouteSpec, replace: boolean): void {
    this.#checkRoute(route);
    const sameTable = (known: RouteSpec) =>
      (known.type === 'local') === (route.type === 'local') && known.table === route.table;
    const at = this.#routes.findIndex((known) => known.destination === route.destination && sameTable(known));
    if (at >= 0 && !replace) throw new Refusal('EEXIST');
    if (at >= 0) this.#routes[at] = route;
    else this.#routes.push(route);
  }

  changeSourceRule({ source, table }: { source: Address; table: number }, isAdded: boolean): void {
    const rule = `${source} ${table}`;
    if (this.#sourceRules.has(rule) === isAdded) throw new Refusal(isAdded ? 'EEXIST' : 'ENOENT');
    if (isAdded) this.#sourceRules.add(rule);
    else this.#sourceRules.delete(rule);
  }

  changeMarkRule({ family, mark, mask, table }: MarkRule, isAdded: boolean): void {
    const others = this.#markRules.filter(
      (each) => each.family !== family || each.mark !== mark || each.mask !== mask || each.table !== table,
    );
    const isThere = others.length < this.#markRules.length;
    if (isThere === isAdded) throw new Refusal(isAdded ? 'EEXIST' : 'ENOENT');
    this.#markRules = isAdded ? [...others, { family, mark, mask, table }] : others;
  }

  get markRules(): readonly MarkRule[] {
    return this.#markRules;
  }

  deleteRoute(route: RouteSpec): void {
    const at = this.#routes.findIndex(
      (known) =>
        known.destination === route.destination &&
        known.type === route.type &&
        known.protocol === route.protocol &&
        (route.linkIndex === undefined || known.linkIndex === route.linkIndex) &&
        (route.gateway === undefined || known.gateway === route.gateway),
    );
    if (at < 0) throw new Refusal('ESRCH');
    this.#routes.splice(at, 1);
  }

  replaceNeighbour(index: number, address: Address, mac: Mac): void {
    this.link(index);
    this.#neighbours = this.#neighbours.filter(
      (known) => known.linkIndex !== index || known.address !== address,
    );
    this.#neighbours.push({ linkIndex: index, address, mac, permanent: true });
  }

  addresses(linkIndex?: number): AddressInfo[] {
    return this.#addresses.filter((address) => linkIndex === undefined || address.linkIndex === linkIndex);
  }

  neighbours(linkIndex?: number): NeighbourInfo[] {
    return this.#neighbours.filter(
      (neighbour) => linkIndex === undefined || neighbour.linkIndex === linkIndex,
    );
  }

  /** What was asked for, as asked for. */
  get routeSpecs(): readonly RouteSpec[] {
    return this.#routes;
  }

  /** The main table: what was asked for, and what the kernel makes by itself for prefixes on links. */
  routes(protocol?: number, everyTable = false, table?: number): RouteInfo[] {
    const made = this.#routes.flatMap((route): RouteInfo[] => {
      if (route.type === 'local' || (route.table !== table && !everyTable)) return [];
      return [
        {
          destination: route.destination,
          type: route.type,
          linkIndex: route.linkIndex ?? this.#linkTowards(route.gateway),
          gateway: route.gateway ?? null,
          protocol: route.protocol,
        },
      ];
    });
    return [...made, ...(table === undefined ? this.#connected() : [])].filter(
      (route) => protocol === undefined || route.protocol === protocol,
    );
  }

  #checkRoute(route: RouteSpec): void {
    if (route.type === 'blackhole') return;
    const family = familyOf(route.destination);
    if (route.linkIndex === undefined && route.gateway === undefined)
      throw new Refusal(family === 4 ? 'EINVAL' : 'ENODEV');
    if (route.linkIndex !== undefined && !this.link(route.linkIndex).up) {
      const text = family === 4 ? 'Device for nexthop is not up' : 'Nexthop device is not up';
      throw new Refusal('ENETDOWN', text);
    }
    if (route.gateway !== undefined && !this.#reachable(route.gateway, route)) {
      throw family === 4
        ? new Refusal('ENETUNREACH', 'Nexthop has invalid gateway')
        : new Refusal('EHOSTUNREACH');
    }
    if (route.source !== undefined && !this.#addresses.some(({ address }) => address === route.source)) {
      throw new Refusal('EINVAL', family === 4 ? 'Invalid prefsrc address' : 'Invalid source address');
    }
  }

  /** A gateway must be in a prefix on the link, or be said to be on it; an IPv6 link-local one always is. */
  #reachable(gateway: Address, route: RouteSpec): boolean {
    if (route.linkIndex !== undefined && (route.onlink || /^fe[89ab]/.test(gateway))) return true;
    const link = this.#linkTowards(gateway);
    return link !== null && (route.linkIndex === undefined || link === route.linkIndex);
  }

  #linkTowards(gateway: Address | undefined): number | null {
    if (gateway === undefined) return null;
    const direct = this.#routes.filter(
      (route) => route.linkIndex !== undefined && route.gateway === undefined,
    );
    const covering = [...direct, ...this.#connected()].filter((route) =>
      cidrContains(route.destination, gateway),
    );
    const best = covering.toSorted((a, b) => prefixLength(b.destination) - prefixLength(a.destination))[0];
    return best?.linkIndex ?? null;
  }

  #connected(): RouteInfo[] {
    return this.#addresses
      .filter(({ linkIndex, address, prefixLength: length }) => {
        // The kernel has no prefix route for an IPv4 /32; for an IPv6 /128 it has.
        return this.links.get(linkIndex)?.up === true && (familyOf(address) === 6 || length < addressBits(4));
      })
      .map(({ linkIndex, address, prefixLength: length }) => ({
        destination: networkOf(address, length),
        type: 'unicast',
        linkIndex,
        gateway: null,
        protocol: KERNEL_PROTOCOL,
      }));
  }

  /** Routes and neighbours go with the up state of a link, and so do IPv6 addresses. */
  #clear(link: FakeLink, { addresses }: { addresses: boolean }): void {
    const index = link.spec.index;
    this.#routes = this.#routes.filter(
      (route) => (route.linkIndex ?? this.#linkTowards(route.gateway)) !== index,
    );
    this.#neighbours = this.#neighbours.filter((neighbour) => neighbour.linkIndex !== index);
    this.#removeAddresses(link, 6);
    if (addresses) this.#removeAddresses(link, 4);
  }

  #removeAddresses(link: FakeLink, family: 4 | 6): void {
    this.#addresses = this.#addresses.filter(
      ({ linkIndex, address }) => linkIndex !== link.spec.index || familyOf(address) !== family,
    );
  }
}

export function prefixText(destination: Cidr): string {
  return destination === '0.0.0.0/0' || destination === '::/0' ? 'default' : destination;
}

export function childrenOf(parent: FakeLink): FakeLink[] {
  return parent.children.filter((child) => child.netns.links.get(child.spec.index) === child);
}

/** @throws Refusal when a sibling or the parent has the MAC already and is up */
function checkUp(link: FakeLink): void {
  const { parent } = link;
  if (parent === null || link.type === 'vlan' || link.mode === 'passthru') return;
  const taken = childrenOf(parent).some(
    (sibling) => sibling !== link && sibling.up && sibling.spec.mac === link.spec.mac,
  );
  if (taken || parent.spec.mac === link.spec.mac) throw new Refusal('EADDRINUSE');
}

export function checkMtu(mtuBytes: number): void {
  if (mtuBytes < 68) throw new Refusal('EINVAL', 'mtu less than device minimum');
  if (mtuBytes > 65535) throw new Refusal('EINVAL', 'mtu greater than device maximum');
}
