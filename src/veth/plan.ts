/**
 * The routed endpoint: a veth pair, /32 and /128 addresses, a default route by way of a link-local gateway that nobody has
 * to answer for, and the host's route to the container.
 *
 * In: names, indexes, addresses. Out: batches for rtnetlink, in the order in which they must be sent: host, then (once the
 * policy is in) container. Never: an interface that is up before its policy, a neighbour that needs ARP, an address that
 * waits for duplicate address detection (docs/decisions/0007-routed-endpoint.md).
 */
import { noOwnAddresses } from '../linux/own-addresses.ts';
import type { RoutingRequest } from '../linux/ports.ts';
import { announcedProtocol, routeProtocol } from '../linux/route-protocols.ts';
import { ownTable } from '../model/attachment.ts';
import { type Address, type Cidr, type Family, familyOf, hostCidr } from '../model/ip.ts';
import type { Mac } from '../model/mac.ts';

/** The host end of every pair, as Calico's. Containers have it as a permanent neighbour, so it may be the same everywhere. */
export const hostMac = 'ee:ee:ee:ee:ee:ee' as Mac;

/** The container's next hop: a link-local address that no interface has. */
export const gateways: Readonly<Record<Family, Address>> = {
  4: '169.254.1.1' as Address,
  6: 'fe80::ecee:eeff:feee:eeee' as Address,
};

export interface VethSpec {
  readonly hostInterface: string;
  readonly hostIndex: number;
  readonly containerInterface: string;
  readonly containerIndex: number;
  readonly netnsFd: number;
  readonly mac: Mac;
  readonly mtuBytes: number;
  readonly addresses: readonly Address[];
  /** Those of them that the other hosts must be told of one by one, since they lie in no block of this node. */
  readonly announced: ReadonlySet<Address>;
}

/** Creates the pair and the host's side of it. */
export function planHost(spec: VethSpec): RoutingRequest[] {
  return [...planPair(spec), ...planHostRoutes(spec.hostIndex, spec.mac, spec.addresses, spec.announced)];
}

/** The pair, to which nothing leads: the container's end is down. */
export function planPair(spec: VethSpec): RoutingRequest[] {
  return [
    {
      kind: 'veth-add',
      host: { name: spec.hostInterface, index: spec.hostIndex, mac: hostMac, mtuBytes: spec.mtuBytes },
      peer: {
        name: spec.containerInterface,
        index: spec.containerIndex,
        mac: spec.mac,
        mtuBytes: spec.mtuBytes,
        netnsFd: spec.netnsFd,
      },
    },
    ...noOwnAddresses(spec.hostIndex, spec.mtuBytes),
    { kind: 'link-set', index: spec.hostIndex, up: true },
  ];
}

/** The host's end answers for the gateway, where the container's neighbours are not ours to set. */
export function planGateway(hostIndex: number, family: Family): RoutingRequest {
  const address = gateways[family];
  // Of scope host, so that the host does not speak to the container as its gateway.
  if (family === 4)
    return { kind: 'address-add', index: hostIndex, address, prefixLength: 32, scope: 'host' };
  return { kind: 'address-add', index: hostIndex, address, prefixLength: 64 };
}

/** What leads from the host to the container; sent again when a part of it was found missing. */
export function planHostRoutes(
  hostIndex: number,
  mac: Mac,
  addresses: readonly Address[],
  announced: ReadonlySet<Address>,
): RoutingRequest[] {
  return addresses.flatMap((address): RoutingRequest[] => [
    { kind: 'neighbour-replace', index: hostIndex, address, mac },
    { kind: 'route-replace', route: hostRoute(hostIndex, address, announced.has(address)) },
  ]);
}

function hostRoute(hostIndex: number, address: Address, isAnnounced: boolean) {
  return {
    destination: hostCidr(address),
    type: 'unicast',
    linkIndex: hostIndex,
    scope: 'link',
    protocol: isAnnounced ? announcedProtocol : routeProtocol,
  } as const;
}

/** The container's side: addresses, link up, neighbour, routes. */
export function planContainer(spec: VethSpec): RoutingRequest[] {
  const index = spec.containerIndex;
  const families = [...new Set(spec.addresses.map(familyOf))];
  return [
    ...noOwnAddresses(index, spec.mtuBytes),
    ...spec.addresses.map(
      (address): RoutingRequest => ({
        kind: 'address-add',
        index,
        address,
        prefixLength: familyOf(address) === 4 ? 32 : 128,
      }),
    ),
    { kind: 'link-set', index, up: true },
    ...spec.addresses
      .filter((address) => familyOf(address) === 6)
      .map((address) => planLocalRoute(index, address)),
    ...families.flatMap((family) => planDefaultRoute(index, family)),
  ];
}

/**
 * Instead of default routes in the main table, where another interface has those: what is sent from our addresses leaves by ours, since
 * the host drops it anywhere else.
 */
export function planBeside(spec: VethSpec): RoutingRequest[] {
  const table = ownTable(spec.hostInterface);
  const families = [...new Set(spec.addresses.map(familyOf))];
  return [
    ...families
      .flatMap((family) => planDefaultRoute(spec.containerIndex, family))
      .map((request) =>
        request.kind === 'route-add'
          ? ({ kind: 'route-replace', route: { ...request.route, table } } as const)
          : request,
      ),
    ...spec.addresses.map((source) => ({ kind: 'source-rule-add', source, table }) as const),
  ];
}

/** The kernel makes an IPv6 address's local route in a worker of its own, after the answer: packets until then are lost. */
function planLocalRoute(index: number, address: Address): RoutingRequest {
  const route = {
    destination: hostCidr(address),
    type: 'local',
    linkIndex: index,
    protocol: routeProtocol,
  } as const;
  return { kind: 'route-replace', route };
}

function planDefaultRoute(index: number, family: Family): RoutingRequest[] {
  const gateway = gateways[family];
  const everything = (family === 4 ? '0.0.0.0/0' : '::/0') as Cidr;
  return [
    { kind: 'neighbour-replace', index, address: gateway, mac: hostMac },
    {
      kind: 'route-add',
      route: {
        destination: hostCidr(gateway),
        type: 'unicast',
        linkIndex: index,
        scope: 'link',
        protocol: routeProtocol,
      },
    },
    {
      kind: 'route-add',
      route: { destination: everything, type: 'unicast', linkIndex: index, gateway, protocol: routeProtocol },
    },
  ];
}

/** Announces a block, and keeps traffic to its free addresses from looping to this host's default route. */
export function blockRoute(block: Cidr) {
  return { destination: block, type: 'blackhole', protocol: announcedProtocol } as const;
}
