/**
 * The store of an agent in a cluster: local first (DESIGN.md, "Store"; docs/decisions/0011-local-first.md).
 *
 *   transact ─┬─ only records of this node ──► local store ──► answer, and by its log ► Outbox ──batches──► cluster
 *             └─ anything else ──► (what waits about its keys is sent first) ──► one cluster transaction ──► Mirror ──► local store
 *   cluster ──► Session (snapshot, watch) ──► Mirror ──► local store ──► get, list, watch
 *
 * In: the calls of the port; the local store and the cluster's as ports. Out: their answers, with local revisions only; status,
 * lost claims. Never: a record of this node that waits for the cluster; a cluster's record decided here; a change of this node
 * lost, twice or out of order in the cluster.
 */
import { randomUUID } from 'node:crypto';
import type { Clock, Timer } from '../lib/clock.ts';
import { asNetctlError, NetctlError } from '../lib/errors.ts';
import { KeyedQueue } from '../lib/keyed-queue.ts';
import type { Logger } from '../lib/logger.ts';
import type { Cidr } from '../model/ip.ts';
import { blockKey, keyPrefix } from '../model/keys.ts';
import { Authority, blockOfClaimKey } from './authority.ts';
import { closed, Decisions, yieldedKey } from './replicated-decisions.ts';
import { Fence } from './replicated-fence.ts';
import { Locks } from './replicated-locks.ts';
import { isMirrored, Mirror, type Note, noteKey } from './replicated-mirror.ts';
import { Outbox } from './replicated-outbox.ts';
import { Sender } from './replicated-sender.ts';
import { type LostClaims, Session, type SessionParts } from './replicated-session.ts';
import { type ConnectionStatus, replicationStatus } from './replicated-status.ts';
import { Signal } from './replicated-wait.ts';
import type {
  Compare,
  Entry,
  Json,
  Manner,
  ReplicationStatus,
  Revision,
  Snapshot,
  Store,
  TransactionResult,
  Watch,
  Watcher,
  Write,
} from './store.ts';
import { encodeWrites } from './transaction.ts';

export interface ReplicatedOptions {
  readonly node: string;
  /** Owned from now on, as is the cluster's: `close` closes both. */
  readonly local: Store;
  readonly cluster: Store;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Whether there is a way to the cluster; a watch that nothing happens on does not notice for long. */
  readonly connection?: () => ConnectionStatus;
  /** Claims that the cluster does not have any more: their records are dropped already. Called once per loss and process. */
  readonly onLostClaims?: (lost: LostClaims) => void;
  /** Take over a cluster that is not the one this store is a picture of (wiped, replaced, another): once. */
  readonly acceptCluster?: boolean;
  /** 0 to 1, spreads the retries of many agents. */
  readonly random?: () => number;
  /** Transactions kept in memory for replication; with more, states are compared instead. */
  readonly mostWaiting?: number;
  /** How long the node's own changes wait for more of them before they are sent to the cluster (0). */
  readonly gatherMilliseconds?: number;
  /** How long the cluster may say nothing before a caller is refused (3,000); one that answers slowly has ten times that. */
  readonly patienceMilliseconds?: number;
}

/** What a node's writes rest on. */
interface Standing {
  /** The node decides about all of them alone. */
  readonly isOwn: boolean;
  /** That the claims are still there which make them so. */
  readonly compares: readonly Compare[];
  /** Claims of this node that they are about. */
  readonly claims: readonly Cidr[];
}

const noteDelayMilliseconds = 1000;
const feedPauseMilliseconds = 100;

export class ReplicatedStore implements Store {
  readonly #options: ReplicatedOptions;
  readonly #local: Store;
  readonly #authority: Authority;
  readonly #outbox: Outbox;
  readonly #mirror: Mirror;
  readonly #fence: Fence;
  readonly #session: Session;
  readonly #sender: Sender;
  readonly #decisions: Decisions;
  readonly #state: SessionParts;
  readonly #signal = new Signal();
  readonly #locks = new Locks();
  readonly #queue = new KeyedQueue();
  readonly #mostWaiting: number;
  /** Local revisions up to here were there at the start; how old they are is not known. */
  readonly #openedAt: Revision;
  readonly #notedAt: number;
  #feed: Watch | null = null;
  #feedTimer: Timer | null = null;
  #noteTimer: Timer | null = null;
  #forgotten = 0;
  #closed = false;

  /** Reads where the replication stood; works without the cluster. @throws STORE_UNAVAILABLE of the local store */
  static async open(options: ReplicatedOptions): Promise<ReplicatedStore> {
    const note = (await options.local.get(noteKey))?.value as unknown as Note | undefined;
    const blocks = await options.local.list(keyPrefix.block);
    const yielded = (await options.local.get(yieldedKey))?.value as Cidr[] | undefined;
    const store = new ReplicatedStore(options, note ?? null, blocks, yielded ?? []);
    return store.#readLog(note);
  }

  private constructor(
    options: ReplicatedOptions,
    note: Note | null,
    blocks: Snapshot,
    yielded: readonly Cidr[],
  ) {
    const { node, local, cluster, clock, logger } = options;
    this.#options = options;
    this.#local = local;
    this.#openedAt = blocks.revision;
    this.#notedAt = note?.at ?? clock.now();
    this.#mostWaiting = options.mostWaiting ?? 10_000;
    const identity = note?.store ?? randomUUID();
    this.#authority = new Authority(node);
    this.#outbox = new Outbox(note?.cursor ?? 0, note?.sent ?? 0);
    this.#fence = new Fence(cluster, clock, node, identity, randomUUID(), note?.shown ?? 0);
    const hasGap = (): boolean => this.#state.gap;
    this.#mirror = new Mirror(local, this.#authority, this.#outbox, () => this.#note(), hasGap);
    for (const { key, value, modified } of blocks.entries) this.#mirror.noteClaim(key, value, modified);
    // Somebody else may have had them since: until the cluster says so, they are not ours.
    for (const block of yielded) this.#mirror.own.delete(block);
    if (yielded.length > 0) this.#locks.add(yielded.map(blockKey), yielded, true);
    this.#state = {
      local,
      cluster,
      clock,
      logger,
      random: options.random ?? Math.random,
      authority: this.#authority,
      outbox: this.#outbox,
      mirror: this.#mirror,
      fence: this.#fence,
      signal: this.#signal,
      exclusively: (task) => this.#queue.run('cluster', task),
      isDecidedThere: (key) => this.#locks.isDecidedThere(key) || this.#fence.isDecided(key),
      yielded: () => this.#locks.yielded(),
      acceptCluster: options.acceptCluster ?? false,
      heardAt: clock.monotonic(),
      clusterId: note?.cluster ?? null,
      shown: note?.shown ?? 0,
      gap: note?.compare ?? false,
      onLostClaims: (lost) => options.onLostClaims?.(lost),
      onLive: () => this.#onLive(),
      onReachable: () => this.#sender.wakeNow(),
    };
    this.#session = new Session(this.#state);
    this.#sender = new Sender(
      this.#state,
      this.#session,
      this.#locks,
      () => this.#noteLater(),
      options.gatherMilliseconds ?? 0,
    );
    this.#decisions = new Decisions(
      this.#state,
      this.#session,
      this.#sender,
      this.#locks,
      () => this.status(),
      options.patienceMilliseconds ?? 3000,
    );
    this.#follow(note?.cursor ?? 0);
    this.#session.restart();
  }

  get(key: string): Promise<Entry | null> {
    return this.#local.get(key);
  }

  list(prefix: string): Promise<Snapshot> {
    return this.#local.list(prefix);
  }

  watch(prefix: string, after: Revision, watcher: Watcher): Watch {
    return this.#local.watch(prefix, after, watcher);
  }

  /** @throws STORE_UNAVAILABLE within 3 s where the cluster has to decide and cannot be asked, or its answer got lost */
  async transact(
    compares: readonly Compare[],
    writes: readonly Write[],
    manner?: Manner,
  ): Promise<TransactionResult> {
    if (this.#closed) throw closed();
    for (const { key } of writes) {
      if (!isMirrored(key) && !this.#isFenceOfAnother(key))
        throw new NetctlError('BUG', `the key ${key} is the replication's own`);
    }
    const standing = this.#standing(writes);
    if (standing.isOwn) return this.#decideHere(compares, writes, standing, manner);
    return this.#decisions.decide([...compares, ...standing.compares], encodeWrites(writes), standing.claims);
  }

  async flush(): Promise<void> {
    await this.#local.flush?.();
  }

  /** @throws STORE_UNAVAILABLE within 3 s where the cluster cannot be asked */
  async refresh(): Promise<Revision> {
    if (this.#closed) throw closed();
    // A transaction of nothing but our fence: its arrival here is after all that was decided before it.
    const result = await this.#decisions.decide([], [], []);
    if (!result.committed) throw new NetctlError('BUG', 'a transaction without compares was refused');
    return result.revision;
  }

  status(): ReplicationStatus {
    const connection = this.#options.connection?.() ?? null;
    return replicationStatus(this.#session, this.#sender, this.#outbox, this.#forgotten, connection);
  }

  /** The operator's word that the cluster is right as it is, though it is not the one that was known. */
  acceptCluster(): void {
    this.#state.acceptCluster = true;
    if (this.#session.mode.kind === 'held') this.#session.restart();
  }

  /** What waits for replication stays in the local store for the next start. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#session.stop();
    this.#sender.stop();
    this.#feed?.close();
    this.#feedTimer?.cancel();
    this.#noteTimer?.cancel();
    this.#decisions.stop();
    await Promise.all([this.#options.cluster.close(), this.#local.close()]);
  }

  /** Decided by the local store alone; the claims that make the records ours are compared with the rest. */
  async #decideHere(
    compares: readonly Compare[],
    writes: readonly Write[],
    standing: Standing,
    manner: Manner | undefined,
  ): Promise<TransactionResult> {
    const touched = [...compares, ...writes].map(({ key }) => key);
    if (this.#locks.conflict(touched) !== null) {
      await this.#decisions.unlocked(touched);
      return this.transact(compares, writes, manner);
    }
    const encoded = encodeWrites(writes);
    const settle = this.#outbox.submitting(encoded);
    let revision: Revision | null = null;
    try {
      const result = await this.#local.transact([...compares, ...standing.compares], encoded, manner);
      if (!result.committed) return result;
      revision = result.revision;
      for (const claim of standing.claims) this.#mirror.own.delete(claim);
      return result;
    } finally {
      settle(revision);
    }
  }

  /** A node that is removed loses its fence first, so that nothing that it has under way arrives any more. */
  #isFenceOfAnother(key: string): boolean {
    return key.startsWith('replication/') && key !== this.#fence.key;
  }

  #standing(writes: readonly Write[]): Standing {
    const { own } = this.#mirror;
    const claims: Cidr[] = [];
    const blocks = new Set<Cidr>();
    let isOwn = true;
    for (const { kind, key } of writes) {
      const claim = blockOfClaimKey(key);
      const isClaim = claim !== null && own.get(claim) !== undefined;
      const block = isClaim ? claim : this.#authority.blockOf(key, own);
      if (isClaim) claims.push(claim);
      if (block !== null) blocks.add(block);
      isOwn &&= isClaim ? kind === 'delete' : block !== null || this.#authority.isOwnByName(key);
    }
    const compares = [...blocks].map(
      (block): Compare => ({ kind: 'modified', key: blockKey(block), revision: own.get(block)! }),
    );
    return { isOwn, compares, claims };
  }

  /** The local log is the outbox: its watch feeds it, after a restart from the cursor on. */
  #follow(after: Revision): void {
    this.#feed = this.#local.watch('', after, {
      onChanges: (changeSet) => {
        const at = changeSet.revision <= this.#openedAt ? this.#notedAt : this.#options.clock.now();
        if (this.#outbox.feed(changeSet, at)) {
          this.#fence.said(changeSet);
          if (this.#outbox.size > this.#mostWaiting) this.#forget();
        }
        this.#signal.notify();
        this.#sender.wake();
      },
      onEnd: (error) => {
        if (this.#closed) return;
        const again = (): void => this.#follow(this.#outbox.seen);
        if (asNetctlError(error).code === 'STORE_COMPACTED') void this.#refollow();
        else this.#feedTimer = this.#options.clock.setTimer(feedPauseMilliseconds, again);
      },
    });
  }

  /** Before the node says anything new, it is known what it had said, or that the log does not tell. */
  async #readLog(note: Note = this.#note()): Promise<this> {
    const mark: Write = { kind: 'put', key: noteKey, value: note as unknown as Json };
    const result = await this.#local.transact([], [mark]).catch(() => null);
    const revision = result?.committed ? result.revision : 0;
    await this.#signal.until(() => this.#closed || this.#outbox.seen >= revision);
    return this;
  }

  /** The log does not reach back to where the feed was. */
  async #refollow(): Promise<void> {
    try {
      const { revision } = await this.#local.list(noteKey);
      if (this.#closed) return;
      this.#outbox.seenUpTo(revision);
      this.#forget();
      this.#follow(revision);
      this.#signal.notify();
      // The next process reads the log from here on, too.
      await this.#local.transact([], [this.#mirror.noteWrite()]);
    } catch (error) {
      if (!this.#closed) this.#options.logger.error({ error: String(error) }, 'the local log cannot be read');
    }
  }

  /** From here on, states are compared: what waits is more than is kept. */
  #forget(): void {
    this.#forgotten += Math.max(1, this.#outbox.size);
    this.#state.gap = true;
    this.#outbox.clear(this.#outbox.seen);
    this.#session.restart();
  }

  #onLive(): void {
    this.#forgotten = 0;
    if (this.#locks.settle()) this.#decisions.settled();
    this.#sender.wakeNow();
    this.#signal.notify();
  }

  #note(): Note {
    return {
      store: this.#fence.store,
      cluster: this.#state.clusterId,
      cursor: this.#outbox.cursor,
      sent: this.#outbox.sent,
      compare: this.#state.gap || this.#outbox.hasCompared,
      shown: this.#session.mirrored,
      at: this.#outbox.oldest ?? this.#options.clock.now(),
    };
  }

  /** The cluster's record is the truth about progress; ours only shortens the way after a restart. */
  #noteLater(): void {
    if (this.#closed) return;
    this.#noteTimer ??= this.#options.clock.setTimer(noteDelayMilliseconds, () => {
      this.#noteTimer = null;
      this.#local.transact([], [this.#mirror.noteWrite()]).catch((error: unknown) => {
        this.#options.logger.warn({ error: String(error) }, 'progress of replication could not be noted');
      });
    });
  }
}
