/**
 * Follows a prefix of the store: a snapshot and a watch become updates `{key, entry | null}` and one in-sync signal.
 *
 * In: a store. Out: the keys that differ from what was said before; null means gone. What was said, taken together, is always
 * a state that the store had. Never: in-sync before a whole snapshot was handed out; a key reported gone because the store
 * could not be read; an update after `stop`.
 */
import type { Clock, Timer } from '../lib/clock.ts';
import type { Change, ChangeSet, Revision, Snapshot, Store, Watch } from './store.ts';

export type SyncStatus =
  | { readonly inSync: true }
  /** `since`: milliseconds since 1970, of the first failure (or the start) that it has not recovered from. */
  | { readonly inSync: false; readonly since: number; readonly reason: string };

export interface SyncListener {
  /**
   * Changes of one transaction, or the differences to a new snapshot, are one call.
   * @param revision the store's, once these are applied
   */
  onUpdates(updates: readonly Change[], revision: Revision): void;
  /** Once, after the updates of the first snapshot. */
  onInSync(): void;
  onStatus(status: SyncStatus): void;
}

export interface SyncerOptions {
  readonly store: Store;
  readonly prefix: string;
  readonly clock: Clock;
  readonly listener: SyncListener;
  /** 0 to 1, spreads the retries of many agents. */
  readonly random?: () => number;
}

const firstDelayMilliseconds = 100;
const longestDelayMilliseconds = 10_000;

export class Syncer {
  readonly #options: Required<SyncerOptions>;
  /** What was said and not taken back, by the revision that wrote it. Values are not kept: the listener has them. */
  readonly #said = new Map<string, Revision>();
  #saidRevision: Revision = 0;
  #signalled = false;
  #status: SyncStatus;
  #watch: Watch | null = null;
  #watchingSince = 0;
  #timer: Timer | null = null;
  #failures = 0;
  #stopped = false;

  /** Begins at once; the first call to the listener is its status. */
  constructor(options: SyncerOptions) {
    this.#options = { random: Math.random, ...options };
    this.#status = {
      inSync: false,
      since: options.clock.now(),
      reason: 'the first snapshot is not read yet',
    };
    options.listener.onStatus(this.#status);
    void this.#start();
  }

  status(): SyncStatus {
    return this.#status;
  }

  stop(): void {
    this.#stopped = true;
    this.#watch?.close();
    this.#timer?.cancel();
  }

  async #start(): Promise<void> {
    const { store, prefix } = this.#options;
    try {
      const snapshot = await store.list(prefix);
      if (this.#stopped) return;
      this.#say(this.#differences(snapshot), snapshot.revision);
      if (!this.#stopped) this.#follow(snapshot);
    } catch (error) {
      this.#retry(error as Error);
    }
  }

  #follow({ revision }: Snapshot): void {
    const { store, prefix, clock, listener } = this.#options;
    this.#watchingSince = clock.now();
    this.#watch = store.watch(prefix, revision, {
      onChanges: (changeSet) => this.#sayChanges(changeSet),
      onEnd: (error) => this.#retry(error),
    });
    this.#status = { inSync: true };
    listener.onStatus(this.#status);
    if (this.#signalled || this.#stopped) return;
    listener.onInSync();
    this.#signalled = true;
  }

  /** A watch that held for long ends the series of failures; one that ends again and again does not. */
  #retry(error: Error): void {
    if (this.#stopped) return;
    const { clock, listener, random } = this.#options;
    this.#watch?.close();
    if (this.#status.inSync && clock.now() - this.#watchingSince >= longestDelayMilliseconds)
      this.#failures = 0;
    const delay = Math.min(firstDelayMilliseconds * 2 ** this.#failures, longestDelayMilliseconds);
    this.#failures += 1;
    const since = this.#status.inSync ? clock.now() : this.#status.since;
    this.#status = { inSync: false, since, reason: error.message };
    this.#timer = clock.setTimer(delay * (0.5 + random() / 2), () => void this.#start());
    listener.onStatus(this.#status);
  }

  #differences({ revision, entries }: Snapshot): Change[] {
    const wentBack = revision < this.#saidRevision;
    const present = new Set(entries.map((entry) => entry.key));
    const gone = [...this.#said.keys()]
      .filter((key) => !present.has(key))
      .map((key) => ({ key, entry: null }));
    // A store that was put back from a copy gives the same revisions to other values.
    const changed = entries.filter(({ key, modified }) => wentBack || this.#said.get(key) !== modified);
    return [...gone, ...changed.map((entry) => ({ key: entry.key, entry }))];
  }

  #sayChanges({ revision, changes }: ChangeSet): void {
    if (this.#stopped) return;
    this.#say(changes, revision);
  }

  /** Counted as said only when the listener took it: what it threw at is said again after the next snapshot. */
  #say(changes: readonly Change[], revision: Revision): void {
    if (changes.length > 0) this.#options.listener.onUpdates(changes, revision);
    for (const { key, entry } of changes) {
      if (entry) this.#said.set(key, entry.modified);
      else this.#said.delete(key);
    }
    this.#saidRevision = revision;
  }
}
