/**
 * What an endpoint is to policy, and what of it stands in sets (pure).
 *
 * In: an endpoint as the store has it. Out: addresses, and pairs of source and interface, as members. Never: a pair for an endpoint
 * of another node, whose interface says nothing here.
 */
import { isDeepStrictEqual } from 'node:util';
import type { IpSetMember } from '../linux/ports.ts';
import { widest } from '../model/address-set.ts';
import { hostInterfacePrefix } from '../model/attachment.ts';
import { type Address, type Cidr, type Family, families, familyOf, hostCidr } from '../model/ip.ts';
import type { Labels } from '../model/selector.ts';
import { setMembers } from './set-members.ts';

/** What policy has to know of an endpoint. Of those on other nodes only addresses, profiles and labels count. */
export interface PolicyEndpoint {
  readonly local: boolean;
  readonly hostInterface: string;
  readonly addresses: readonly Address[];
  /** In the order in which they are tried. */
  readonly profiles: readonly string[];
  /** None if absent. */
  readonly labels?: Labels;
  /** What it may send from besides its addresses (a real server behind LVS answers from the virtual one); none if absent. */
  readonly extraSources?: readonly Cidr[];
}

/** With nothing absent, and the widest extra sources only. */
export type WholeEndpoint = Required<PolicyEndpoint>;

export interface Pair {
  readonly family: Family;
  /** A source of the endpoint with its interface. */
  readonly pair: IpSetMember;
  readonly isExtra: boolean;
}

export function addressMembers({ addresses }: PolicyEndpoint): Record<Family, IpSetMember[]> {
  const of = (family: Family): IpSetMember[] =>
    addresses.filter((address) => familyOf(address) === family).map(hostCidr);
  return { 4: of(4), 6: of(6) };
}

export function pairsOf({ local, addresses, extraSources, hostInterface }: WholeEndpoint): Pair[] {
  if (!local) return [];
  const pair = (nets: readonly Cidr[], isExtra: boolean): Pair[] =>
    setMembers(nets).map(({ family, member }) => ({ family, pair: `${member},${hostInterface}`, isExtra }));
  return [...pair(addresses.map(hostCidr), false), ...pair(extraSources, true)];
}

/** Of its extra sources. */
export function extraFamilies({ local, extraSources }: WholeEndpoint): Family[] {
  return families.filter((family) => local && extraSources.some((net) => familyOf(net) === family));
}

/** Made by another plugin: only by its name it is known to be an endpoint's. */
export function hasForeignInterface({ local, hostInterface }: WholeEndpoint): boolean {
  return local && !hostInterface.startsWith(hostInterfacePrefix);
}

export function isSameEndpoint(known: WholeEndpoint, endpoint: PolicyEndpoint): boolean {
  return (
    known.local === endpoint.local &&
    known.hostInterface === endpoint.hostInterface &&
    isSameList(known.addresses, endpoint.addresses) &&
    isSameList(known.profiles, endpoint.profiles) &&
    isDeepStrictEqual(known.labels, { ...endpoint.labels }) &&
    isSameList(known.extraSources, widest(endpoint.extraSources ?? []))
  );
}

function isSameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((item, i) => item === b[i]);
}
