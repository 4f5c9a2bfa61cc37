/**
 * Waiting with an end, for the replicated store.
 *
 * In: promises and conditions. Out: their outcome, or the deadline's error. Never: a wait that polls, a timer left behind.
 */
import type { Clock, Timer } from '../lib/clock.ts';
import { NetctlError } from '../lib/errors.ts';

/** Runs out once. What it is raced against goes on by itself; its late outcome is nobody's. */
export class Deadline {
  readonly #end = Promise.withResolvers<never>();
  readonly #timer: Timer;
  #expired = false;

  constructor(clock: Clock, milliseconds: number, error: () => Error) {
    this.#end.promise.catch(() => undefined);
    this.#timer = clock.setTimer(milliseconds, () => {
      this.#expired = true;
      this.#end.reject(error());
    });
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
