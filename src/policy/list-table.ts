/**
 * The lists in use on this host (profiles in their order, with the policies before them), per family: a set of the list's endpoints
 * and a few chains, shared by all of them. A family in which no endpoint has an address costs nothing.
 *
 * In: lists taken into use and given back, profiles, policies and address sets that changed. Out: sets and chains to the output, only differences. Never: a
 * rewrite because a container came or went: an unused list lingers until retire() has seen it unused twice.
 */
import { type Family, families } from '../model/ip.ts';
import { type Chain, setsOfChain } from './chain.ts';
import { compileBase, compileDispatch } from './compile.ts';
import {
  compileList,
  type Definitions,
  type EndpointToHost,
  type ListParts,
  rulesOfList,
} from './compile-list.ts';
import type { CountedSets } from './counted-sets.ts';
import { ForeignInterfaces } from './foreign-interfaces.ts';
import { endpointSet, extraSourceSet, listId, listSet } from './names.ts';
import type { SelectorSets } from './selector-sets.ts';
import type { ToldChains } from './told-chains.ts';

export interface List extends ListParts {
  readonly id: string;
  readonly family: Family;
  /** Its set of endpoints; not for host endpoints, which are found by interface. */
  readonly set: string;
}

interface ListState extends List {
  users: number;
  roundsUnused: number;
  /** What its chains and rules name now. */
  needs: Needs;
}

interface Needs {
  readonly sets: ReadonlySet<string>;
  readonly chains: ReadonlySet<string>;
  readonly selectors: ReadonlySet<string>;
  readonly addressSets: ReadonlySet<string>;
}

const NOTHING: Needs = { sets: new Set(), chains: new Set(), selectors: new Set(), addressSets: new Set() };

export class ListTable {
  readonly #lists = new Map<string, ListState>();
  /** Of those that endpoints have, sorted. */
  readonly #dispatched: Record<Family, string[]> = { 4: [], 6: [] };
  /** By `profile web`, `policy base`, `address set office`. */
  readonly #byPart = new Map<string, Set<ListState>>();
  /** Host interfaces that another plugin has made. */
  readonly foreign: ForeignInterfaces;
  readonly #extraUsers: Record<Family, number> = { 4: 0, 6: 0 };
  readonly #sets: CountedSets;
  readonly #chains: ToldChains;
  readonly #selectors: SelectorSets;
  readonly #definitions: Definitions;
  readonly #endpointToHost: EndpointToHost;

  constructor(parts: {
    sets: CountedSets;
    selectors: SelectorSets;
    chains: ToldChains;
    definitions: Definitions;
    endpointToHost: EndpointToHost;
  }) {
    this.#sets = parts.sets;
    this.#selectors = parts.selectors;
    this.#chains = parts.chains;
    this.#definitions = parts.definitions;
    this.#endpointToHost = parts.endpointToHost;
    this.foreign = new ForeignInterfaces(parts.sets, parts.chains, (family) => this.#tellBase(family));
  }

  /** What is there without any endpoint: everything of ours is dropped. */
  tellBase(): void {
    for (const family of families) {
      this.#sets.acquire(endpointSet(family), { type: 'net,iface', family });
      this.#tellDispatch(family);
      this.#tellBase(family);
    }
  }

  /** An endpoint has extra sources of the family. */
  useExtraSources(family: Family): void {
    if (++this.#extraUsers[family] > 1) return;
    this.#sets.acquire(extraSourceSet(family), { type: 'net,iface', family });
    this.#tellBase(family);
  }

  giveBackExtraSources(family: Family): void {
    if (--this.#extraUsers[family] > 0) return;
    this.#tellBase(family);
    this.#sets.release(extraSourceSet(family));
  }

  use(parts: ListParts, family: Family): List {
    const key = JSON.stringify([family, parts.kind, parts.profiles, parts.policies]);
    const list = this.#lists.get(key) ?? this.#create(key, parts, family);
    list.users++;
    list.roundsUnused = 0;
    return list;
  }

  giveBack(list: List): void {
    (list as ListState).users--;
  }

  changed(kind: 'profile' | 'policy' | 'address set', name: string): void {
    for (const list of [...(this.#byPart.get(`${kind} ${name}`) ?? [])]) this.#compile(list);
  }

  /** Removes the lists that were unused at the last call too. */
  retire(): void {
    const gone = [...this.#lists].filter(([, list]) => list.users === 0 && ++list.roundsUnused >= 2);
    for (const [key, { kind, family, id }] of gone) {
      this.#lists.delete(key);
      const dispatched = this.#dispatched[family];
      if (kind === 'endpoint') dispatched.splice(placeOf(dispatched, id), 1);
    }
    const changed = gone.filter(([, { kind }]) => kind === 'endpoint');
    for (const family of new Set(changed.map(([, list]) => list.family))) this.#tellDispatch(family);
    for (const [, list] of gone) this.#destroy(list);
  }

  #create(key: string, { kind, profiles, policies }: ListParts, family: Family): ListState {
    const id = listId(profiles, policies);
    const list: ListState = {
      id,
      kind,
      profiles,
      policies,
      family,
      set: listSet(family, id),
      users: 0,
      roundsUnused: 0,
      needs: NOTHING,
    };
    this.#lists.set(key, list);
    for (const part of partsOf(list)) this.#listsOf(part).add(list);
    if (kind === 'endpoint') this.#sets.acquire(list.set, { type: 'net,iface', family });
    this.#compile(list);
    if (kind === 'endpoint') {
      const dispatched = this.#dispatched[family];
      dispatched.splice(placeOf(dispatched, id), 0, id);
      this.#tellDispatch(family);
    }
    return list;
  }

  #compile(list: ListState): void {
    const { family } = list;
    const chains = compileList(family, list.id, list, this.#definitions, this.#endpointToHost);
    const before = list.needs;
    list.needs = this.#needsOf(list, chains);
    this.#take(list, list.needs);
    for (const chain of chains) this.#chains.tell(family, chain);
    for (const name of before.chains) if (!list.needs.chains.has(name)) this.#chains.untell(family, name);
    this.#giveBack(list, before);
  }

  #needsOf(list: ListState, chains: readonly Chain[]): Needs {
    const matches = rulesOfList(list, this.#definitions).flatMap((rule) => rule.matches);
    return {
      sets: new Set(chains.flatMap((chain) => [...setsOfChain(chain)])),
      chains: new Set(chains.map(({ name }) => name)),
      selectors: new Set(matches.flatMap((match) => (match.kind === 'selector' ? [match.selector] : []))),
      addressSets: new Set(matches.flatMap((match) => (match.kind === 'set' ? [match.set] : []))),
    };
  }

  #take(list: ListState, { sets, selectors, addressSets }: Needs): void {
    for (const selector of selectors) this.#selectors.use(selector);
    for (const set of sets) this.#sets.acquire(set, { type: 'net', family: list.family });
    for (const set of addressSets) this.#listsOf(`address set ${set}`).add(list);
  }

  #giveBack(list: ListState, { sets, selectors, addressSets }: Needs): void {
    for (const set of sets) this.#sets.release(set);
    for (const selector of selectors) this.#selectors.giveBack(selector);
    for (const set of addressSets)
      if (!list.needs.addressSets.has(set)) this.#forget(`address set ${set}`, list);
  }

  #destroy(list: ListState): void {
    const before = list.needs;
    list.needs = NOTHING;
    for (const name of before.chains) this.#chains.untell(list.family, name);
    this.#giveBack(list, before);
    if (list.kind === 'endpoint') this.#sets.release(list.set);
    for (const part of partsOf(list)) this.#forget(part, list);
  }

  #tellBase(family: Family): void {
    const has = { extraSources: this.#extraUsers[family] > 0, foreign: this.foreign.any };
    for (const chain of compileBase(family, has)) this.#chains.tell(family, chain);
  }

  #tellDispatch(family: Family): void {
    for (const chain of compileDispatch(family, [...this.#dispatched[family]]))
      this.#chains.tellChanged(family, chain);
  }

  #listsOf(part: string): Set<ListState> {
    let lists = this.#byPart.get(part);
    if (lists === undefined) {
      lists = new Set();
      this.#byPart.set(part, lists);
    }
    return lists;
  }

  #forget(part: string, list: ListState): void {
    const lists = this.#listsOf(part);
    lists.delete(list);
    if (lists.size === 0) this.#byPart.delete(part);
  }
}

/** Where the id stands, or belongs, in the sorted list. */
function placeOf(ids: readonly string[], id: string): number {
  let from = 0;
  let to = ids.length;
  while (from < to) {
    const middle = (from + to) >>> 1;
    if (ids[middle]! < id) from = middle + 1;
    else to = middle;
  }
  return from;
}

function partsOf({ profiles, policies }: ListParts): string[] {
  return [...profiles.map((name) => `profile ${name}`), ...policies.map((name) => `policy ${name}`)];
}
