/**
 * A clock that stands still until told to move.
 *
 * In: `advance`. Out: the calls of the timers that became due, in order. Never: real time.
 */
import type { Clock, Timer } from '../../../src/lib/clock.ts';

export class ManualClock implements Clock {
  #progress = 0;
  #offset = 1_000_000;
  readonly #timers = new Set<{ readonly at: number; readonly call: () => void }>();

  now(): number {
    return this.#progress + this.#offset;
  }

  monotonic(): number {
    return this.#progress;
  }

  setTimer(delayMilliseconds: number, call: () => void): Timer {
    const timer = { at: this.#progress + delayMilliseconds, call };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }

  /** Milliseconds until each timer, soonest first. */
  waiting(): number[] {
    return [...this.#timers].map((timer) => timer.at - this.#progress).sort((a, b) => a - b);
  }

  advance(milliseconds: number): void {
    const end = this.#progress + milliseconds;
    for (;;) {
      const due = [...this.#timers].filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.#timers.delete(due);
      this.#progress = due.at;
      due.call();
    }
    this.#progress = end;
  }

  /** Somebody sets the machine's clock: the time changes, no time passes. */
  jump(milliseconds: number): void {
    this.#offset += milliseconds;
  }
}
