/**
 * The request that keeps an interface from giving itself IPv6 addresses.
 *
 * In: index and MTU of an interface. Out: requests for rtnetlink. Never: one that the kernel refuses, since it has no IPv6 below the least
 * MTU of IPv6 (RFC 8200, section 5).
 */
import type { RoutingRequest } from './ports.ts';

export const leastMtu6 = 1280;

export function noOwnAddresses(index: number, mtuBytes: number): RoutingRequest[] {
  return mtuBytes < leastMtu6 ? [] : [{ kind: 'link-set', index, ipv6AddressGeneration: 'none' }];
}
