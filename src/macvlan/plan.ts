/**
 * The macvlan endpoint: a link on the parent's wire, born in the container, with an address of the wire's own subnet.
 *
 * In: names, indexes, addresses with their subnets. Out: batches for rtnetlink, in the order in which they must be sent: the link
 * (host), then, once the policy is in, the container's side. Never: an interface that is up before its policy, a MAC that is not
 * told to the kernel (udev and systemd would choose one).
 */
import { noOwnAddresses } from '../linux/own-addresses.ts';
import type { RouteSpec, RoutingRequest } from '../linux/ports.ts';
import { routeProtocol } from '../linux/route-protocols.ts';
import { ownTable } from '../model/attachment.ts';
import {
  type Address,
  type Cidr,
  everything,
  type Family,
  familyOf,
  hostCidr,
  networkOf,
} from '../model/ip.ts';
import type { Mac } from '../model/mac.ts';
import { type MacvlanMode, type MacvlanRecord, routesOf, type WireRoute } from '../model/macvlan.ts';

export interface MacvlanSpec {
  readonly parentIndex: number;
  readonly mode: MacvlanMode;
  readonly name: string;
  readonly index: number;
  readonly netnsFd: number;
  readonly mac: Mac;
  readonly mtuBytes: number;
  readonly addresses: readonly Address[];
  readonly subnets: MacvlanRecord['subnets'];
  readonly defaultRoute: boolean;
}

/** Creates the link in the container, down. To be sent in the parent's namespace. */
export function planLink(spec: MacvlanSpec): RoutingRequest[] {
  const { parentIndex, mode, name, index, mac, mtuBytes, netnsFd } = spec;
  return [{ kind: 'macvlan-add', parentIndex, mode, link: { name, index, mac, mtuBytes, netnsFd } }];
}

/** Up without an address: what asking for duplicates needs. */
export function planUp({ index, mtuBytes }: MacvlanSpec): RoutingRequest[] {
  return [...noOwnAddresses(index, mtuBytes), { kind: 'link-set', index, up: true }];
}

/** The container's side but for `defaultRoutes`: addresses first, so that the kernel's own announcement at the link's coming up has one to tell. */
export function planContainer(spec: MacvlanSpec): RoutingRequest[] {
  const { index, mtuBytes, addresses, subnets } = spec;
  return [
    ...noOwnAddresses(index, mtuBytes),
    ...addresses.map(
      (address, at): RoutingRequest => ({
        kind: 'address-add',
        index,
        address,
        prefixLength: subnets[at]?.prefixLength ?? hostLength(address),
      }),
    ),
    { kind: 'link-set', index, up: true },
    ...addresses.flatMap((address): RoutingRequest[] =>
      // As for routed endpoints: the kernel's worker would make it a moment too late.
      familyOf(address) === 6
        ? [
            {
              kind: 'route-replace',
              route: {
                destination: hostCidr(address),
                type: 'local',
                linkIndex: index,
                protocol: routeProtocol,
              },
            },
          ]
        : [],
    ),
    ...routesOf(addresses, spec)
      .filter(({ destination }) => !isDefault(destination))
      .map((route): RoutingRequest => ({ kind: 'route-replace', route: routeOf(index, route) })),
  ];
}

/** Its default routes; another interface may have one of the family already. */
export function defaultRoutes(spec: MacvlanSpec): RouteSpec[] {
  return routesOf(spec.addresses, spec)
    .filter(({ destination }) => isDefault(destination))
    .map((route) => routeOf(spec.index, route));
}

/**
 * Instead of a default route of the family: what is sent from the addresses goes by a table with all that the interface leads to.
 * @param table one that nothing else has
 */
export function planBeside(spec: MacvlanSpec, family: Family, table: number): RoutingRequest[] {
  const { index, addresses, subnets } = spec;
  const own = addresses.filter((address) => familyOf(address) === family);
  const wires = own.map((address) => {
    const length = subnets[addresses.indexOf(address)]?.prefixLength ?? hostLength(address);
    return { destination: networkOf(address, length), gateway: null };
  });
  const routes = routesOf(addresses, spec).filter(({ destination }) => familyOf(destination) === family);
  return [
    ...[...wires, ...routes].map(
      (route): RoutingRequest => ({
        kind: 'route-replace',
        route: { ...routeOf(index, route), table, ...(route.gateway === null ? {} : { onlink: true }) },
      }),
    ),
    ...own.map((source): RoutingRequest => ({ kind: 'source-rule-add', source, table })),
  ];
}

/** Of planBeside; `wayBackOf` has the one of this number without the bit. */
export function tableBeside(hostInterface: string): number {
  return ownTable(hostInterface) + 2 ** 28;
}

function routeOf(index: number, { destination, gateway }: WireRoute): RouteSpec {
  const via = gateway === null ? ({ scope: 'link' } as const) : { gateway };
  return { destination, type: 'unicast', linkIndex: index, ...via, protocol: routeProtocol };
}

const isDefault = (destination: Cidr): boolean => destination === everything[familyOf(destination)];

/** The pair that lets host and container reach each other, which macvlan does not. */
export interface HostPairSpec {
  readonly hostInterface: string;
  readonly hostIndex: number;
  readonly hostMac: Mac;
  readonly containerInterface: string;
  readonly containerIndex: number;
  readonly netnsFd: number;
  /** The endpoint's own: the host finds it by one neighbour entry, whatever the kind of endpoint. */
  readonly mac: Mac;
  readonly mtuBytes: number;
}

/** Creates the pair, the host's end up. Routes to the container come with `planHostRoutes` of routed endpoints. */
export function planHostPair(spec: HostPairSpec): RoutingRequest[] {
  const { mac, mtuBytes, hostIndex: index } = spec;
  const peer = {
    name: spec.containerInterface,
    index: spec.containerIndex,
    mac,
    mtuBytes,
    netnsFd: spec.netnsFd,
  };
  return [
    { kind: 'veth-add', host: { name: spec.hostInterface, index, mac: spec.hostMac, mtuBytes }, peer },
    ...noOwnAddresses(index, mtuBytes),
    { kind: 'link-set', index, up: true },
  ];
}

/** What leads back by the host: connections that came by it carry the mark, and those that do find their way in the table. */
export interface WayBack {
  readonly mark: number;
  readonly mask: number;
  readonly table: number;
}

/** The upper half of the mark is ours: two endpoints of one container differ in it, what else is used of marks is in the lower half. */
export function wayBackOf(hostInterface: string): WayBack {
  const table = ownTable(hostInterface);
  return { mark: ((table & 0xffff || 1) << 16) >>> 0, mask: 0xffff0000, table };
}

/** Each in a batch of its own, since one that is there already is refused (EEXIST). */
export function planWayBackRules(hostInterface: string, sources: readonly Address[]): RoutingRequest[] {
  const { mark, mask, table } = wayBackOf(hostInterface);
  const families = [...new Set(sources.map(familyOf))];
  return families.map((family) => ({ kind: 'mark-rule-add', family, mark, mask, table }));
}

/**
 * The container's end: the host's addresses by way of it, and in a table of its own everything. @param gateways stand for the host on the
 * link, as for routed endpoints @param sources what the container sends from to the host
 */
export function planWayToHost(
  spec: Pick<HostPairSpec, 'hostInterface' | 'hostMac' | 'containerIndex' | 'mtuBytes'>,
  hostAddresses: readonly Address[],
  gateways: Readonly<Record<Family, Address>>,
  sources: readonly Address[],
): RoutingRequest[] {
  const index = spec.containerIndex;
  const reachable = hostAddresses.filter((host) => sources.some((own) => familyOf(own) === familyOf(host)));
  const families = [...new Set(sources.map(familyOf))];
  const { table } = wayBackOf(spec.hostInterface);
  return [
    ...noOwnAddresses(index, spec.mtuBytes),
    { kind: 'link-set', index, up: true },
    ...families.flatMap((family): RoutingRequest[] => {
      const gateway = gateways[family];
      const destination = (family === 4 ? '0.0.0.0/0' : '::/0') as Cidr;
      const back = {
        destination,
        type: 'unicast',
        linkIndex: index,
        gateway,
        onlink: true,
        protocol: routeProtocol,
        table,
      } as const;
      return [
        { kind: 'neighbour-replace', index, address: gateway, mac: spec.hostMac },
        { kind: 'route-replace', route: back },
      ];
    }),
    ...reachable.map((host): RoutingRequest => {
      const family = familyOf(host);
      const source = sources.find((own) => familyOf(own) === family);
      const route = {
        destination: hostCidr(host),
        type: 'unicast',
        linkIndex: index,
        gateway: gateways[family],
        onlink: true,
        protocol: routeProtocol,
        ...(source === undefined ? {} : { source }),
      } as const;
      return { kind: 'route-replace', route };
    }),
  ];
}

function hostLength(address: Address): number {
  return familyOf(address) === 4 ? 32 : 128;
}
