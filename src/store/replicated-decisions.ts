/**
 * What the cluster has to decide: one transaction there, after what waits about its records, within a bounded time.
 *
 * In: transactions with the claims that they rely on. Out: the cluster's answer, with the local revision that shows it. Never: a decision
 * here about records that the cluster is deciding about; a block used again that a decision may have given away.
 */
import { NetctlError } from '../lib/errors.ts';
import { type Address, type Cidr, cidrContains } from '../model/ip.ts';
import { blockKey } from '../model/keys.ts';
import type { Lock, Locks } from './replicated-locks.ts';
import { localPrefix } from './replicated-outbox.ts';
import type { Decision, DecisionRequest, Sender } from './replicated-sender.ts';
import type { Session, SessionParts } from './replicated-session.ts';
import { Deadline } from './replicated-wait.ts';
import type { Compare, TransactionResult, Write } from './store.ts';

/** The blocks that are not used meanwhile, for the time after a restart. */
export const yieldedKey = `${localPrefix}yielded`;

interface Waiting extends DecisionRequest {
  isReady(): boolean;
  resolve(decision: Decision | null): void;
  reject(error: Error): void;
}

export class Decisions {
  readonly #parts: SessionParts;
  readonly #session: Session;
  readonly #sender: Sender;
  readonly #locks: Locks;
  readonly #status: () => { since: number | null; error: string | null };
  readonly #patienceMilliseconds: number;
  /** In the order in which they came. */
  readonly #waiting: Waiting[] = [];
  #stopped = false;

  /** @param patienceMilliseconds what the cluster decides is decided within this time or refused */
  constructor(
    parts: SessionParts,
    session: Session,
    sender: Sender,
    locks: Locks,
    status: () => { since: number | null; error: string | null },
    patienceMilliseconds: number,
  ) {
    this.#parts = parts;
    this.#session = session;
    this.#sender = sender;
    this.#locks = locks;
    this.#status = status;
    this.#patienceMilliseconds = patienceMilliseconds;
  }

  stop(): void {
    this.#stopped = true;
    this.#parts.signal.notify();
  }

  /**
   * @param yields blocks of this node alone that the transaction changes or gives away
   * @throws STORE_UNAVAILABLE
   */
  async decide(
    compares: readonly Compare[],
    writes: readonly Write[],
    yields: readonly Cidr[],
  ): Promise<TransactionResult> {
    const { authority, mirror, signal } = this.#parts;
    const deadline = this.#deadline(this.#patience());
    const keys = [...compares, ...writes].map(({ key }) => key);
    const written = writes.map(({ key }) => key);
    const lock = this.#locks.add(
      [...written, ...keys.filter((key) => authority.owns(key, mirror.own))],
      yields,
    );
    const isReady = (): boolean => this.#isReady(keys, yields);
    this.#sender.hurry();
    try {
      if (yields.length > 0) await this.#yield(yields);
      for (;;) {
        await signal.until(isReady, deadline);
        const decision = await deadline.race(this.#submit({ compares, writes, lock, deadline, isReady }));
        if (decision === null) continue;
        if (decision.committed) return { committed: true, ...(await deadline.race(decision.arrived)) };
        // The caller looks into the mirror for what beat it: there it has to be.
        await signal.until(decision.isVisible, deadline).catch(() => undefined);
        return { committed: false, failed: decision.failed };
      }
    } finally {
      deadline.clear();
      this.#release(lock);
    }
  }

  /** Resolves when the cluster is not deciding about any of the keys. @throws STORE_UNAVAILABLE where that is not known */
  async unlocked(keys: readonly string[]): Promise<void> {
    const deadline = this.#deadline(this.#patienceMilliseconds);
    try {
      await this.#parts.signal.until(() => {
        const lock = this.#locks.conflict(keys);
        if (lock?.unsettled || this.#stopped)
          throw unavailable(`whether the cluster has decided about ${keys[0]} is not known yet`);
        return lock === null;
      }, deadline);
    } finally {
      deadline.clear();
    }
  }

  /** What was not known is known: nothing is yielded on its account. */
  settled(): void {
    void this.#reclaim([]);
  }

  /** Goes with all others that wait for their turn by then; null: it was not sent. @throws as Sender.decide has it */
  #submit(request: DecisionRequest & { isReady(): boolean }): Promise<Decision | null> {
    const { promise, resolve, reject } = Promise.withResolvers<Decision | null>();
    this.#waiting.push({ ...request, resolve, reject });
    if (this.#waiting.length === 1) void this.#parts.exclusively(() => this.#sendWaiting());
    return promise;
  }

  /** The callers may be gone by the time of the outcome: the end of their locks does not depend on them. */
  async #sendWaiting(): Promise<void> {
    const all = this.#waiting.splice(0);
    try {
      const requests = all.filter(({ deadline, isReady }) => !deadline.expired && isReady());
      const answers = await this.#sender.decide(requests);
      for (const [index, { resolve, reject, lock, deadline }] of requests.entries()) {
        const answer = answers[index]!;
        if (answer instanceof Error) reject(answer);
        else resolve(answer);
        if (answer !== null && !(answer instanceof Error) && answer.committed) {
          void answer.arrived.then(() => {
            lock.sent = false;
            this.#release(lock);
          });
        }
        if (deadline.expired) this.#release(lock);
      }
      for (const { resolve } of all) resolve(null);
    } catch (error) {
      for (const { reject } of all) reject(error as Error);
    }
  }

  /** All that the decision is about is in the cluster, as is all of the blocks that it gives away. */
  #isReady(keys: readonly string[], yields: readonly Cidr[]): boolean {
    if (this.#stopped) throw closed();
    const { mode } = this.#session;
    if (mode.kind === 'held') throw unavailable(mode.reason);
    if (mode.kind !== 'live' || keys.some((key) => this.#parts.outbox.has(key))) return false;
    const isYielded = (address: Address): boolean => yields.some((block) => cidrContains(block, address));
    return yields.length === 0 || !this.#parts.outbox.someAbout(isYielded);
  }

  /**
   * From here on nothing is decided here in these blocks, also after a restart: the cluster may have given them away without our
   * hearing of it.
   */
  async #yield(blocks: readonly Cidr[]): Promise<void> {
    for (const block of blocks) this.#parts.mirror.own.delete(block);
    await this.#noteYielded();
  }

  #release(lock: Lock): void {
    const ended = this.#locks.release(lock);
    this.#parts.signal.notify();
    if (ended && lock.yields.length > 0) void this.#reclaim(lock.yields);
  }

  /** Blocks that the local store still shows as this node's alone are that again. */
  async #reclaim(blocks: readonly Cidr[]): Promise<void> {
    try {
      for (const block of blocks) {
        const entry = await this.#parts.local.get(blockKey(block));
        if (entry !== null && !this.#locks.yielded().includes(block))
          this.#parts.mirror.noteClaim(entry.key, entry.value, entry.modified);
      }
      await this.#noteYielded();
    } catch (error) {
      this.#parts.logger.warn({ blocks, error: String(error) }, 'blocks could not be taken back');
    }
  }

  #noteYielded(): Promise<TransactionResult> {
    return this.#parts.local.transact([], [{ kind: 'put', key: yieldedKey, value: this.#locks.yielded() }]);
  }

  /** How long a decision may wait for a cluster that cannot be reached: not again each time. */
  #patience(): number {
    const { since, error } = this.#status();
    if (since === null) return this.#patienceMilliseconds;
    const left = this.#patienceMilliseconds - Math.max(0, this.#parts.clock.now() - since);
    if (left <= 0) throw unavailable(error ?? 'it cannot be reached');
    return left;
  }

  /** A cluster that says nothing is given up soon; one that answers others first, or decides against us again and again, is not. */
  #deadline(milliseconds: number): Deadline {
    const parts = this.#parts;
    const late = (): Error => unavailable(this.#status().error ?? 'it did not decide in time');
    return new Deadline(parts.clock, milliseconds, late, () => parts.heardAt);
  }
}

export function closed(): NetctlError {
  return new NetctlError('STORE_UNAVAILABLE', 'the store was closed');
}

function unavailable(reason: string): NetctlError {
  return new NetctlError('STORE_UNAVAILABLE', `cluster: ${reason}`, { store: 'cluster', reason });
}
