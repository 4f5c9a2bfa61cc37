/**
 * Sends to the cluster: the outbox in batches, and one decision at a time, all under the node's fence.
 *
 * In: the outbox, transactions that the cluster has to decide. Out: the cluster's transactions; what it decided, in the local store.
 * Never: a write into a block whose claim is not ours in the same transaction; a retry without a pause.
 */
import { NetctlError } from '../lib/errors.ts';
import type { Cidr } from '../model/ip.ts';
import { blockKey } from '../model/keys.ts';
import { addressOfKey, blockOfClaimKey } from './authority.ts';
import type { Arrived } from './replicated-arrivals.ts';
import type { Outcome } from './replicated-fence.ts';
import { Group } from './replicated-group.ts';
import type { Lock, Locks } from './replicated-locks.ts';
import { notReplicated } from './replicated-loss.ts';
import type { Progress } from './replicated-outbox.ts';
import type { Session, SessionParts } from './replicated-session.ts';
import { Deadline } from './replicated-wait.ts';
import type { Compare, Revision, Write } from './store.ts';
import { isAbout } from './transaction.ts';

/** What the cluster has to decide, and who waits for it. */
export interface DecisionRequest {
  readonly compares: readonly Compare[];
  readonly writes: readonly Write[];
  readonly lock: Lock;
  readonly deadline: Deadline;
}

export type Decision =
  /** `arrived`: when it and all that was decided before it is in the local store. */
  | { readonly committed: true; readonly arrived: Promise<Arrived> }
  | { readonly committed: false; readonly failed: string; isVisible(): boolean };

export interface Fault {
  readonly since: number;
  readonly error: string;
}

interface Pause {
  readonly ended: Promise<void>;
  end(): void;
}

const batchMilliseconds = 3000;
const mostGatherings = 3;
const firstDelayMilliseconds = 100;
const longestDelayMilliseconds = 10_000;

export class Sender {
  readonly #parts: SessionParts;
  readonly #session: Session;
  readonly #locks: Locks;
  readonly #onProgress: () => void;
  readonly #gatherMilliseconds: number;
  #fault: Fault | null = null;
  #running = false;
  #failures = 0;
  #pause: Pause | null = null;
  #gathering: Pause | null = null;
  #stopped = false;

  /** @param gatherMilliseconds how long what no decision waits for waits for more, so that there are fewer and larger batches */
  constructor(
    parts: SessionParts,
    session: Session,
    locks: Locks,
    onProgress: () => void,
    gatherMilliseconds: number,
  ) {
    this.#parts = parts;
    this.#session = session;
    this.#locks = locks;
    this.#onProgress = onProgress;
    this.#gatherMilliseconds = gatherMilliseconds;
  }

  /** What keeps it from sending, since when; null: nothing known. */
  get fault(): Fault | null {
    return this.#fault;
  }

  stop(): void {
    this.#stopped = true;
    this.#pause?.end();
    this.#gathering?.end();
  }

  /** To be called when there may be something to send. */
  wake(): void {
    if (this.#running || this.#stopped || !this.#hasWork()) return;
    this.#running = true;
    void this.#work().finally(() => {
      this.#running = false;
      this.wake();
    });
  }

  /** To be called when a decision waits: what it waits for does not wait for more. */
  hurry(): void {
    this.#gathering?.end();
  }

  /** The same, without waiting for the end of a pause. */
  wakeNow(): void {
    this.#succeed();
    this.#pause?.end();
    this.wake();
  }

  /**
   * As many of them as do not depend on each other, as one transaction of the cluster. What it made comes into the local store by the
   * watch, after all that was decided before it.
   * @returns for each its decision; null: it was not sent; an error: STORE_UNAVAILABLE when its outcome is not known (the lock
   *   ends when it is), or as the cluster refused it
   */
  async decide(requests: readonly DecisionRequest[]): Promise<(Decision | Error | null)[]> {
    const answers = new Map<DecisionRequest, Decision | Error>();
    const group = new Group<DecisionRequest>();
    const others = new Map<DecisionRequest, readonly Compare[]>();
    for (const request of requests) {
      const translated = await this.#translate(request.compares);
      if ('committed' in translated) answers.set(request, translated);
      else if (!group.add(request, translated, request.writes)) others.set(request, translated);
    }
    while (group.tags.length > 0) {
      const outcome = await this.#decideTogether(group);
      if (outcome.kind === 'failed') {
        for (const key of outcome.keys) {
          const compare = group.compares.find((one) => isAbout(one, key));
          for (const request of group.lose(key)) answers.set(request, this.#lost(compare!, key));
        }
        continue;
      }
      const answer = this.#answer(group, outcome);
      for (const request of group.tags) answers.set(request, answer);
      if (outcome.kind === 'committed') this.#refute(group, others, answers);
      break;
    }
    return requests.map((request) => answers.get(request) ?? null);
  }

  /** The locks say where their records are: in the hands of the cluster, or with an outcome that is not known. */
  async #decideTogether(group: Group<DecisionRequest>): Promise<Outcome> {
    const locks = group.tags.map(({ lock }) => lock);
    for (const lock of locks) lock.sent = true;
    let outcome: Outcome | null = null;
    try {
      outcome = await this.#send(group.compares, group.writes, group.tags.at(-1)!.deadline);
      return outcome;
    } finally {
      for (const lock of locks) {
        // Committed: until it has arrived in the local store.
        lock.sent = outcome?.kind === 'committed';
        lock.unsettled = outcome === null || outcome.kind === 'unknown';
      }
      this.wake();
    }
  }

  #answer(group: Group<DecisionRequest>, outcome: Exclude<Outcome, { kind: 'failed' }>): Decision | Error {
    if (outcome.kind === 'committed') {
      return { committed: true, arrived: this.#session.arrival(outcome.revision, group.writes) };
    }
    if (outcome.kind === 'refused') return outcome.error;
    const reason = outcome.kind === 'unknown' ? outcome.error.message : 'its record of this node is not ours';
    return new NetctlError('STORE_UNAVAILABLE', `cluster: ${reason}`, { store: 'cluster', reason });
  }

  /** Who counted on what the group has just changed need not ask for it. */
  #refute(
    group: Group<DecisionRequest>,
    others: ReadonlyMap<DecisionRequest, readonly Compare[]>,
    answers: Map<DecisionRequest, Decision | Error>,
  ): void {
    for (const [request, compares] of others) {
      const refuted = group.refuted(compares);
      if (refuted !== undefined) answers.set(request, this.#lost(refuted.compare, refuted.key));
    }
  }

  /** @param key that contradicts the compare */
  #lost(compare: Compare, key: string): Decision {
    return { committed: false, failed: key, isVisible: () => !this.#holds(compare, key) };
  }

  /** In the cluster's revisions; what does not hold here is lost at once. */
  async #translate(compares: readonly Compare[]): Promise<Compare[] | Decision> {
    const translated: Compare[] = [];
    for (const compare of compares) {
      const { key } = compare;
      if (compare.kind === 'unwritten') {
        const revision = this.#session.mirrored;
        const result = await this.#parts.local.transact([compare], [], { flushed: false });
        if (!result.committed) return { ...result, isVisible: () => true };
        translated.push({ kind: 'unwritten', key, revision });
        continue;
      }
      if (compare.kind !== 'modified') {
        translated.push(compare);
        continue;
      }
      const revision = this.#parts.mirror.known(key);
      const entry = await this.#parts.local.get(key);
      if (revision === undefined || entry?.modified !== compare.revision)
        return { committed: false, failed: key, isVisible: () => true };
      translated.push({ kind: 'modified', key, revision });
    }
    return translated;
  }

  /** As far as this key goes, and the local store shows. */
  #holds(compare: Compare, key: string): boolean {
    const revision = this.#parts.mirror.known(key);
    if (compare.kind === 'unwritten') return revision === undefined || revision > this.#session.mirrored;
    if (compare.kind === 'modified') return revision === compare.revision;
    return (revision !== undefined) === (compare.kind === 'present');
  }

  #hasWork(): boolean {
    const { mode, sync } = this.#session;
    if (mode.kind !== 'live' || !sync.inSync) return false;
    return this.#parts.outbox.size > 0 || this.#locks.hasUnfenced;
  }

  async #work(): Promise<void> {
    // So that all that the feed has in this turn goes into one batch.
    await Promise.resolve();
    while (this.#hasWork() && !this.#stopped) {
      await this.#gather();
      const sent = await this.#parts
        .exclusively(() => this.#sendNext())
        .catch((error: unknown) => {
          this.#fail(error as Error);
          return false;
        });
      this.#parts.signal.notify();
      if (!sent) await this.#rest();
    }
    this.#onProgress();
  }

  async #sendNext(): Promise<boolean> {
    if (!this.#hasWork() || this.#stopped) return true;
    const { outbox, mirror } = this.#parts;
    const deadline = new Deadline(
      this.#parts.clock,
      batchMilliseconds,
      () => new NetctlError('STORE_UNAVAILABLE', 'the cluster does not answer'),
    );
    try {
      if (this.#locks.hasUnfenced) return await this.#settle(deadline);
      const batch = outbox.next();
      const compares = this.#claimCompares(batch.writes);
      if (compares === null) {
        // What the mirror left to them is the cluster's to say now.
        this.#session.restart();
        return true;
      }
      const outcome = await this.#attempt(compares, batch.writes, batch.progress, deadline);
      if (outcome.kind === 'committed') {
        mirror.wrote(batch.writes, outcome.revision);
        outbox.acknowledge(batch.acknowledge);
      }
      if (outcome.kind === 'refused') this.#fail(outcome.error);
      // Moved: part of it may have arrived, so it is put together anew.
      return outcome.kind === 'committed' || outcome.kind === 'moved';
    } finally {
      deadline.clear();
    }
  }

  /** After the fence has moved, a new snapshot tells what became of decisions whose answer was lost. */
  async #settle(deadline: Deadline): Promise<boolean> {
    const outcome = await this.#send([], [], deadline);
    if (outcome.kind !== 'committed') return false;
    this.#locks.fence();
    this.#session.restart();
    return true;
  }

  /** Sends under the fence as it stands, anew if a late transaction of ours has moved it. */
  async #send(compares: readonly Compare[], writes: readonly Write[], deadline: Deadline): Promise<Outcome> {
    for (;;) {
      const outcome = await this.#attempt(compares, writes, this.#parts.outbox.progress, deadline);
      if (outcome.kind !== 'moved') return outcome;
    }
  }

  async #attempt(
    compares: readonly Compare[],
    writes: readonly Write[],
    progress: Progress,
    deadline: Deadline,
  ): Promise<Outcome> {
    const { fence, outbox } = this.#parts;
    const outcome = await fence.send(compares, writes, progress, this.#locks.decided(), deadline);
    if (outcome.kind === 'unknown') this.#fail(outcome.error);
    else {
      this.#parts.heardAt = this.#parts.clock.monotonic();
      this.#succeed();
    }
    if (outcome.kind === 'taken') this.#session.restart();
    if (outcome.kind === 'moved') outbox.acknowledge(fence.progress);
    return outcome;
  }

  /** One for each block that the writes are about; null if some of them were dropped, for a block that is lost. */
  #claimCompares(writes: readonly Write[]): Compare[] | null {
    const { mirror, outbox, logger } = this.#parts;
    const blocks = new Map<Cidr, Revision>();
    const lost = new Set<string>();
    for (const { key } of writes) {
      const address = addressOfKey(key);
      const block = blockOfClaimKey(key) ?? (address === null ? null : mirror.claims.blockOf(address));
      const revision = block === null ? undefined : mirror.claims.get(block);
      if (revision !== undefined) blocks.set(block!, revision);
      else if (block !== null || address !== null) lost.add(key);
    }
    if (lost.size > 0) {
      outbox.purge((key) => lost.has(key));
      logger.error({ keys: [...lost].slice(0, 10), total: lost.size }, notReplicated);
      return null;
    }
    return [...blocks].map(([block, revision]) => ({ kind: 'modified', key: blockKey(block), revision }));
  }

  #succeed(): void {
    this.#failures = 0;
    this.#fault = null;
  }

  #fail(error: Error): void {
    this.#fault = { since: this.#fault?.since ?? this.#parts.clock.now(), error: error.message };
  }

  async #rest(): Promise<void> {
    const { random } = this.#parts;
    const delay = Math.min(firstDelayMilliseconds * 2 ** this.#failures, longestDelayMilliseconds);
    this.#failures += 1;
    this.#pause = this.#pauseFor(delay * (0.5 + random() / 2));
    await this.#pause.ended;
    this.#pause = null;
  }

  /** While more comes, for three times as long. */
  async #gather(): Promise<void> {
    if (this.#gatherMilliseconds === 0) return;
    let before = -1;
    for (let times = 0; times < mostGatherings; times++) {
      const { size } = this.#parts.outbox;
      if (size === before || this.#locks.isAny || this.#stopped) return;
      before = size;
      this.#gathering = this.#pauseFor(this.#gatherMilliseconds);
      await this.#gathering.ended;
      this.#gathering = null;
    }
  }

  #pauseFor(milliseconds: number): Pause {
    const { promise: ended, resolve } = Promise.withResolvers<void>();
    const timer = this.#parts.clock.setTimer(milliseconds, resolve);
    const end = (): void => {
      timer.cancel();
      resolve();
    };
    return { ended, end };
  }
}
