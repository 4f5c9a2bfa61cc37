/**
 * The lists of profiles in use on this host: per list a set of its endpoints and two chains, shared by all of them.
 *
 * In: lists taken into use and given back, profiles that changed. Out: sets and chains to the output, only differences. Never: a
 * rewrite because a container came or went: an unused list lingers until retire() has seen it unused twice.
 */
import { type Family, families } from '../model/ip.ts';
import type { Profile } from '../model/profile.ts';
import { type Chain, setsOfChain } from './chain.ts';
import { compileBase, compileDispatch, compileList, type EndpointToHost } from './compile.ts';
import type { CountedSets } from './counted-sets.ts';
import { endpointSet, listChains, listId, listSet } from './names.ts';
import type { PolicyOutput } from './output.ts';

export interface List {
  readonly id: string;
  readonly profiles: readonly string[];
  /** Its set of endpoints, per family. */
  readonly sets: Readonly<Record<Family, string>>;
}

interface ListState extends List {
  users: number;
  roundsUnused: number;
  /** Tag sets that its chains name now, with their family. */
  tagSets: Map<string, Family>;
}

export class ListTable {
  readonly #lists = new Map<string, ListState>();
  readonly #byProfile = new Map<string, Set<ListState>>();
  /** What was last told, as JSON. */
  readonly #told = new Map<string, string>();
  readonly #sets: CountedSets;
  readonly #output: PolicyOutput;
  readonly #profile: (name: string) => Profile | null;
  readonly #endpointToHost: EndpointToHost;

  constructor(
    sets: CountedSets,
    output: PolicyOutput,
    profile: (name: string) => Profile | null,
    endpointToHost: EndpointToHost,
  ) {
    this.#sets = sets;
    this.#output = output;
    this.#profile = profile;
    this.#endpointToHost = endpointToHost;
  }

  /** What is there without any endpoint: everything of ours is dropped. */
  tellBase(): void {
    for (const family of families) {
      this.#sets.acquire(endpointSet(family), { type: 'net,iface', family });
      for (const chain of compileDispatch(family, [])) this.#tell(family, chain);
      for (const chain of compileBase(family)) this.#tell(family, chain);
    }
  }

  use(profiles: readonly string[]): List {
    const key = JSON.stringify(profiles);
    const list = this.#lists.get(key) ?? this.#create(key, profiles);
    list.users++;
    list.roundsUnused = 0;
    return list;
  }

  giveBack(list: List): void {
    (list as ListState).users--;
  }

  profileChanged(name: string): void {
    for (const list of this.#byProfile.get(name) ?? []) this.#compile(list);
  }

  /** Removes the lists that were unused at the last call too. */
  retire(): void {
    const gone = [...this.#lists].filter(([, list]) => list.users === 0 && ++list.roundsUnused >= 2);
    if (gone.length === 0) return;
    for (const [key] of gone) this.#lists.delete(key);
    this.#tellDispatch();
    for (const [, list] of gone) this.#destroy(list);
  }

  #create(key: string, profiles: readonly string[]): ListState {
    const id = listId(profiles);
    const list: ListState = {
      id,
      profiles,
      sets: { 4: listSet(4, id), 6: listSet(6, id) },
      users: 0,
      roundsUnused: 0,
      tagSets: new Map(),
    };
    this.#lists.set(key, list);
    for (const name of profiles) this.#listsOf(name).add(list);
    for (const family of families) this.#sets.acquire(list.sets[family], { type: 'net,iface', family });
    this.#compile(list);
    this.#tellDispatch();
    return list;
  }

  #compile(list: ListState): void {
    const chains = families.flatMap((family) =>
      compileList(family, list.id, list.profiles, this.#profile, this.#endpointToHost).map((chain) => ({
        family,
        chain,
      })),
    );
    const before = list.tagSets;
    list.tagSets = new Map(
      chains.flatMap(({ family, chain }) => [...setsOfChain(chain)].map((set) => [set, family] as const)),
    );
    for (const [set, family] of list.tagSets) this.#sets.acquire(set, { type: 'net', family });
    for (const { family, chain } of chains) this.#tell(family, chain);
    for (const set of before.keys()) this.#sets.release(set);
  }

  #destroy(list: ListState): void {
    for (const family of families) {
      for (const chain of Object.values(listChains)) this.#untell(family, chain(list.id));
    }
    for (const set of list.tagSets.keys()) this.#sets.release(set);
    for (const family of families) this.#sets.release(list.sets[family]);
    for (const name of list.profiles) {
      const lists = this.#listsOf(name);
      lists.delete(list);
      if (lists.size === 0) this.#byProfile.delete(name);
    }
  }

  #tellDispatch(): void {
    const ids = Array.from(this.#lists.values(), (list) => list.id).sort();
    for (const family of families)
      for (const chain of compileDispatch(family, ids)) this.#tell(family, chain);
  }

  #tell(family: Family, chain: Chain): void {
    const key = `${family} ${chain.name}`;
    const text = JSON.stringify(chain);
    if (this.#told.get(key) === text) return;
    this.#told.set(key, text);
    this.#output.chain(family, chain.name, chain);
  }

  #untell(family: Family, name: string): void {
    if (this.#told.delete(`${family} ${name}`)) this.#output.chain(family, name, null);
  }

  #listsOf(profile: string): Set<ListState> {
    let lists = this.#byProfile.get(profile);
    if (lists === undefined) {
      lists = new Set();
      this.#byProfile.set(profile, lists);
    }
    return lists;
  }
}
