/**
 * Profiles and endpoints → sets, members and chains of this host, step by step (pure, in memory).
 *
 * In: the current state of one profile or endpoint, null when gone; in any order, repeated, stale. Out: differences, to the
 * output. Never: a result that depends on the order of what came; work that grows with the number of endpoints when one
 * endpoint with a known list comes or goes.
 */
import type { IpSetMember } from '../linux/ports.ts';
import { type Address, type Family, families, familyOf, hostCidr } from '../model/ip.ts';
import type { Profile } from '../model/profile.ts';
import type { EndpointToHost } from './compile.ts';
import { CountedSets } from './counted-sets.ts';
import { type List, ListTable } from './list-table.ts';
import { endpointSet, tagSet } from './names.ts';
import type { PolicyOutput } from './output.ts';

/** What policy has to know of an endpoint. Of those on other nodes only addresses and profiles count. */
export interface PolicyEndpoint {
  readonly local: boolean;
  readonly hostInterface: string;
  readonly addresses: readonly Address[];
  /** In the order in which they are tried. */
  readonly profiles: readonly string[];
}

interface EndpointState extends PolicyEndpoint {
  /** null for one of another node. */
  readonly list: List | null;
}

interface ProfileState {
  /** null: missing or invalid, which denies. */
  profile: Profile | null;
  /** The sets of its tags, per family. */
  tagSets: TagSets;
  readonly users: Map<string, EndpointState>;
}

type TagSets = Readonly<Record<Family, readonly string[]>>;

export class PolicyEngine {
  readonly #sets: CountedSets;
  readonly #lists: ListTable;
  readonly #profiles = new Map<string, ProfileState>();
  readonly #endpoints = new Map<string, EndpointState>();

  /** Tells the base chains at once: they drop whatever comes from an interface that no endpoint has. */
  constructor(options: { readonly endpointToHost: EndpointToHost }, output: PolicyOutput) {
    this.#sets = new CountedSets(output);
    const profile = (name: string): Profile | null => this.#profiles.get(name)?.profile ?? null;
    this.#lists = new ListTable(this.#sets, output, profile, options.endpointToHost);
    this.#lists.tellBase();
  }

  onProfile(name: string, profile: Profile | null): void {
    const state = this.#profileState(name);
    const before = state.tagSets;
    state.profile = profile;
    state.tagSets = tagSetsOf(profile);
    for (const endpoint of state.users.values()) this.#moveTags(endpoint, before, state.tagSets);
    this.#lists.profileChanged(name);
    this.#forgetIfIdle(name, state);
  }

  onEndpoint(id: string, endpoint: PolicyEndpoint | null): void {
    const old = this.#endpoints.get(id);
    if (old === undefined && endpoint === null) return;
    if (old !== undefined && endpoint !== null && isSame(old, endpoint)) return;
    // What stays is added before it is removed, so that it never leaves a set.
    if (endpoint !== null) this.#add(id, endpoint);
    else this.#endpoints.delete(id);
    if (old !== undefined) this.#remove(id, old);
  }

  /** Drops what no endpoint of this host has needed since the last call but one; for a call every few seconds. */
  retire(): void {
    this.#lists.retire();
  }

  #add(id: string, endpoint: PolicyEndpoint): void {
    const profiles = [...new Set(endpoint.profiles)];
    const state: EndpointState = {
      local: endpoint.local,
      hostInterface: endpoint.hostInterface,
      addresses: [...endpoint.addresses],
      profiles,
      list: endpoint.local ? this.#lists.use(profiles) : null,
    };
    this.#endpoints.set(id, state);
    for (const name of profiles) this.#profileState(name).users.set(id, state);
    this.#eachMember(state, (set, member) => this.#sets.add(set, member));
  }

  #remove(id: string, state: EndpointState): void {
    this.#eachMember(state, (set, member) => this.#sets.remove(set, member));
    if (state.list !== null) this.#lists.giveBack(state.list);
    for (const name of state.profiles) {
      const profile = this.#profileState(name);
      if (profile.users.get(id) === state) profile.users.delete(id);
      this.#forgetIfIdle(name, profile);
    }
  }

  #eachMember(endpoint: EndpointState, visit: (set: string, member: IpSetMember) => void): void {
    for (const address of endpoint.addresses) {
      const family = familyOf(address);
      const member = hostCidr(address);
      if (endpoint.list !== null) {
        const pair = `${member},${endpoint.hostInterface}`;
        visit(endpointSet(family), pair);
        visit(endpoint.list.sets[family], pair);
      }
      for (const name of endpoint.profiles) {
        for (const set of this.#profiles.get(name)!.tagSets[family]) visit(set, member);
      }
    }
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

function isSame(state: EndpointState, endpoint: PolicyEndpoint): boolean {
  return (
    state.local === endpoint.local &&
    state.hostInterface === endpoint.hostInterface &&
    isSameList(state.addresses, endpoint.addresses) &&
    isSameList(state.profiles, endpoint.profiles)
  );
}

function isSameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((item, i) => item === b[i]);
}
