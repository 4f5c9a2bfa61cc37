/**
 * Connections of addresses that cool down, deleted a moment after the answer to DEL, of all addresses that came meanwhile together.
 *
 *     DEL ──► add ──► the record says that the address cools down ──► answer          100 ms after the first: one flush for all
 *     an ADD that gets one of the addresses; the end of cooldowns; the end of the agent ──► wait for the flush, which goes at once
 *     the agent is killed ──► what cools down is flushed at the next start
 *
 * In: addresses that nobody has. Out: flushes. Never: an address that is given to an endpoint, or is free, with connections of before; one
 * forgotten because the kernel refused (it stays, for the next who waits: at the latest the periodic work of a second later).
 */
import type { Clock, Timer } from '../lib/clock.ts';
import { asNetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import type { Conntrack } from '../linux/ports.ts';
import type { Address } from '../model/ip.ts';

const GATHER_MILLISECONDS = 100;

export interface LateFlushParts {
  readonly conntrack: Pick<Conntrack, 'flushAddresses'>;
  readonly clock: Pick<Clock, 'setTimer'>;
  readonly logger: Pick<Logger, 'error'>;
}

export class LateFlush {
  readonly #parts: LateFlushParts;
  #waiting = new Set<Address>();
  #underWay: ReadonlySet<Address> = new Set();
  #timer: Timer | null = null;
  #last: Promise<void> = Promise.resolve();

  constructor(parts: LateFlushParts) {
    this.#parts = parts;
  }

  add(addresses: readonly Address[]): void {
    for (const address of addresses) this.#waiting.add(address);
    this.#timer ??= this.#parts.clock.setTimer(GATHER_MILLISECONDS, () => void this.settle());
  }

  /** Resolves when the addresses have no connections of before. @throws KernelError */
  async before(addresses: readonly Address[]): Promise<void> {
    if (addresses.some((address) => this.#waiting.has(address) || this.#underWay.has(address)))
      await this.all();
  }

  /** Flushes what was added so far. @throws KernelError: it is kept for the next call */
  all(): Promise<void> {
    this.#last = this.#last.catch(() => undefined).then(() => this.#flush());
    return this.#last;
  }

  /** As `all`; a failure is logged, and the answer is false. */
  async settle(): Promise<boolean> {
    try {
      await this.all();
      return true;
    } catch (error) {
      this.#parts.logger.error(
        { addresses: this.#waiting.size, error: asNetctlError(error).message },
        'connections of released addresses: not deleted, will be tried again',
      );
      return false;
    }
  }

  async #flush(): Promise<void> {
    this.#timer?.cancel();
    this.#timer = null;
    if (this.#waiting.size === 0) return;
    this.#underWay = this.#waiting;
    this.#waiting = new Set();
    try {
      await this.#parts.conntrack.flushAddresses(this.#underWay);
    } catch (error) {
      for (const address of this.#underWay) this.#waiting.add(address);
      throw error;
    } finally {
      this.#underWay = new Set();
    }
  }
}
