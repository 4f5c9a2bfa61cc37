/**
 * The watches of an adapter that keeps its own log of changes (SQLite and the in-memory fake).
 *
 * In: the log, watches, a wake-up after each commit. Out: change sets, read from the log from where each watch stands: so
 * catching up and following are one path, and nothing is skipped or repeated. Never: a callback within the call that
 * caused it (a commit's answer does not wait for the watchers), or one after `close`.
 */
import { asNetctlError, NetctlError } from '../lib/errors.ts';
import type { ChangeSet, Revision, Watch, Watcher } from './store.ts';

export interface ChangeLog {
  /** Watches are shown all up to this one. */
  latest(): Revision;
  /** The last one that there is; later ones than `latest` are not durable yet. */
  reached(): Revision;
  /** Changes up to and including this revision are dropped; 0 when all are kept. */
  compacted(): Revision;
  /** The change sets with `after` < revision <= `upTo`, values parsed anew on every call. */
  read(prefix: string, after: Revision, upTo: Revision): ChangeSet[];
  /** No watch is behind the revision. */
  delivered?(revision: Revision): void;
}

interface Position {
  readonly prefix: string;
  readonly watcher: Watcher;
  after: Revision;
}

/** So that a long catch-up leaves turns of the event loop to requests. */
const revisionsPerTurn = 256;

export class Watches {
  readonly #log: ChangeLog;
  readonly #open = new Set<Position>();
  #scheduled = false;

  constructor(log: ChangeLog) {
    this.#log = log;
  }

  /** @throws BUG for an `after` that is no revision */
  add(prefix: string, after: Revision, watcher: Watcher): Watch {
    if (!Number.isSafeInteger(after) || after < 0)
      throw new NetctlError('BUG', `watch after ${after}: not a revision`);
    const position = { prefix, watcher, after };
    this.#open.add(position);
    this.wake();
    return { close: () => void this.#open.delete(position) };
  }

  /** To be called when the log has grown. */
  wake(): void {
    if (this.#scheduled) return;
    if (this.#open.size === 0) {
      this.#log.delivered?.(this.#log.latest());
      return;
    }
    this.#scheduled = true;
    setImmediate(() => this.#deliver());
  }

  endAll(error: Error): void {
    for (const position of [...this.#open]) this.#end(position, error);
  }

  #deliver(): void {
    this.#scheduled = false;
    for (const position of [...this.#open]) {
      try {
        this.#advance(position);
      } catch (error) {
        this.#end(position, asNetctlError(error));
      }
    }
    let last = this.#log.latest();
    for (const { after } of this.#open) last = Math.min(last, after);
    this.#log.delivered?.(last);
    if (last < this.#log.latest()) this.wake();
  }

  /** Hands out the next change sets. A watcher that throws has lost one, so its watch ends. */
  #advance(position: Position): void {
    const latest = this.#log.latest();
    if (!this.#open.has(position)) return;
    if (position.after < this.#log.compacted())
      throw compacted(`changes after revision ${position.after} are not kept any more`);
    // A file that was put back from an older copy: its revisions to come will not be the ones that this watcher knows.
    if (position.after > this.#log.reached())
      throw compacted(`revision ${position.after} is not reached yet, the store is at ${latest}`);
    if (position.after >= latest) return;
    const upTo = Math.min(latest, position.after + revisionsPerTurn);
    for (const changeSet of this.#log.read(position.prefix, position.after, upTo)) {
      if (!this.#open.has(position)) return;
      position.watcher.onChanges(changeSet);
    }
    position.after = upTo;
  }

  #end(position: Position, error: Error): void {
    if (this.#open.delete(position)) position.watcher.onEnd(error);
  }
}

function compacted(message: string): NetctlError {
  return new NetctlError('STORE_COMPACTED', `${message}: read a new snapshot`);
}
