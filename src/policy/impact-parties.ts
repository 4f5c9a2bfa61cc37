/**
 * Who may talk to whom, in as few kinds as policy tells apart (pure): endpoints that every rule treats alike are one party, and so are
 * addresses outside.
 *
 * In: definitions before and after a change, endpoints. Out: parties, each with one or two members that stand for all. Never: two
 * endpoints in one party that some rule of either side tells apart.
 */
import {
  type Address,
  addressBits,
  addressFrom,
  addressValue,
  type Cidr,
  cidrBase,
  cidrContains,
  cidrSize,
  type Family,
  families,
  familyOf,
  networkOf,
  prefixLength,
} from '../model/ip.ts';
import type { BrokenPolicy, Policy } from '../model/policy.ts';
import type { Profile } from '../model/profile.ts';
import type { Rule } from '../model/rule.ts';
import { type Labels, parseSelector, type Selector, selectorText, selects } from '../model/selector.ts';

/** null: there, but not valid. */
export interface PolicyDefinitions {
  readonly profiles: ReadonlyMap<string, Profile | null>;
  readonly policies: ReadonlyMap<string, Policy | BrokenPolicy>;
  readonly addressSets: ReadonlyMap<string, readonly Cidr[] | null>;
}

export interface ImpactEndpoint {
  readonly id: string;
  readonly addresses: readonly Address[];
  readonly profiles: readonly string[];
  readonly labels: Labels;
}

export interface Party {
  /** `profiles web, base` or a prefix, or `elsewhere`. */
  readonly name: string;
  /** How many endpoints it stands for; 0 for addresses outside. */
  readonly endpoints: number;
  /** Some of their ids. */
  readonly examples: readonly string[];
  /** One, or two where there are more, so that it can talk to itself. */
  readonly members: readonly Member[];
}

export interface Member {
  /** '' for one outside. */
  readonly hostInterface: string;
  readonly addresses: Readonly<Partial<Record<Family, Address>>>;
  readonly endpoint: ImpactEndpoint | null;
}

const EXAMPLES = 3;
/** Of each address set: what it gained or lost, and some of the rest. */
const CHANGED_NETS = 16;
const SAME_NETS = 4;
/** Of the ranges kept for documentation and tests: what no rule names is most likely here. */
const ELSEWHERE: Readonly<Record<Family, readonly string[]>> = {
  4: ['198.18.0.1', '203.0.113.1', '192.0.2.1', '100.64.255.254', '1.2.3.4'],
  6: ['2001:db8:ffff::1', '2001:2::1', 'fdff:ffff::1', '2000::1'],
};

/** What rules say about addresses: a prefix that one names, or an address set as it is on one of the two sides. */
interface Range {
  readonly name: string;
  holds(address: Address): boolean;
}

export function rulesOf({ profiles, policies }: PolicyDefinitions): Rule[] {
  const ofProfiles = [...profiles.values()].flatMap((profile) => [
    ...(profile?.inbound ?? []),
    ...(profile?.outbound ?? []),
  ]);
  const ofPolicies = [...policies.values()].flatMap((policy) =>
    'broken' in policy ? [] : [...(policy.inbound ?? []), ...(policy.outbound ?? [])],
  );
  return [...ofProfiles, ...ofPolicies];
}

export function partiesOf(
  before: PolicyDefinitions,
  after: PolicyDefinitions,
  endpoints: readonly ImpactEndpoint[],
): Party[] {
  const selectors = selectorsOf([before, after]);
  const nets = namedNets([before, after]);
  const ranges = [...nets.map(rangeOf), ...setRanges([before, after])];
  const groups = Map.groupBy(endpoints, ({ addresses, profiles, labels }) =>
    JSON.stringify([
      profiles,
      selectors.map((selector) => selects(selector, labels)),
      addresses.map((address) => [familyOf(address), rangesWith(ranges, address)]),
    ]),
  );
  const parties = Array.from([...groups.values()], (members, group): Party => {
    const [first] = members;
    return {
      name: first!.profiles.join(', '),
      endpoints: members.length,
      examples: members.slice(0, EXAMPLES).map(({ id }) => id),
      members: members.slice(0, 2).map((endpoint, i) => ({
        hostInterface: `nctl${group}-${i}`,
        addresses: byFamily(endpoint.addresses),
        endpoint,
      })),
    };
  });
  const taken = new Set(endpoints.flatMap(({ addresses }) => addresses));
  return [...parties, ...outside([...nets, ...someOfSets(before, after)], ranges, taken)];
}

/** For each way in which ranges hold an address, as far as the edges of prefixes show them, one that no endpoint has. */
function outside(nets: readonly Cidr[], ranges: readonly Range[], taken: ReadonlySet<Address>): Party[] {
  return families.flatMap((family) => {
    const candidates = [
      ...(ELSEWHERE[family] as Address[]),
      ...nets.filter((net) => familyOf(net) === family).flatMap((net) => edgesOf(family, net)),
    ].filter((address) => !taken.has(address));
    const kinds = Map.groupBy(candidates, (address) => JSON.stringify(rangesWith(ranges, address)));
    return Array.from(kinds.values(), ([address]): Party => {
      const names = new Set(rangesWith(ranges, address!).map((i) => ranges[i]!.name));
      return {
        name: names.size === 0 ? `elsewhere (IPv${family})` : [...names].join(' and '),
        endpoints: 0,
        examples: [],
        members: [{ hostInterface: '', addresses: { [family]: address! }, endpoint: null }],
      };
    });
  });
}

/** The first address, the last, and those next to them. */
function edgesOf(family: Family, net: Cidr): Address[] {
  const first = addressValue(cidrBase(net));
  const size = cidrSize(net);
  const limit = 1n << BigInt(addressBits(family));
  return [first, first + size - 1n, first + size, first - 1n]
    .filter((value) => value >= 0n && value < limit)
    .map((value) => addressFrom(family, value));
}

function selectorsOf(definitions: readonly PolicyDefinitions[]): Selector[] {
  const texts = definitions.flatMap((each) => [
    ...Array.from(each.policies.values(), ({ selector }) => selectorText(selector)),
    ...rulesOf(each).flatMap(({ matches }) =>
      matches.flatMap((match) => (match.kind === 'selector' ? [match.selector] : [])),
    ),
  ]);
  return [...new Set(texts)].map((text) => parseSelector(text));
}

/** Prefixes that rules name. */
function namedNets(definitions: readonly PolicyDefinitions[]): Cidr[] {
  const nets = definitions.flatMap((each) =>
    rulesOf(each).flatMap(({ matches }) =>
      matches.flatMap((match) => (match.kind === 'net' ? [match.net] : [])),
    ),
  );
  return [...new Set(nets)].sort();
}

function rangeOf(net: Cidr): Range {
  return { name: net, holds: (address) => cidrContains(net, address) };
}

/** A set may have thousands of prefixes: they are found by their lengths. */
function setRanges(definitions: readonly PolicyDefinitions[]): Range[] {
  return definitions.flatMap(({ addressSets }) =>
    Array.from(addressSets, ([name, nets]): Range => {
      const members = new Set<string>(nets ?? []);
      const lengths = new Set((nets ?? []).map((net) => `${familyOf(net)} ${prefixLength(net)}`));
      const holds = (address: Address): boolean =>
        [...lengths].some((text) => {
          const [family, length] = text.split(' ').map(Number) as [Family, number];
          return family === familyOf(address) && members.has(networkOf(address, length));
        });
      return { name: `address set ${name}`, holds };
    }),
  );
}

function someOfSets(before: PolicyDefinitions, after: PolicyDefinitions): Cidr[] {
  const names = new Set([...before.addressSets.keys(), ...after.addressSets.keys()]);
  return [...names].flatMap((name) => {
    const [old, now] = [before, after].map(({ addressSets }) => new Set(addressSets.get(name) ?? []));
    const changed = [
      ...[...old!].filter((net) => !now!.has(net)),
      ...[...now!].filter((net) => !old!.has(net)),
    ];
    const same = [...now!].filter((net) => old!.has(net));
    return [...changed.slice(0, CHANGED_NETS), ...same.slice(0, SAME_NETS)];
  });
}

/** By their numbers. */
function rangesWith(ranges: readonly Range[], address: Address): number[] {
  return ranges.flatMap((range, i) => (range.holds(address) ? [i] : []));
}

function byFamily(addresses: readonly Address[]): Partial<Record<Family, Address>> {
  const of = (family: Family): Address | undefined =>
    addresses.find((address) => familyOf(address) === family);
  const [v4, v6] = [of(4), of(6)];
  return { ...(v4 && { 4: v4 }), ...(v6 && { 6: v6 }) };
}
