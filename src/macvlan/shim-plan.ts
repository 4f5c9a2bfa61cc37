/**
 * The host's own macvlan on a parent (`hostAccess: shim`), by which host and containers there reach each other: pure.
 *
 *     host        shim without an address, a route and a permanent neighbour for each container address
 *     container   a route and a permanent neighbour for each address of the host
 *
 * So nobody asks by ARP, and the shim, told to answer nothing, claims no address of the host on the wire: that is the parent's.
 *
 * In: names, indexes, addresses. Out: batches for rtnetlink. Never: an address used up for the host on the wire.
 */
import { createHash } from 'node:crypto';
import { noOwnAddresses } from '../linux/own-addresses.ts';
import type { RoutingRequest } from '../linux/ports.ts';
import { routeProtocol } from '../linux/route-protocols.ts';
import { type Address, familyOf, hostCidr } from '../model/ip.ts';
import type { Mac } from '../model/mac.ts';

/** All shims, and nothing else of ours, begin so: what begins as host interfaces of endpoints do would be taken for one of those. */
export const shimPrefix = 'ncts';

/** Of the shim on the parent, on every start the same. */
export function shimName(parent: string): string {
  return `${shimPrefix}${createHash('sha256').update(parent).digest('hex').slice(0, 10)}`;
}

/** Locally administered; no two hosts of a wire have the same. @param node of this host */
export function shimMac(node: string, parent: string): Mac {
  const digits = createHash('sha256').update(`shim ${node} ${parent}`).digest('hex');
  return ['06', ...(digits.match(/../g) ?? []).slice(0, 5)].join(':') as Mac;
}

export interface ShimSpec {
  readonly parentIndex: number;
  readonly name: string;
  readonly index: number;
  readonly mac: Mac;
  readonly mtuBytes: number;
}

/** Makes the shim, down: what it answers is set before it is up. */
export function planShim({ parentIndex, ...link }: ShimSpec): RoutingRequest[] {
  return [
    { kind: 'macvlan-add', parentIndex, mode: 'bridge', link },
    ...noOwnAddresses(link.index, link.mtuBytes),
  ];
}

/** @param sources by family, from which the host speaks to them, where it has such an address */
export function planShimRoutes(
  index: number,
  endpoint: { readonly mac: Mac; readonly addresses: readonly Address[] },
  sources: readonly Address[],
): RoutingRequest[] {
  return endpoint.addresses.flatMap((address): RoutingRequest[] => {
    const source = sources.find((own) => familyOf(own) === familyOf(address));
    return [
      { kind: 'neighbour-replace', index, address, mac: endpoint.mac },
      {
        kind: 'route-replace',
        route: {
          destination: hostCidr(address),
          type: 'unicast',
          linkIndex: index,
          scope: 'link',
          protocol: routeProtocol,
          ...(source === undefined ? {} : { source }),
        },
      },
    ];
  });
}

/** In the container, by its macvlan. @param sources its own addresses */
export function planWayToShim(
  index: number,
  mac: Mac,
  hostAddresses: readonly Address[],
  sources: readonly Address[],
): RoutingRequest[] {
  return hostAddresses.flatMap((host): RoutingRequest[] => {
    const source = sources.find((own) => familyOf(own) === familyOf(host));
    if (source === undefined) return [];
    return [
      { kind: 'neighbour-replace', index, address: host, mac },
      {
        kind: 'route-replace',
        route: {
          destination: hostCidr(host),
          type: 'unicast',
          linkIndex: index,
          scope: 'link',
          source,
          protocol: routeProtocol,
        },
      },
    ];
  });
}
