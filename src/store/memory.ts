/**
 * The in-memory store for tests: as strict as the durable ones (one contract test runs on all), and it fails on request.
 *
 * In: the calls of the port; orders to fail, to compact, to end watches. Out: what a durable store would answer. Never: an
 * answer or an effect in the same turn as the call, since no durable store has one.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { NetctlError } from '../lib/errors.ts';
import { compareKeys } from './key-order.ts';
import type {
  ChangeSet,
  Compare,
  Entry,
  Revision,
  Snapshot,
  Store,
  TransactionResult,
  Watch,
  Watcher,
  Write,
} from './store.ts';
import { toChange, toEntry } from './text-rows.ts';
import {
  checkKey,
  checkPrefix,
  checkTransaction,
  type LoggedChange,
  type Newest,
  planTransaction,
  type Versions,
} from './transaction.ts';
import { Watches } from './watches.ts';

type Operation = 'get' | 'list' | 'transact' | 'watch';

/** `refused`: nothing was done. `ambiguous` (transact only): it was committed, and the answer got lost. */
type Failure = 'refused' | 'ambiguous';

interface Stored extends Versions {
  readonly text: string;
}

export class MemoryStore implements Store {
  readonly #records = new Map<string, Stored>();
  /** Of revisions #compacted + 1 and on. */
  readonly #log: (readonly LoggedChange[])[] = [];
  #compacted = 0;
  readonly #failures: { operation: Operation; failure: Failure }[] = [];
  #closed = false;
  readonly #watches = new Watches({
    latest: () => this.#latest(),
    reached: () => this.#latest(),
    compacted: () => this.#compacted,
    read: (prefix, after, upTo) => this.#readLog(prefix, after, upTo),
  });

  async get(key: string): Promise<Entry | null> {
    checkKey(key);
    this.#mayFail('get');
    await nextTurn();
    const stored = this.#records.get(key);
    return stored ? toEntry({ key, value: stored.text, ...stored }) : null;
  }

  async list(prefix: string): Promise<Snapshot> {
    checkPrefix(prefix);
    this.#mayFail('list');
    await nextTurn();
    const entries = [...this.#records]
      .filter(([key]) => key.startsWith(prefix))
      .sort(([a], [b]) => compareKeys(a, b))
      .map(([key, { text, ...versions }]) => toEntry({ key, value: text, ...versions }));
    return { revision: this.#latest(), entries };
  }

  async transact(compares: readonly Compare[], writes: readonly Write[]): Promise<TransactionResult> {
    const transaction = checkTransaction(compares, writes);
    const failure = this.#mayFail('transact');
    await nextTurn();
    const next = this.#latest() + 1;
    const plan = planTransaction(transaction, next, {
      versions: (key) => this.#records.get(key),
      newest: (prefix) => this.#newest(prefix),
    });
    if (plan.committed && plan.changes.length > 0) this.#write(next, plan.changes);
    if (failure === 'ambiguous') throw unavailable('the answer to a transaction got lost');
    return plan.committed ? { committed: true, revision: this.#latest() } : plan;
  }

  watch(prefix: string, after: Revision, watcher: Watcher): Watch {
    checkPrefix(prefix);
    try {
      this.#mayFail('watch');
    } catch (error) {
      const ending = setImmediate(() => watcher.onEnd(error as Error));
      return { close: () => clearImmediate(ending) };
    }
    return this.#watches.add(prefix, after, watcher);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await nextTurn();
    this.#watches.endAll(unavailable('the store was closed'));
  }

  /** The next call of the operation fails with STORE_UNAVAILABLE. Called twice, the next two fail, in this order. */
  failNext(operation: Operation, failure: Failure = 'refused'): void {
    if (failure === 'ambiguous' && operation !== 'transact') {
      throw new NetctlError('BUG', `only transact can fail as ambiguous, not ${operation}`);
    }
    this.#failures.push({ operation, failure });
  }

  /** The failures asked for that no call has met: a test's end expects 0. */
  failuresLeft(): number {
    return this.#failures.length;
  }

  /** Drops the changes up to and including the revision (by default all), so that watches from before it end. */
  compact(upTo: Revision = this.#latest()): void {
    if (upTo > this.#latest())
      throw new NetctlError('BUG', `cannot compact up to ${upTo}: the store is at ${this.#latest()}`);
    this.#log.splice(0, Math.max(0, upTo - this.#compacted));
    this.#compacted = Math.max(upTo, this.#compacted);
  }

  /** Ends all watches, as a store does that restarts. */
  endWatches(error: Error = unavailable('the connection to the store was lost')): void {
    this.#watches.endAll(error);
  }

  #newest(prefix: string): Newest | undefined {
    let newest: Newest | undefined;
    for (const [key, { modified }] of this.#records)
      if (key.startsWith(prefix) && modified > (newest?.modified ?? 0)) newest = { key, modified };
    return newest;
  }

  #latest(): Revision {
    return this.#compacted + this.#log.length;
  }

  #write(revision: Revision, changes: readonly LoggedChange[]): void {
    for (const { key, text, created } of changes) {
      if (text === null) this.#records.delete(key);
      else this.#records.set(key, { text, created, modified: revision });
    }
    this.#log.push(changes.toSorted((a, b) => compareKeys(a.key, b.key)));
    this.#watches.wake();
  }

  #readLog(prefix: string, after: Revision, upTo: Revision): ChangeSet[] {
    return this.#log
      .slice(after - this.#compacted, upTo - this.#compacted)
      .map((changes, index) => toChangeSet(after + index + 1, prefix, changes))
      .filter((changeSet) => changeSet.changes.length > 0);
  }

  #mayFail(operation: Operation): Failure | null {
    if (this.#closed) throw unavailable('the store was closed');
    const index = this.#failures.findIndex((failure) => failure.operation === operation);
    const failure = this.#failures[index]?.failure ?? null;
    if (failure) this.#failures.splice(index, 1);
    if (failure === 'refused') throw unavailable(`${operation} failed on request`);
    return failure;
  }
}

function toChangeSet(revision: Revision, prefix: string, changes: readonly LoggedChange[]): ChangeSet {
  return {
    revision,
    changes: changes
      .filter(({ key }) => key.startsWith(prefix))
      .map(({ key, text, created }) => toChange({ revision, key, value: text, created })),
  };
}

function unavailable(message: string): NetctlError {
  return new NetctlError('STORE_UNAVAILABLE', message);
}
