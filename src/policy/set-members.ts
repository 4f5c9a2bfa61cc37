/**
 * Prefixes as members of kernel sets (pure).
 *
 * In: prefixes. Out: members with their family. Never: a prefix of length 0, which ipset does not take: it becomes its two halves.
 */
import type { IpSetMember } from '../linux/ports.ts';
import {
  addressBits,
  addressFrom,
  type Cidr,
  type Family,
  familyOf,
  networkOf,
  prefixLength,
} from '../model/ip.ts';

export function setMembers(nets: readonly Cidr[]): { family: Family; member: IpSetMember }[] {
  return nets.flatMap((net) => {
    const family = familyOf(net);
    return (prefixLength(net) === 0 ? everyPrefix(family) : [net]).map((member) => ({ family, member }));
  });
}

/** All addresses of the family. */
export function everyPrefix(family: Family): Cidr[] {
  const middle = 1n << BigInt(addressBits(family) - 1);
  return [0n, middle].map((first) => networkOf(addressFrom(family, first), 1));
}
