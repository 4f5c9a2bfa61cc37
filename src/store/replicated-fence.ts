/**
 * The fence: one record per node, `replication/<node>`, that every transaction of this node in the cluster compares and rewrites.
 * So they happen one after the other, a late one cannot slip in after the next, and it can always be read whether one happened.
 *
 * In: transactions for the cluster. Out: what became of them, by the record where the answer got lost. Never: a transaction that is
 * carried out twice; a false loss (a second attempt is the same transaction under the same fence).
 */

import type { Clock } from '../lib/clock.ts';
import { asNetctlError } from '../lib/errors.ts';
import type { Progress } from './replicated-outbox.ts';
import type { Deadline } from './replicated-wait.ts';
import type { ChangeSet, Compare, Entry, Json, Revision, Store, Write } from './store.ts';

export type Outcome =
  | { readonly kind: 'committed'; readonly revision: Revision }
  /** Nothing was written; the compares on these keys did not hold, perhaps others neither. */
  | { readonly kind: 'failed'; readonly keys: readonly string[] }
  /** Nothing was or will be written: an earlier transaction of ours arrived late and moved the fence. */
  | { readonly kind: 'moved' }
  /** The fence is not ours: another agent has the node's name, or the keyspace was wiped. */
  | { readonly kind: 'taken' }
  /** Refused as it is: it will never be carried out. */
  | { readonly kind: 'refused'; readonly error: Error }
  /** Not known, and it may still happen until the fence is moved. */
  | { readonly kind: 'unknown'; readonly error: Error };

export interface FenceState extends Progress {
  /** Identity of the local store that the progress is about. */
  readonly store: string;
  /** Of the last transaction: says whether it was this one. */
  readonly turn: string;
  /** Keys that the cluster decided about and the local store may not show: after a restart, the cluster's word is the last. */
  readonly decided: readonly string[];
  /** Cluster's revision of the last of these decisions; null: the transaction that wrote this record. */
  readonly decidedAt: Revision | null;
}

const firstPauseMilliseconds = 20;

export class Fence {
  readonly key: string;
  readonly #cluster: Store;
  readonly #clock: Clock;
  readonly store: string;
  /** Distinguishes this process's transactions from those of the one before, which may still be under way. */
  readonly #process: string;
  #turns = 0;
  /** null: the record does not exist. */
  #revision: Revision | null = null;
  #progress: Progress = { sent: 0, done: 0 };
  /** Of a record that an earlier process wrote, or a late transaction: what it decided, and its revision. */
  #decided: ReadonlySet<string> = new Set();
  #decidedAt: Revision = 0;
  /** The node's own last words by key, with their local revision; kept until the local store shows what was decided, null from then on. */
  #words: Map<string, Revision> | null = new Map();
  /** Cluster's revision that the local store shows. */
  #shown: Revision;

  constructor(cluster: Store, clock: Clock, node: string, store: string, process: string, shown: Revision) {
    this.#cluster = cluster;
    this.#clock = clock;
    this.key = `replication/${node}`;
    this.store = store;
    this.#process = process;
    this.#shown = shown;
  }

  /** Of the last known transaction of this node. */
  get revision(): Revision {
    return this.#revision ?? 0;
  }

  /** What the cluster has of the outbox, by that record. */
  get progress(): Progress {
    return this.#progress;
  }

  /** Takes over what the cluster says. */
  adopt(entry: Entry | null): void {
    this.#revision = entry?.modified ?? null;
    const state = entry === null ? null : fenceState(entry.value);
    const isOurs = state?.store === this.store;
    this.#progress = isOurs ? { sent: state.sent, done: state.done } : { sent: 0, done: 0 };
    this.#decided = new Set(isOurs ? state.decided : []);
    this.#decidedAt = (isOurs ? state.decidedAt : null) ?? this.revision;
    // A change of this node after what it was shown is its own word again.
    if (this.#shown >= this.#decidedAt) this.#forget();
  }

  /** True if the cluster has decided about the key on our behalf, the local store may not show it, and the node has said nothing since. */
  isDecided(key: string): boolean {
    return this.#decided.has(key) && (this.#words?.get(key) ?? 0) <= this.#progress.sent;
  }

  /** The node has said something by itself. What the cluster does not have of that is later than what it decided about these keys. */
  said({ revision, changes }: ChangeSet): void {
    if (this.#words !== null) for (const { key } of changes) this.#words.set(key, revision);
  }

  /** The local store shows what the cluster had at the revision. */
  shown(revision: Revision): void {
    this.#shown = Math.max(this.#shown, revision);
    if (this.#shown >= this.#decidedAt) this.#forget();
  }

  #forget(): void {
    this.#decided = new Set();
    this.#words = null;
  }

  /** The record as the cluster has it now. @throws STORE_UNAVAILABLE */
  read(deadline: Deadline): Promise<Entry | null> {
    return deadline.race(this.#cluster.get(this.key));
  }

  /**
   * @param progress what the cluster has of the outbox after it
   * @param decided keys of decisions, this one included, that are not in the local store yet
   */
  async send(
    compares: readonly Compare[],
    writes: readonly Write[],
    progress: Progress,
    decided: readonly string[],
    deadline: Deadline,
  ): Promise<Outcome> {
    this.#turns += 1;
    const keys = new Set([...[...this.#decided].filter((key) => this.isDecided(key)), ...decided]);
    const isDecision = writes.some(({ key }) => keys.has(key));
    const next: FenceState = {
      store: this.store,
      ...progress,
      turn: `${this.#process}/${this.#turns}`,
      decided: [...keys],
      decidedAt: isDecision ? null : this.#decidedAt,
    };
    const guard: Compare =
      this.#revision === null
        ? { kind: 'absent', key: this.key }
        : { kind: 'modified', key: this.key, revision: this.#revision };
    const transaction = [
      [guard, ...compares],
      [...writes, { kind: 'put', key: this.key, value: next as unknown as Json }],
    ] as const;
    for (;;) {
      try {
        const result = await deadline.race(this.#cluster.transact(...transaction));
        if (result.committed) return this.#committed(result.revision, next);
        const keys = [result.failed, ...(result.others ?? [])];
        if (result.failed !== this.key) return { kind: 'failed', keys };
        return this.#judge(await this.read(deadline), next) ?? { kind: 'moved' };
      } catch (error) {
        if (asNetctlError(error).code !== 'STORE_UNAVAILABLE')
          return { kind: 'refused', error: error as Error };
        const outcome = await this.#resolve(next, error as Error, deadline);
        if (outcome !== 'not yet') return outcome;
      }
    }
  }

  /** After an error: read what happened. `not yet`: nothing so far, and the same transaction may be sent again. */
  async #resolve(next: FenceState, error: Error, deadline: Deadline): Promise<Outcome | 'not yet'> {
    for (let pause = firstPauseMilliseconds; ; pause *= 2) {
      try {
        await this.#pause(pause, deadline);
        return this.#judge(await this.read(deadline), next) ?? 'not yet';
      } catch {
        if (deadline.expired) return { kind: 'unknown', error };
      }
    }
  }

  /** null: the fence stands where it stood. */
  #judge(entry: Entry | null, next: FenceState): Outcome | null {
    if ((entry?.modified ?? null) === this.#revision) return null;
    const state = entry === null ? null : fenceState(entry.value);
    if (entry === null || state?.store !== this.store) return { kind: 'taken' };
    if (state.turn === next.turn) return this.#committed(entry.modified, next);
    this.adopt(entry);
    return { kind: 'moved' };
  }

  #committed(revision: Revision, { sent, done, decidedAt }: FenceState): Outcome {
    this.#revision = revision;
    this.#progress = { sent, done };
    this.#decidedAt = decidedAt ?? revision;
    return { kind: 'committed', revision };
  }

  #pause(milliseconds: number, deadline: Deadline): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = this.#clock.setTimer(milliseconds, resolve);
    return deadline.race(promise).finally(() => timer.cancel());
  }
}

export function fenceState(value: Json): FenceState | null {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return null;
  const { store, sent, done, turn, decided = [], decidedAt = null } = value as Record<string, Json>;
  if (typeof store !== 'string' || typeof turn !== 'string') return null;
  if (!Number.isSafeInteger(sent) || !Number.isSafeInteger(done)) return null;
  if (!Array.isArray(decided) || !decided.every((key) => typeof key === 'string')) return null;
  if (decidedAt !== null && !Number.isSafeInteger(decidedAt)) return null;
  return {
    store,
    sent: sent as number,
    done: done as number,
    turn,
    decided,
    decidedAt: decidedAt as number | null,
  };
}
