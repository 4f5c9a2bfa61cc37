/**
 * Profiles, policies, address sets and endpoints → sets, members and chains of this host, step by step (pure, in memory).
 *
 *     endpoint ─┬─ policies that pick it, profiles ─► ListTable     (chains and the list's set of endpoints)
 *               ├─ tags of its profiles ────────────► CountedSets   (members by reason)
 *               └─ labels ──────────────────────────► SelectorSets
 *     host endpoints ─► HostEndpoints      pools ─► NatPools      ports of endpoints ─► PublishedPorts
 *
 * In: the current state of one of them, null when gone; in any order, repeated, stale. Out: differences, to the
 * output. Never: a result that depends on the order of what came; work that grows with the number of endpoints when one
 * endpoint with a known list comes or goes.
 */
import type { IpSetMember } from '../linux/ports.ts';
import { widest } from '../model/address-set.ts';
import type { HostEndpoint } from '../model/host-endpoint.ts';
import { type Cidr, type Family, families, familyOf, hostCidr } from '../model/ip.ts';
import type { BrokenPolicy, Policy } from '../model/policy.ts';
import type { Profile } from '../model/profile.ts';
import type { Chain } from './chain.ts';
import type { EndpointToHost } from './compile-list.ts';
import { CountedSets } from './counted-sets.ts';
import {
  addressMembers,
  extraFamilies,
  hasForeignInterface,
  isSameEndpoint,
  type Pair,
  type PolicyEndpoint,
  pairsOf,
  type WholeEndpoint,
} from './endpoint-members.ts';
import { type Failsafe, HostEndpoints } from './host-endpoints.ts';
import { LabelIndex } from './label-index.ts';
import { type List, ListTable } from './list-table.ts';
import { addressSet, endpointSet, extraSourceSet, tagSet } from './names.ts';
import { NatPools } from './nat-pools.ts';
import type { PolicyOutput } from './output.ts';
import { PublishedPorts, type Publishing } from './published-ports.ts';
import { SelectorSets } from './selector-sets.ts';
import { setMembers } from './set-members.ts';
import { ToldChains } from './told-chains.ts';

interface EndpointState extends WholeEndpoint {
  readonly pairs: readonly Pair[];
  /** One for each family that it has pairs of; none for one of another node. */
  lists: readonly List[];
}

interface ProfileState {
  /** null: missing or invalid, which denies. */
  profile: Profile | null;
  /** The sets of its tags, per family. */
  tagSets: TagSets;
  readonly users: Map<string, EndpointState>;
}

/** Stands before the names of host endpoints, where the ids of endpoints stand (which have no blank). */
const HOST = 'host endpoint ';
const hostId = (name: string): string => `${HOST}${name}`;
const noFailsafe: Failsafe = { inbound: [], outbound: [] };

type TagSets = Readonly<Record<Family, readonly string[]>>;

export class PolicyEngine {
  readonly #sets: CountedSets;
  readonly #selectors: SelectorSets;
  readonly #chains: ToldChains;
  readonly #lists: ListTable;
  readonly #nat: NatPools;
  readonly #published: PublishedPorts;
  readonly #hosts: HostEndpoints;
  readonly #profiles = new Map<string, ProfileState>();
  readonly #policies = new Map<string, Policy | BrokenPolicy>();
  /** Which policies pick which endpoints and host endpoints of this host. */
  readonly #picks = new LabelIndex();
  readonly #addressSets = new Map<string, readonly Cidr[]>();
  readonly #endpoints = new Map<string, EndpointState>();

  /** Tells the base chains at once: they drop whatever comes from an interface that no endpoint has. */
  constructor(
    options: { readonly endpointToHost: EndpointToHost; readonly failsafe?: Failsafe },
    output: PolicyOutput,
  ) {
    this.#sets = new CountedSets(output);
    const chains = new ToldChains(output);
    this.#chains = chains;
    this.#selectors = new SelectorSets(this.#sets);
    this.#nat = new NatPools(this.#sets, chains);
    this.#published = new PublishedPorts(chains);
    this.#lists = new ListTable({
      sets: this.#sets,
      selectors: this.#selectors,
      chains,
      definitions: {
        profile: (name) => this.#profiles.get(name)?.profile ?? null,
        policy: (name) => this.#policies.get(name) ?? null,
        hasAddressSet: (name) => this.#addressSets.has(name),
      },
      endpointToHost: options.endpointToHost,
    });
    this.#hosts = new HostEndpoints(this.#lists, chains, options.failsafe ?? noFailsafe);
    this.#lists.tellBase();
  }

  onProfile(name: string, profile: Profile | null): void {
    const state = this.#profileState(name);
    const before = state.tagSets;
    state.profile = profile;
    state.tagSets = tagSetsOf(profile);
    for (const endpoint of state.users.values()) this.#moveTags(endpoint, before, state.tagSets);
    this.#lists.changed('profile', name);
    this.#forgetIfIdle(name, state);
  }

  onPolicy(name: string, policy: Policy | BrokenPolicy | null): void {
    if (policy !== null) this.#policies.set(name, policy);
    const { came, went } = this.#picks.setSelector(name, policy?.selector ?? null);
    for (const id of [...came, ...went]) this.#relist(id);
    if (policy === null) this.#policies.delete(name);
    this.#lists.changed('policy', name);
  }

  /** @param pool null: gone, or not one that counts */
  onPool(name: string, pool: { readonly cidr: Cidr; readonly natOutgoing: boolean } | null): void {
    this.#nat.onPool(name, pool);
  }

  /** @param nets null: missing or invalid, and whatever a rule says about it is denied */
  onAddressSet(name: string, nets: readonly Cidr[] | null): void {
    const before = this.#addressSets.get(name);
    const members = setMembers(nets ?? []);
    const old = setMembers(before ?? []);
    for (const { family, member } of members) this.#sets.add(addressSet(family, name), member);
    for (const { family, member } of old) this.#sets.remove(addressSet(family, name), member);
    if (nets === null) this.#addressSets.delete(name);
    else this.#addressSets.set(name, nets);
    if ((before === undefined) !== (nets === null)) this.#lists.changed('address set', name);
  }

  onEndpoint(id: string, endpoint: (PolicyEndpoint & Publishing) | null): void {
    this.#published.onEndpoint(id, endpoint?.local ? endpoint : null);
    const old = this.#endpoints.get(id);
    if (old === undefined && endpoint === null) return;
    if (old !== undefined && endpoint !== null && isSameEndpoint(old, endpoint)) return;
    // What stays is added before it is removed, so that it never leaves a set.
    this.#picks.setThing(id, endpoint?.local ? (endpoint.labels ?? {}) : null);
    if (endpoint !== null) this.#add(id, endpoint);
    else this.#endpoints.delete(id);
    this.#selectors.onEndpoint(
      id,
      endpoint && { labels: endpoint.labels ?? {}, members: addressMembers(endpoint) },
    );
    if (old !== undefined) this.#remove(id, old);
  }

  /** One of this node. */
  onHostEndpoint(name: string, endpoint: HostEndpoint | null): void {
    if (endpoint === null && !this.#hosts.has(name)) return;
    this.#picks.setThing(hostId(name), endpoint?.isBroken ? null : (endpoint?.labels ?? null));
    this.#hosts.set(name, endpoint, this.#policiesOf(hostId(name)));
  }

  /** Everything that has been told so far, to another output. */
  tellTo(output: PolicyOutput): void {
    this.#sets.tellTo(output);
    for (const family of families)
      for (const chain of this.#chains.of(family)) output.chain(family, chain.name, chain);
  }

  /** All chains, as `4 nctl-in-…`. */
  *chains(): Generator<{ key: string; chain: Chain }> {
    for (const family of families)
      for (const chain of this.#chains.of(family)) yield { key: `${family} ${chain.name}`, chain };
  }

  /** Drops what no endpoint of this host has needed since the last call but one; for a call every few seconds. */
  retire(): void {
    this.#lists.retire();
  }

  #add(id: string, endpoint: PolicyEndpoint): void {
    const whole: WholeEndpoint = {
      local: endpoint.local,
      hostInterface: endpoint.hostInterface,
      addresses: [...endpoint.addresses],
      profiles: [...new Set(endpoint.profiles)],
      labels: { ...endpoint.labels },
      extraSources: widest(endpoint.extraSources ?? []),
    };
    const state: EndpointState = { ...whole, pairs: pairsOf(whole), lists: [] };
    state.lists = this.#useLists(id, state);
    this.#endpoints.set(id, state);
    for (const name of state.profiles) this.#profileState(name).users.set(id, state);
    for (const family of extraFamilies(state)) this.#lists.useExtraSources(family);
    if (hasForeignInterface(state)) this.#lists.foreign.add(state.hostInterface);
    this.#eachMember(state, (set, member) => this.#sets.add(set, member));
  }

  #remove(id: string, state: EndpointState): void {
    this.#eachMember(state, (set, member) => this.#sets.remove(set, member));
    if (hasForeignInterface(state)) this.#lists.foreign.remove(state.hostInterface);
    for (const list of state.lists) this.#lists.giveBack(list);
    for (const family of extraFamilies(state)) this.#lists.giveBackExtraSources(family);
    for (const name of state.profiles) {
      const profile = this.#profileState(name);
      if (profile.users.get(id) === state) profile.users.delete(id);
      this.#forgetIfIdle(name, profile);
    }
  }

  /** After its policies have changed. */
  #relist(id: string): void {
    if (id.startsWith(HOST)) this.#hosts.relist(id.slice(HOST.length), this.#policiesOf(id));
    const endpoint = this.#endpoints.get(id);
    if (endpoint === undefined) return;
    const old = endpoint.lists;
    endpoint.lists = this.#useLists(id, endpoint);
    this.#eachPair(endpoint, endpoint.lists, (set, pair) => this.#sets.add(set, pair));
    this.#eachPair(endpoint, old, (set, pair) => this.#sets.remove(set, pair));
    for (const list of old) this.#lists.giveBack(list);
  }

  #useLists(id: string, { profiles, pairs }: EndpointState): List[] {
    const policies = this.#policiesOf(id);
    return families
      .filter((family) => pairs.some((pair) => pair.family === family))
      .map((family) => this.#lists.use({ kind: 'endpoint', profiles, policies }, family));
  }

  #policiesOf(id: string): string[] {
    return [...this.#picks.pickedBy(id)].sort();
  }

  #eachMember(endpoint: EndpointState, visit: (set: string, member: IpSetMember) => void): void {
    for (const { family, pair, isExtra } of endpoint.pairs) {
      visit(endpointSet(family), pair);
      if (isExtra) visit(extraSourceSet(family), pair);
    }
    this.#eachPair(endpoint, endpoint.lists, visit);
    for (const address of endpoint.addresses) {
      for (const name of endpoint.profiles)
        for (const set of this.#profiles.get(name)!.tagSets[familyOf(address)]) visit(set, hostCidr(address));
    }
  }

  /** What the sets of the lists hold of the endpoint. */
  #eachPair(
    { pairs }: EndpointState,
    lists: readonly List[],
    visit: (set: string, member: IpSetMember) => void,
  ): void {
    for (const list of lists)
      for (const { family, pair } of pairs) if (family === list.family) visit(list.set, pair);
  }

  #moveTags(endpoint: EndpointState, before: TagSets, now: TagSets): void {
    for (const address of endpoint.addresses) {
      const family = familyOf(address);
      for (const set of now[family]) this.#sets.add(set, hostCidr(address));
      for (const set of before[family]) this.#sets.remove(set, hostCidr(address));
    }
  }

  #profileState(name: string): ProfileState {
    let state = this.#profiles.get(name);
    if (state === undefined) {
      state = { profile: null, tagSets: tagSetsOf(null), users: new Map() };
      this.#profiles.set(name, state);
    }
    return state;
  }

  #forgetIfIdle(name: string, state: ProfileState): void {
    if (state.profile === null && state.users.size === 0) this.#profiles.delete(name);
  }
}

function tagSetsOf(profile: Profile | null): TagSets {
  const [v4, v6] = families.map((family) => profile?.tags.map((tag) => tagSet(family, tag)) ?? []);
  return { 4: v4!, 6: v6! };
}
