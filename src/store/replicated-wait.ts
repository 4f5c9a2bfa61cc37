/**
 * Waiting with an end, for the replicated store.
 *
 * In: promises and conditions. Out: their outcome, or the deadline's error. Never: a wait that polls, a timer left behind.
 */
import type { Clock, Timer } from '../lib/clock.ts';
import { NetctlError } from '../lib/errors.ts';

/** So many times its milliseconds may it take in all, whatever is heard meanwhile. */
const mostTimes = 10;
/** Who is called so late by its timer (a share of the milliseconds) did not run, and cannot know what was silent. */
const lateShare = 0.1;

/**
 * Runs out once, when nothing was heard for the time. What it is raced against goes on by itself; its late outcome is nobody's.
 */
export class Deadline {
  readonly #clock: Clock;
  readonly #milliseconds: number;
  readonly #error: () => Error;
  readonly #heardAt: () => number;
  readonly #start: number;
  readonly #end = Promise.withResolvers<never>();
  #timer: Timer;
  #due: number;
  #expired = false;

  /** @param heardAt when the other side last answered anything, by the monotonic clock: the time runs from then */
  constructor(
    clock: Clock,
    milliseconds: number,
    error: () => Error,
    heardAt = () => Number.NEGATIVE_INFINITY,
  ) {
    this.#clock = clock;
    this.#milliseconds = milliseconds;
    this.#error = error;
    this.#heardAt = heardAt;
    this.#start = clock.monotonic();
    this.#end.promise.catch(() => undefined);
    this.#due = this.#start + milliseconds;
    this.#timer = clock.setTimer(milliseconds, () => this.#expire());
  }

  get expired(): boolean {
    return this.#expired;
  }

  race<T>(promise: Promise<T>): Promise<T> {
    return Promise.race([promise, this.#end.promise]);
  }

  clear(): void {
    this.#timer.cancel();
  }

  #expire(): void {
    const now = this.#clock.monotonic();
    const wasStarved = now - this.#due > lateShare * this.#milliseconds;
    const since = wasStarved ? now : this.#heardAt();
    this.#due = Math.min(since + this.#milliseconds, this.#start + mostTimes * this.#milliseconds);
    if (this.#due > now) {
      this.#timer = this.#clock.setTimer(this.#due - now, () => this.#expire());
      return;
    }
    this.#expired = true;
    this.#end.reject(this.#error());
  }
}

const readDeadlineMilliseconds = 3000;

/** One question to the cluster, or a few. @throws STORE_UNAVAILABLE after 3 s */
export async function bounded<T>(clock: Clock, act: (deadline: Deadline) => Promise<T>): Promise<T> {
  const late = (): Error => new NetctlError('STORE_UNAVAILABLE', 'the cluster does not answer');
  const deadline = new Deadline(clock, readDeadlineMilliseconds, late);
  try {
    return await act(deadline);
  } finally {
    deadline.clear();
  }
}

/** Tells those who wait that something has changed; each looks for itself whether it is what it waits for. */
export class Signal {
  #next = Promise.withResolvers<void>();

  notify(): void {
    this.#next.resolve();
    this.#next = Promise.withResolvers<void>();
  }

  async until(condition: () => boolean, deadline?: Deadline): Promise<void> {
    while (!condition()) {
      const next = this.#next.promise;
      await (deadline === undefined ? next : deadline.race(next));
    }
  }
}
