/**
 * Follows the cluster: a snapshot is compared with the local store, both ways; from then on changes are brought down as they come.
 *
 *   starting ──snapshot compared──► live ──lost claim, other identity, gap──► starting
 *       ├─ this host was alone before: it joins, if its records go together with the cluster's
 *       └─ not the cluster we know: held, until it is that again or an operator accepts it
 *
 * In: the cluster's entries through a Syncer. Out: local writes (Mirror), differences to send (Outbox), lost claims. Never: a
 * local record deleted because the cluster was wiped, replaced or could not be read.
 */
import type { Clock, Timer } from '../lib/clock.ts';
import { NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import type { Cidr } from '../model/ip.ts';
import { keyPrefix } from '../model/keys.ts';
import type { Authority } from './authority.ts';
import { Arrivals, type Arrived } from './replicated-arrivals.ts';
import { differencesDown, differencesUp, isDefended } from './replicated-compare.ts';
import { type Fence, fenceState } from './replicated-fence.ts';
import { foundCluster, idOf, reasonToHold } from './replicated-identity.ts';
import { join } from './replicated-join.ts';
import { planLoss, purgeLost } from './replicated-loss.ts';
import { type ClusterChange, clusterIdKey, type Mirror, writeOf } from './replicated-mirror.ts';
import type { Outbox } from './replicated-outbox.ts';
import { bounded, type Signal } from './replicated-wait.ts';
import type { Change, Entry, Revision, Snapshot, Store, Write } from './store.ts';
import { Syncer, type SyncStatus } from './syncer.ts';

export interface LostClaims {
  readonly blocks: readonly Cidr[];
  /** Keys of the endpoints that had an address in them and were dropped. */
  readonly endpoints: readonly string[];
}

export interface SessionParts {
  readonly local: Store;
  readonly cluster: Store;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
  readonly authority: Authority;
  readonly outbox: Outbox;
  readonly mirror: Mirror;
  readonly fence: Fence;
  readonly signal: Signal;
  /** One thing at a time: sending to the cluster, deciding there, bringing down. */
  exclusively<T>(task: () => Promise<T>): Promise<T>;
  /** Keys of a decision that the local store does not show yet: the cluster's word is the last. */
  isDecidedThere(key: string): boolean;
  /** Blocks that a decision under way may give away: not this node's own until that is known. */
  yielded(): readonly Cidr[];
  acceptCluster: boolean;
  /** When the cluster last said anything, by the monotonic clock. */
  heardAt: number;
  /** Identity of the cluster that the local store is a picture of. */
  clusterId: string | null;
  /** The log does not have all that waits. */
  gap: boolean;
  onLostClaims(lost: LostClaims): void;
  onLive(): void;
  /** The cluster answers again; the mirror may still be behind. */
  onReachable(): void;
  /** What an earlier process noted as shown. */
  readonly shown: Revision;
}

export type Mode =
  | { readonly kind: 'starting' | 'live' }
  | { readonly kind: 'held'; readonly reason: string };

const restartPauseMilliseconds = 500;

export class Session {
  readonly #parts: SessionParts;
  #mode: Mode = { kind: 'starting' };
  #syncer: Syncer | null = null;
  #sync: SyncStatus;
  #queue: { changes: readonly Change[]; revision: Revision }[] = [];
  #mirrored: Revision;
  /** Local revision that brought down the last of it. */
  #brought: Revision = 0;
  readonly #arrivals: Arrivals;
  #restartedAt = Number.NEGATIVE_INFINITY;
  #timer: Timer | null = null;
  #stopped = false;

  constructor(parts: SessionParts) {
    this.#parts = parts;
    this.#mirrored = parts.shown;
    this.#arrivals = new Arrivals(parts.local);
    this.#sync = { inSync: false, since: parts.clock.now(), reason: 'the cluster is not read yet' };
  }

  get mode(): Mode {
    return this.#mode;
  }

  /** Cluster's revision that the local store shows. */
  get mirrored(): Revision {
    return this.#mirrored;
  }

  get sync(): SyncStatus {
    return this.#sync;
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    this.#syncer?.stop();
  }

  /** Reads a new snapshot; at once, unless it did so a moment ago. */
  restart(): void {
    if (this.#stopped) return;
    this.#syncer?.stop();
    this.#syncer = null;
    this.#queue = [];
    this.#mode = { kind: 'starting' };
    this.#timer?.cancel();
    const { clock } = this.#parts;
    const isFrequent = clock.monotonic() - this.#restartedAt < restartPauseMilliseconds;
    this.#restartedAt = clock.monotonic();
    if (isFrequent) this.#timer = clock.setTimer(restartPauseMilliseconds, () => this.#begin());
    else this.#begin();
  }

  #begin(): void {
    const { cluster, clock, random } = this.#parts;
    let first: { entries: readonly Entry[]; revision: Revision } | null = { entries: [], revision: 0 };
    const syncer: Syncer = new Syncer({
      store: cluster,
      prefix: '',
      clock,
      random,
      listener: {
        onUpdates: (changes, revision) => {
          this.#parts.heardAt = clock.monotonic();
          if (first !== null) {
            first = { entries: changes.flatMap(({ entry }) => entry ?? []), revision };
            return;
          }
          this.#queue.push({ changes, revision });
          if (this.#queue.length === 1) this.#run(syncer, () => this.#follow());
        },
        onInSync: () => {
          const snapshot = first!;
          first = null;
          this.#run(syncer, () => this.#adopt(snapshot));
        },
        onStatus: (status) => {
          // A new beginning does not make an old trouble younger.
          this.#sync = status.inSync || this.#sync.inSync ? status : { ...status, since: this.#sync.since };
          this.#parts.signal.notify();
          if (status.inSync) this.#parts.onReachable();
        },
      },
    });
    this.#syncer = syncer;
  }

  /** What a session began is nothing to the next one. */
  #run(syncer: Syncer, task: () => Promise<void>): void {
    const isCurrent = (): boolean => !this.#stopped && this.#syncer === syncer;
    this.#parts
      .exclusively(async () => {
        // The constructor of the syncer never calls in its own turn; `this.#syncer` is set by now.
        if (isCurrent()) await task();
      })
      .catch((error: unknown) => {
        if (!isCurrent()) return;
        this.#parts.logger.warn({ error: String(error) }, 'mirror: failed, reading the cluster anew');
        this.restart();
      })
      .finally(() => this.#parts.signal.notify());
  }

  async #adopt(snapshot: Snapshot): Promise<void> {
    const parts = this.#parts;
    const { local, outbox, mirror, fence } = parts;
    const cluster = new Map(snapshot.entries.map((entry) => [entry.key, entry]));
    if (snapshot.revision < fence.revision) {
      if (!(await this.#clusterWentBack())) return this.restart();
      parts.gap = true;
    }
    const id = idOf(cluster.get(clusterIdKey));
    const held = await reasonToHold(parts, id, cluster.get(fence.key) ?? null);
    const isRefused = held !== null && !parts.acceptCluster;
    if (isRefused && parts.clusterId !== null) return this.#hold(held);
    if (id === null) {
      await foundCluster(parts);
      this.#restartedAt = Number.NEGATIVE_INFINITY;
      return this.restart();
    }
    if (isRefused) {
      // By the identity that is noted the next start knows its own traces in the cluster.
      await local.transact([], [mirror.noteWrite()]);
      const refusal = await join(parts, cluster);
      if (refusal !== null) return refusal === 'again' ? this.restart() : this.#hold(refusal);
      // All that the cluster decides about is there; the rest is this node's own, and compared.
      parts.clusterId = id;
      parts.gap = true;
      return this.#adopt(snapshot);
    }

    mirror.reset(snapshot.entries);
    const lost = mirror.lost();
    // From here on, no local transaction is decided in such a block; those before are waited for.
    for (const block of mirror.ceded()) mirror.own.delete(block);
    const place = await this.#barrier([mirror.noteWrite()]);
    const isOldCopy = this.#takeProgress(cluster.get(fence.key) ?? null, place);
    const takesOver = isOldCopy || held !== null;
    if (takesOver) {
      parts.gap = false;
      parts.acceptCluster = false;
      outbox.skip(place);
    }
    purgeLost(parts);

    const before = await local.list('');
    const here = new Map(before.entries.map((entry) => [entry.key, entry]));
    if (parts.gap) outbox.clear(before.revision);
    if (!takesOver)
      outbox.addCompared(differencesUp(this.#parts, here, cluster, id), place, parts.clock.now());
    parts.gap = false;
    const dropped = lost.length === 0 ? [] : await this.#drop(lost, before.entries);

    parts.clusterId = id;
    await mirror.bring(differencesDown(here, cluster), snapshot.revision);
    await local.transact([], [mirror.noteWrite(snapshot.revision)]);
    if (takesOver) await this.#tellCursor(outbox.sent);
    const claims = await local.list(keyPrefix.block);
    for (const { key, value, modified } of claims.entries) mirror.noteClaim(key, value, modified);
    for (const block of parts.yielded()) mirror.own.delete(block);
    this.#mirrored = snapshot.revision;
    fence.shown(snapshot.revision);
    this.#brought = claims.revision;
    await this.#arrivals.arrive(snapshot.revision, null, this.#brought);
    this.#mode = { kind: 'live' };
    if (lost.length > 0) this.#report(lost, dropped);
    parts.onLive();
  }

  /** Takes over the cluster's cursor. True if it is ahead of this store, which then is an old copy of the one it was. */
  #takeProgress(entry: Entry | null, latest: Revision): boolean {
    const parts = this.#parts;
    const { fence, outbox, logger } = parts;
    const state = entry === null ? null : fenceState(entry.value);
    fence.adopt(entry);
    if (state === null || state.store !== fence.store) {
      // Removed together with the node, or lost in a cluster that was put back from a copy.
      if (parts.clusterId !== null) parts.gap = true;
      return false;
    }
    if (state.sent > latest) {
      logger.error(
        { sent: state.sent, latest },
        'the local store is an old copy: taking over what the cluster has',
      );
      return true;
    }
    if (state.sent < outbox.sent) parts.gap = true;
    else outbox.acknowledge(state);
    return false;
  }

  async #follow(): Promise<void> {
    const { mirror, fence, outbox } = this.#parts;
    const queued = this.#queue.splice(0, this.#upToExpected());
    if (this.#queue.length > 0) this.#run(this.#syncer!, () => this.#follow());
    const revision = queued.at(-1)!.revision;
    const changes = queued.flatMap((one) =>
      one.changes.map(
        ({ key, entry }): ClusterChange => ({ key, entry, revision: entry?.modified ?? one.revision }),
      ),
    );
    const identity = changes.findLast(({ key }) => key === clusterIdKey);
    const fenced = changes.findLast(({ key }) => key === fence.key)?.entry;
    if (this.#mode.kind !== 'live') {
      if (identity !== undefined || fenced !== undefined) this.restart();
      return;
    }
    const wentBack = queued.some((one) => one.revision < this.#mirrored);
    const isOther = identity !== undefined && idOf(identity.entry) !== this.#parts.clusterId;
    if (wentBack || isOther || fenced === null) return this.restart();
    if (fenced !== undefined && fenced.modified > fence.revision) {
      const state = fenceState(fenced.value);
      if (state?.store !== fence.store) return this.restart();
      fence.adopt(fenced);
      outbox.acknowledge(state);
    }
    const news = lastOfEachKey(mirror.learn(changes));
    const hasLost = mirror.lost().length > 0 || mirror.ceded().length > 0;
    if (hasLost || (await this.#lacksOurs(news))) return this.restart();
    // What we wrote ourselves is neither read nor made into text once more.
    const written = this.#arrivals.writesOf(revision);
    const differences = news.map((change) => written?.get(change.key) ?? writeOf(change));
    const brought = await mirror.bring(differences, revision, written);
    this.#mirrored = revision;
    fence.shown(revision);
    if (brought !== null) this.#brought = brought;
    await this.#arrivals.arrive(revision, brought, this.#brought);
    // A kill would undo it, and the fence of what is sent next does not name it any more.
    await this.#parts.local.settled?.();
  }

  /**
   * To be called within the cluster's turn that made the revision: resolves when it is in the local store, and with it all that
   * the cluster decided before.
   */
  arrival(revision: Revision, writes: readonly Write[]): Promise<Arrived> {
    return this.#arrivals.of(revision, writes, this.#parts.outbox.seen);
  }

  /** How many of the queued change sets go together: what is waited for is the last of its transaction. */
  #upToExpected(): number {
    const { next } = this.#arrivals;
    const index = this.#queue.findIndex(({ revision }) => revision >= next);
    return index === -1 ? this.#queue.length : index + 1;
  }

  /** True if somebody else deleted a record of which this node has the say. */
  async #lacksOurs(changes: readonly ClusterChange[]): Promise<boolean> {
    for (const { key, entry } of changes) {
      if (entry === null && isDefended(this.#parts, key) && (await this.#parts.local.get(key)) !== null)
        return true;
    }
    return false;
  }

  #hold(reason: string): void {
    this.#mode = { kind: 'held', reason };
    this.#parts.logger.error(
      { reason },
      'cluster: held, nothing is taken over from it until it is right again or an operator accepts it',
    );
  }

  async #clusterWentBack(): Promise<boolean> {
    const { fence } = this.#parts;
    const entry = await bounded(this.#parts.clock, (deadline) => fence.read(deadline));
    return entry === null || entry.modified < fence.revision;
  }

  async #tellCursor(sent: Revision): Promise<void> {
    const outcome = await bounded(this.#parts.clock, (deadline) =>
      this.#parts.fence.send([], [], { sent, done: 0 }, [], deadline),
    );
    if (outcome.kind !== 'committed')
      throw new NetctlError('STORE_UNAVAILABLE', 'the cluster did not take our cursor');
  }

  /** Resolves when all that was handed to the local store before is decided and in the outbox. */
  async #barrier(writes: readonly Write[] = []): Promise<Revision> {
    const { local, outbox, signal } = this.#parts;
    const result = await local.transact([], writes);
    const revision = result.committed ? result.revision : 0;
    await signal.until(() => outbox.seen >= revision || this.#stopped);
    return revision;
  }

  /** Drops the endpoints that had addresses in the blocks; the addresses and claims go with what the cluster says. */
  async #drop(lost: readonly Cidr[], entries: readonly Entry[]): Promise<string[]> {
    const { local, authority, outbox, mirror, clock } = this.#parts;
    const plan = planLoss(lost, entries, authority, mirror.own, new Date(clock.now()));
    if (plan.writes.length === 0) return plan.endpoints;
    const settle = outbox.submitting(plan.writes);
    let revision: Revision | null = null;
    try {
      const result = await local.transact(plan.compares, plan.writes);
      if (!result.committed)
        throw new NetctlError('TRY_AGAIN', `${result.failed} changed while its block was lost`);
      revision = result.revision;
    } finally {
      settle(revision);
    }
    return plan.endpoints;
  }

  #report(blocks: readonly Cidr[], endpoints: readonly string[]): void {
    const { logger, onLostClaims } = this.#parts;
    logger.error({ blocks, endpoints }, 'claims of this node are gone: their endpoints are dropped');
    onLostClaims({ blocks, endpoints });
  }
}

function lastOfEachKey(changes: readonly ClusterChange[]): ClusterChange[] {
  return [...new Map(changes.map((change) => [change.key, change])).values()];
}
