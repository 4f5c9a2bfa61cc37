/**
 * A table of ours in nftables: read, compare, and what has to be asked of the kernel to make it right.
 *
 * In: which sets, elements and chains should be. Out: requests, in an order that the kernel takes as one transaction. Never: a chain
 * rewritten that is right (its counters survive), another table touched. The whole table is ours: what else is found in it goes.
 */
import { Deltas } from '../lib/deltas.ts';
import type {
  NftChainInfo,
  NftData,
  NftElement,
  NftPlace,
  NftRequest,
  NftSetInfo,
  NftSetSpec,
  NftTable,
} from '../linux/nftables-port.ts';
import type { RenderedNftChain } from '../policy/render-nftables.ts';
import { hashInComment } from '../policy/rule-hash.ts';

/** The name of our tables in the agent's namespace. */
export const nftTable = 'netctl';

interface ActualChain {
  readonly hook: NftChainInfo['hook'];
  readonly hashes: readonly (string | null)[];
}

interface DesiredChain extends ActualChain {
  readonly rendered: RenderedNftChain;
}

type ActualSpec = NftSetInfo['spec'];

/** What was asked for by requests: to be noted when the kernel has carried them out. */
export type Written = () => void;

export class NftReconciler {
  readonly place: NftPlace;
  readonly #chains = new Deltas<string, ActualChain>(isSame);
  readonly #sets = new Deltas<string, ActualSpec>(isSame);
  readonly #elements = new Map<string, Deltas<string, NftData | null>>();
  /** Sets with elements to add or delete. */
  readonly #dirty = new Set<string>();
  /** Elements written while a read is under way: there, what we did is newer than what was read. */
  #writtenDuringRead: Map<string, Set<string>> | null = null;
  #isTableThere = false;
  #isDormant = false;

  constructor(place: NftPlace) {
    this.place = place;
  }

  set(name: string, spec: NftSetSpec | null): void {
    if (spec === null) {
      this.#sets.unwant(name);
      const elements = this.#elementsOf(name);
      for (const key of [...elements.desired.keys()]) elements.unwant(key);
      if (elements.actual.size === 0) this.#elements.delete(name);
      this.#dirty.delete(name);
    } else {
      this.#sets.want(name, spec);
      this.#noteDirt(name, this.#elementsOf(name));
    }
  }

  /** @param data undefined: it is not to be there */
  element(set: string, key: string, data: NftData | null | undefined): void {
    const elements = this.#elementsOf(set);
    if (data === undefined) elements.unwant(key);
    else elements.want(key, data);
    this.#noteDirt(set, elements);
  }

  chain(name: string, rendered: RenderedNftChain | null): void {
    if (rendered === null) {
      this.#chains.unwant(name);
      return;
    }
    const desired: DesiredChain = { rendered, hook: rendered.hook, hashes: rendered.hashes };
    this.#chains.want(name, desired);
  }

  get isClean(): boolean {
    return !this.#mustRebuild && this.#sets.isClean && this.#chains.isClean && this.#dirty.size === 0;
  }

  /** More is to be written than elements of sets that are there. */
  get awaitsStructure(): boolean {
    return (
      this.#mustRebuild ||
      !this.#sets.isClean ||
      !this.#chains.isClean ||
      [...this.#dirty].some((name) => this.#holdsVerdicts(name))
    );
  }

  /** What differs, in words for people. */
  differences(): string[] {
    const { family, table, layer } = this.place;
    const name = (what: string): string => `${what} (${layer === 'link' ? 'netdev' : `IPv${family}`})`;
    if (!this.#isTableThere) return [name(`table ${table}`).concat(' missing')];
    const texts = this.#isDormant ? [name(`table ${table}`).concat(' switched off')] : [];
    for (const chain of this.#chains.pendingUpdates.keys())
      texts.push(`${name(`chain ${chain}`)} missing or changed`);
    for (const chain of this.#chains.pendingDeletes) texts.push(`${name(`chain ${chain}`)} left over`);
    for (const set of this.#sets.pendingUpdates.keys())
      texts.push(`${name(`set ${set}`)} missing or of another type`);
    for (const set of this.#dirty) {
      const { pendingUpdates, pendingDeletes } = this.#elementsOf(set);
      if (this.#sets.actual.has(set)) {
        texts.push(
          `${name(`set ${set}`)}: ${pendingUpdates.size} members missing, ${pendingDeletes.size} too many`,
        );
      }
    }
    for (const set of this.#sets.pendingDeletes) texts.push(`${name(`set ${set}`)} left over`);
    return texts;
  }

  /** Elements that are written until `observe` count as newer than what it is given. */
  beginRead(): void {
    this.#writtenDuringRead = new Map();
  }

  /** Returns the differences that we did not know of, in words. @param table null: there is none */
  observe(table: NftTable | null): string[] {
    const known = new Set(this.differences());
    const written = this.#writtenDuringRead ?? new Map<string, Set<string>>();
    this.#writtenDuringRead = null;
    this.#isTableThere = table !== null;
    this.#isDormant = table?.isDormant ?? false;
    this.#chains.observe(
      Array.from(table?.chains ?? [], ([name, { hook, comments }]) => [
        name,
        { hook, hashes: comments.map((comment) => (comment === null ? null : hashInComment(comment))) },
      ]),
    );
    this.#sets.observe(Array.from(table?.sets ?? [], ([name, { spec }]) => [name, spec]));
    for (const name of new Set([...this.#elements.keys(), ...(table?.sets.keys() ?? [])])) {
      this.#observeElements(name, table?.sets.get(name)?.elements ?? [], written.get(name) ?? new Set());
    }
    return this.differences().filter((difference) => !known.has(difference));
  }

  /** What brings the elements of sets that are there up to date; where verdicts lead is written with the chains. */
  elementRequests(requests: NftRequest[]): Written {
    const sets = [...this.#dirty].filter((name) => !this.#holdsVerdicts(name) && this.#isRightSet(name));
    return this.#writeElements(requests, sets);
  }

  /** What makes everything right. @param mustBeNew a table that is made is refused where there is one (EEXIST) */
  requests(requests: NftRequest[], mustBeNew = false): Written {
    if (this.#mustRebuild) this.#rebuild(requests, mustBeNew);
    const changed = [...this.#chains.pendingUpdates] as [string, DesiredChain][];
    const removed = [...this.#chains.pendingDeletes];
    const lost = [...this.#sets.pendingDeletes];
    const made = [...this.#sets.pendingUpdates] as [string, NftSetSpec][];
    const isKnown = (name: string): boolean => this.#chains.actual.has(name);
    for (const chain of [...changed.map(([name]) => name).filter(isKnown), ...removed]) {
      requests.push({ ...this.place, kind: 'chain-flush', chain });
    }
    const verdictMaps = [...this.#dirty].filter((name) => this.#holdsVerdicts(name));
    const forgotten = this.#deleteElements(requests, verdictMaps);
    for (const set of lost) requests.push({ ...this.place, kind: 'set-delete', set });
    for (const chain of removed) requests.push({ ...this.place, kind: 'chain-delete', chain });
    for (const [set, spec] of made) requests.push({ ...this.place, kind: 'set-add', set, spec });
    for (const [chain, { rendered }] of changed) {
      if (!isKnown(chain)) requests.push({ ...this.place, kind: 'chain-add', chain, hook: rendered.hook });
    }
    const ordinary = [...this.#dirty].filter((name) => !this.#holdsVerdicts(name));
    const filled = this.#writeElements(requests, ordinary);
    for (const [chain, { rendered }] of changed) {
      for (const rule of rendered.rules) requests.push({ ...this.place, kind: 'rule-add', chain, rule });
    }
    const led = this.#addElements(requests, verdictMaps);
    return () => {
      this.#isTableThere = true;
      for (const [name, spec] of made) this.#sets.wrote(name, spec);
      for (const name of lost) this.#forgetSet(name);
      for (const [name, chain] of changed) this.#chains.wrote(name, chain);
      for (const name of removed) this.#chains.erased(name);
      for (const note of [forgotten, filled, led]) note();
    };
  }

  /** A set or a hook cannot be changed while rules use it, and a table that was switched off is somebody's mistake. */
  get #mustRebuild(): boolean {
    return (
      !this.#isTableThere ||
      this.#isDormant ||
      [...this.#sets.pendingUpdates.keys()].some((name) => this.#sets.actual.has(name)) ||
      [...this.#chains.pendingUpdates].some(([name, { hook }]) => {
        const actual = this.#chains.actual.get(name);
        return actual !== undefined && !isSame(actual.hook, hook);
      })
    );
  }

  /** In the same transaction as what follows: there is no moment without rules. */
  #rebuild(requests: NftRequest[], mustBeNew: boolean): void {
    if (this.#isTableThere) requests.push({ ...this.place, kind: 'table-delete' });
    requests.push({ ...this.place, kind: mustBeNew ? 'table-make' : 'table-add' });
    this.#isDormant = false;
    this.#chains.observe([]);
    this.#sets.observe([]);
    for (const name of [...this.#elements.keys()]) this.#observeElements(name, [], new Set());
  }

  #writeElements(requests: NftRequest[], sets: readonly string[]): Written {
    const deleted = this.#deleteElements(requests, sets);
    const added = this.#addElements(requests, sets);
    return () => {
      deleted();
      added();
    };
  }

  /** Also those whose data is another one: an element cannot be changed. */
  #deleteElements(requests: NftRequest[], sets: readonly string[]): Written {
    return this.#changeElements(
      requests,
      'elements-delete',
      sets,
      ({ pendingUpdates, pendingDeletes, actual }) =>
        [...pendingDeletes, ...[...pendingUpdates.keys()].filter((key) => actual.has(key))].map((key) => [
          key,
          actual.get(key) ?? null,
        ]),
    );
  }

  #addElements(requests: NftRequest[], sets: readonly string[]): Written {
    return this.#changeElements(requests, 'elements-add', sets, ({ pendingUpdates }) => [...pendingUpdates]);
  }

  #changeElements(
    requests: NftRequest[],
    kind: 'elements-add' | 'elements-delete',
    sets: readonly string[],
    choose: (elements: Deltas<string, NftData | null>) => NftElement[],
  ): Written {
    const changes = sets
      .map((set) => ({ set, elements: choose(this.#elementsOf(set)) }))
      .filter(({ elements }) => elements.length > 0);
    for (const { set, elements } of changes) {
      const spec = this.#sets.desired.get(set) as NftSetSpec;
      requests.push({ ...this.place, kind, set, spec, elements });
    }
    return () => {
      for (const { set, elements } of changes) {
        const known = this.#elementsOf(set);
        for (const [key, data] of elements) {
          if (kind === 'elements-add') known.wrote(key, data);
          else known.erased(key);
        }
        this.#noteDirt(set, known);
        this.#noteWrittenDuringRead(set, elements);
      }
    };
  }

  #noteWrittenDuringRead(set: string, elements: readonly NftElement[]): void {
    const written = this.#writtenDuringRead;
    if (written === null) return;
    if (!written.has(set)) written.set(set, new Set());
    for (const [key] of elements) written.get(set)!.add(key);
  }

  #observeElements(set: string, read: readonly NftElement[], newer: ReadonlySet<string>): void {
    const elements = this.#elementsOf(set);
    const ours = [...newer]
      .filter((key) => elements.actual.has(key))
      .map((key): NftElement => [key, elements.actual.get(key)!]);
    elements.observe([...ours, ...read.filter(([key]) => !newer.has(key))]);
    this.#noteDirt(set, elements);
    if (elements.actual.size === 0 && !this.#sets.desired.has(set)) this.#elements.delete(set);
  }

  #forgetSet(name: string): void {
    this.#sets.erased(name);
    if (this.#sets.desired.has(name)) return;
    this.#elements.delete(name);
    this.#dirty.delete(name);
  }

  /** The elements of a set that is to go do not matter. */
  #noteDirt(name: string, elements: Deltas<string, NftData | null>): void {
    if (!elements.isClean && this.#sets.desired.has(name)) this.#dirty.add(name);
    else this.#dirty.delete(name);
  }

  #isRightSet(name: string): boolean {
    return this.#sets.actual.has(name) && !this.#sets.pendingUpdates.has(name);
  }

  #holdsVerdicts(name: string): boolean {
    const spec = this.#sets.desired.get(name);
    return spec !== undefined && spec !== 'other' && spec.data === 'verdict';
  }

  #elementsOf(name: string): Deltas<string, NftData | null> {
    let elements = this.#elements.get(name);
    if (elements === undefined) {
      elements = new Deltas<string, NftData | null>(isSame);
      this.#elements.set(name, elements);
    }
    return elements;
  }
}

/** By what counts: of chains the hook and the hashes. */
function isSame(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(comparable(a)) === JSON.stringify(comparable(b));
}

function comparable(value: unknown): unknown {
  return typeof value === 'object' && value !== null && 'hashes' in value && 'hook' in value
    ? [value.hook, value.hashes]
    : value;
}
