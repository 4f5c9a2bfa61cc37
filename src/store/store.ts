/**
 * The port to the store: the only shared truth, as keys and JSON values with revisions (the model of etcd's KV).
 *
 * In: reads, transactions of compares and writes, watches. Out: entries with the revision that made them. Never: a write
 * that is retried here (a retried compare-and-swap that already won would report a loss), a value half written, an event
 * skipped or repeated on one watch. One contract (test/unit/store/store-contract.ts) runs on every adapter.
 */

/**
 * Counts the committed transactions that changed something, in the whole store; 0 is the store that was never written (on etcd,
 * which others may share and which begins at 1: the revision of the cluster).
 */
export type Revision = number;

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

export interface Entry {
  readonly key: string;
  readonly value: Json;
  /** Revision that made the key (anew, if it was deleted before). */
  readonly created: Revision;
  /** Revision that last wrote it. */
  readonly modified: Revision;
}

export type Compare =
  | { readonly kind: 'absent'; readonly key: string }
  | { readonly kind: 'present'; readonly key: string }
  /** The key was last written by exactly this revision. */
  | { readonly kind: 'modified'; readonly key: string; readonly revision: Revision }
  /** No key that begins with this one was written after the revision (whether some were deleted is not asked). */
  | { readonly kind: 'unwritten'; readonly key: string; readonly revision: Revision };

export type Write =
  /** `text`: the value as JSON, from who has made it already. */
  | { readonly kind: 'put'; readonly key: string; readonly value: Json; readonly text?: string }
  | { readonly kind: 'delete'; readonly key: string };

export type TransactionResult =
  /**
   * `revision` made the change; it is the current one where nothing was to change. `overtaken`: others have changed the records since, and
   * it is an older one; who wants to know what they are reads them.
   */
  { readonly committed: true; readonly revision: Revision; readonly overtaken?: true } | Refusal;

/** Nothing was written: keys of the compares that did not hold, in their order; of `unwritten` one that was written. */
export interface Refusal {
  readonly committed: false;
  readonly failed: string;
  /** Where there are more than one; a replicated store tells of one only. */
  readonly others?: readonly string[];
}

export interface Snapshot {
  readonly revision: Revision;
  /** In the order of the keys (bytewise). */
  readonly entries: readonly Entry[];
}

/** What one transaction changed, of the watched prefix. */
export interface ChangeSet {
  readonly revision: Revision;
  /** In the order of the keys (bytewise). */
  readonly changes: readonly Change[];
}

export type Change = { readonly key: string; readonly entry: Entry | null };

export interface Watch {
  close(): void;
}

export interface Watcher {
  /** Each change set once, in the order of revisions, as long as the watch lives. */
  onChanges(changeSet: ChangeSet): void;
  /** The watch ended by itself; STORE_COMPACTED means: read a new snapshot and watch from there. */
  onEnd(error: Error): void;
}

/** Records that say something about a process while it lives, and go when it does not. Nobody decides anything from them. */
export interface Presence {
  /** The last value of a key is kept in the store as long as this process keeps running. */
  tell(key: string, value: Json): void;
  status(): PresenceStatus;
  /** The records go at once. */
  close(): Promise<void>;
}

export interface PresenceStatus {
  readonly held: boolean;
  /** Milliseconds since 1970: held, or not, since then. */
  readonly since: number;
  readonly error: string | null;
}

/** How a store stands that replicates to a cluster. */
export interface ReplicationStatus {
  readonly clusterReachable: boolean;
  /** Milliseconds since 1970 from when on it has not been; null while it is. */
  readonly since: number | null;
  readonly error: string | null;
  /** Why nothing is taken over from the cluster although it answers; an operator has to decide. */
  readonly held: string | null;
  /** Local transactions that the cluster does not have yet. */
  readonly waiting: number;
  /** Milliseconds since 1970, of the first of them. */
  readonly oldest: number | null;
  /** Changes of this process that the cluster will never have: their blocks were taken from this node meanwhile. */
  readonly dropped: number;
}

/** When a transaction is answered. */
export interface Manner {
  readonly flushed: boolean | 'soon';
}

export interface Store {
  get(key: string): Promise<Entry | null>;
  /** All keys that begin with the prefix, as of one revision (the adapter pages where it must). */
  list(prefix: string): Promise<Snapshot>;
  /**
   * All compares hold and all writes are durable, or nothing happens. A key may be written once per transaction.
   * Transactions under way together are decided in the order of the calls by a local store, in any order by etcd.
   * Deleting an absent key is allowed and changes nothing.
   * @param manner what is asked of a local store less than that: with `flushed: false` it may be lost in a power cut (in a kill before `settled`), for
   * what another store has; with `soon` the flush has begun, and `flush` tells its end: who asks may do other things meanwhile, and no
   * watch shows it before
   * @throws STORE_UNAVAILABLE when it is not known whether the transaction was carried out: read again to learn it
   */
  transact(
    compares: readonly Compare[],
    writes: readonly Write[],
    manner?: Manner,
  ): Promise<TransactionResult>;
  /** Resolves when what was committed before the call is durable. Only where that comes after the answer. @throws STORE_UNAVAILABLE */
  flush?(): Promise<void>;
  /**
   * Resolves when what was answered before the call outlives this process. Only where that comes after the answer: with `flushed: false`.
   * @throws STORE_UNAVAILABLE
   */
  settled?(): Promise<void>;
  /** Changes after the revision, from the next one on. Fails through `onEnd` with STORE_COMPACTED if they are not kept any more. */
  watch(prefix: string, after: Revision, watcher: Watcher): Watch;
  /**
   * Resolves when reads show all that was decided anywhere before the call. Only where reads may be behind is there something to do.
   * @returns a revision at which they do
   * @throws STORE_UNAVAILABLE
   */
  refresh?(): Promise<Revision>;
  close(): Promise<void>;
}
