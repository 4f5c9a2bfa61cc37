/**
 * A clock that stands still until told to move.
 *
 * In: `advance`. Out: the calls of the timers that became due, in order. Never: real time.
 */
import type { Clock, Timer } from '../../../src/lib/clock.ts';

export class ManualClock implements Clock {
  #now = 1_000_000;
  readonly #timers = new Set<{ readonly at: number; readonly call: () => void }>();

  now(): number {
    return this.#now;
  }

  setTimer(delayMilliseconds: number, call: () => void): Timer {
    const timer = { at: this.#now + delayMilliseconds, call };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }

  /** Milliseconds until each timer, soonest first. */
  waiting(): number[] {
    return [...this.#timers].map((timer) => timer.at - this.#now).sort((a, b) => a - b);
  }

  advance(milliseconds: number): void {
    const end = this.#now + milliseconds;
    for (;;) {
      const due = [...this.#timers].filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.#timers.delete(due);
      this.#now = due.at;
      due.call();
    }
    this.#now = end;
  }
}
