/**
 * What the policy engine tells about one family, in terms of nftables.
 *
 * In: the calls of PolicyOutput. Out: sets, elements and chains to an NftReconciler. Never: a chain rendered each time that it is told
 * (while many lists come, the dispatch changes with each): `settle` renders what is told last.
 *
 * The sets of lists become one map from interface and address to the number of the list; each dispatching chain has a second map,
 * from the number to the list's chain. That map and the set of all endpoints are held a second time, by the interface's index. Lists
 * that let nothing through to this host share the chain that says so: the kernel visits every chain at each transaction.
 */
import { createHash } from 'node:crypto';
import type { NftSetSpec } from '../linux/nftables-port.ts';
import type { IpSetMember } from '../linux/ports.ts';
import type { Family } from '../model/ip.ts';
import type { Chain } from '../policy/chain.ts';
import { takesNothing } from '../policy/compile-list.ts';
import { chains, dispatching, endpointSet, isListSet } from '../policy/names.ts';
import type { SetSpec } from '../policy/output.ts';
import {
  dispatchMap,
  hostJumps,
  indexMap,
  indexSet,
  type NftJump,
  pairMap,
  type RenderedNftChain,
  renderBaseChains,
  renderNftChain,
} from '../policy/render-nftables.ts';
import { IndexOwners, IndexPairs } from './index-pairs.ts';
import { NftMembers } from './nft-members.ts';
import { NftReconciler, nftTable } from './nft-reconciler.ts';

/** Shared by all lists that say just this. */
export const nothingToHost: Chain = { name: 'nctl-host-nothing', rules: [takesNothing] };
const VERDICTS: NftSetSpec = { key: 'id', prefixes: false, data: 'verdict' };

/** What the tables of one place are called, and how packets get into them. */
export interface TableLayout {
  readonly table: string;
  readonly jumps: readonly NftJump[];
  /** Lists are found by interface and address. */
  readonly dispatches: boolean;
}

/** In the agent's namespace. */
export const hostLayout: TableLayout = { table: nftTable, jumps: hostJumps, dispatches: true };

/** What is held a second time, and where. */
const TWINS: Readonly<Record<Family, ReadonlyMap<string, string>>> = { 4: twinsOf(4), 6: twinsOf(6) };

function twinsOf(family: Family): Map<string, string> {
  return new Map([
    [endpointSet(family), indexSet],
    [pairMap, indexMap],
  ]);
}

interface List {
  readonly id: number;
  readonly members: Set<IpSetMember>;
}

interface TableSet {
  readonly key: NftSetSpec['key'];
  readonly data: NftSetSpec['data'];
  readonly members: NftMembers;
}

export class NftTableOutput {
  readonly kernel: NftReconciler;
  readonly #family: Family;
  readonly #jumps: readonly NftJump[];
  readonly #dispatches: boolean;
  readonly #sets = new Map<string, TableSet>();
  readonly #lists = new Map<string, List>();
  readonly #usedIds = new Set<number>();
  /** Told since the last settle(). */
  readonly #told = new Map<string, Chain | null>();
  readonly #chains = new Map<string, Chain>();
  #baseChains: readonly string[] = [];
  /** Chains for which `nothingToHost` stands. */
  readonly #shared = new Set<string>();
  /** Per chain that dispatches: where its lists lead. */
  readonly #leads = new Map<string, RenderedNftChain['dispatch']>();
  /** The elements of its map. */
  readonly #dispatch = new Map<string, ReadonlyMap<string, string>>();
  readonly #unsettled = new Set<string>();
  readonly #owners: IndexOwners;

  /** @param owners for the tables of all families the same */
  constructor(
    family: Family,
    { table, jumps, dispatches }: TableLayout = hostLayout,
    owners: IndexOwners = new IndexOwners(),
  ) {
    this.#family = family;
    this.#owners = owners;
    this.#jumps = jumps;
    this.#dispatches = dispatches;
    this.kernel = new NftReconciler({ family, table });
    if (!dispatches) return;
    this.#addSet(pairMap, 'pair', 'id');
    this.kernel.set(indexSet, { key: 'index-pair', prefixes: false, data: null });
    this.kernel.set(indexMap, { key: 'index-pair', prefixes: false, data: 'id' });
    for (const chain of dispatching) this.kernel.set(dispatchMap(chain), VERDICTS);
    this.kernel.chain(nothingToHost.name, renderNftChain(family, nothingToHost));
  }

  set(name: string, spec: SetSpec | null): void {
    if (isListSet(name)) {
      if (spec !== null) this.#lists.set(name, { id: this.#newId(name), members: new Set() });
      else this.#removeList(name);
    } else if (spec !== null) {
      this.#addSet(name, spec.type === 'net' ? 'address' : 'pair', null);
    } else if (this.#sets.delete(name)) {
      this.kernel.set(name, null);
    }
  }

  member(set: string, member: IpSetMember, present: boolean): void {
    const list = this.#lists.get(set);
    if (list === undefined) {
      this.#change(set, member, null, present);
      return;
    }
    if (present) list.members.add(member);
    else list.members.delete(member);
    this.#change(pairMap, member, list.id, present);
  }

  chain(name: string, chain: Chain | null): void {
    this.#told.set(name, chain);
  }

  /** To be called before the reconciler is asked for anything. */
  settle(): void {
    for (const name of this.#unsettled) this.#settleSet(name);
    this.#unsettled.clear();
    if (this.#told.size === 0) return;
    const changed = new Set<string>();
    for (const [name, chain] of this.#told) {
      const isShared = this.#dispatches && chain?.rules[0] === takesNothing;
      if (this.#shared.has(name) !== isShared) changed.add(chains.host);
      if (isShared) this.#shared.add(name);
      else this.#shared.delete(name);
      const leads = this.#render(name, isShared ? null : chain);
      if (!dispatching.includes(name)) continue;
      this.#leads.set(name, leads);
      changed.add(name);
    }
    this.#told.clear();
    for (const chain of changed) this.#tellDispatch(chain);
    this.#renderBaseChains();
  }

  #addSet(name: string, key: TableSet['key'], data: TableSet['data']): void {
    const byIndex = this.#dispatches ? TWINS[this.#family].get(name) : undefined;
    const members: NftMembers =
      byIndex === undefined
        ? new NftMembers(this.#family, (element, value) => this.kernel.element(name, element, value))
        : this.#membersWithTwin(name, byIndex);
    this.#sets.set(name, { key, data, members });
    this.kernel.set(name, { key, prefixes: false, data });
  }

  /** What its elements say stands a second time in another set, by the interfaces' indexes. */
  #membersWithTwin(name: string, byIndex: string): NftMembers {
    const members: NftMembers = new NftMembers(this.#family, (element, value, before) => {
      this.kernel.element(name, element, value);
      pairs.change(element, value, before);
    });
    const pairs = new IndexPairs(
      this.#family,
      this.#owners,
      () => members.elements(),
      (pair, value) => this.kernel.element(byIndex, pair, value),
    );
    return members;
  }

  #change(name: string, member: IpSetMember, data: number | null, present: boolean): void {
    const members = this.#sets.get(name)?.members;
    if (members === undefined) return;
    if (present) members.add(member, data);
    else members.remove(member, data);
    if (members.mustSettle) this.#unsettled.add(name);
  }

  #settleSet(name: string): void {
    const set = this.#sets.get(name);
    if (set === undefined) return;
    const { key, data, members } = set;
    this.kernel.set(name, { key, prefixes: members.hasPrefixes, data });
    members.settle();
  }

  #removeList(name: string): void {
    const list = this.#lists.get(name);
    if (list === undefined) return;
    for (const member of list.members) this.#change(pairMap, member, list.id, false);
    this.#usedIds.delete(list.id);
    this.#lists.delete(name);
  }

  /** The same after a restart, so that elements are found right: the next free one only where two fall together. */
  #newId(name: string): number {
    let id = createHash('sha256').update(name).digest().readUInt32BE(0);
    while (id === 0 || this.#usedIds.has(id)) id = (id + 1) >>> 0;
    this.#usedIds.add(id);
    return id;
  }

  /** Returns where its lists lead. */
  #render(name: string, chain: Chain | null): RenderedNftChain['dispatch'] {
    if (chain === null) {
      this.#chains.delete(name);
      this.kernel.chain(name, null);
      return [];
    }
    const rendered = renderNftChain(this.#family, chain);
    this.#chains.set(name, chain);
    this.kernel.chain(name, rendered);
    return rendered.dispatch;
  }

  #tellDispatch(chain: string): void {
    const map = dispatchMap(chain);
    const before = this.#dispatch.get(chain) ?? new Map<string, string>();
    const target = (name: string): string => (this.#shared.has(name) ? nothingToHost.name : name);
    const now = new Map(
      (this.#leads.get(chain) ?? []).map(([set, to]) => [String(this.#lists.get(set)!.id), target(to)]),
    );
    for (const [id, to] of now)
      if (before.get(id) !== to) this.kernel.element(map, id, { kind: 'goto', chain: to });
    for (const id of before.keys()) if (!now.has(id)) this.kernel.element(map, id, undefined);
    this.#dispatch.set(chain, now);
  }

  #renderBaseChains(): void {
    const rendered = renderBaseChains(this.#family, (chain) => this.#chains.get(chain), this.#jumps);
    const names = rendered.map(({ name }) => name);
    for (const chain of rendered) this.kernel.chain(chain.name, chain);
    for (const name of this.#baseChains) if (!names.includes(name)) this.kernel.chain(name, null);
    this.#baseChains = names;
  }
}
