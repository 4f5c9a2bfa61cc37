/**
 * Work that comes again and again, each time after a pause.
 *
 * In: a task, a pause. Out: the task, until it is stopped. Never: a task that starts while it still runs; an end because one failed.
 */
import type { Clock, Timer } from '../lib/clock.ts';

export class Periodic {
  readonly #clock: Clock;
  readonly #report: (error: unknown) => void;
  readonly #timers: Timer[] = [];
  #isStopped = false;

  constructor(clock: Clock, report: (error: unknown) => void) {
    this.#clock = clock;
    this.#report = report;
  }

  /** @param milliseconds from the end of one to the next */
  every(milliseconds: number, task: () => Promise<void>): void {
    const run = (): void => {
      if (this.#isStopped) return;
      task()
        .catch(this.#report)
        .finally(() => {
          if (!this.#isStopped) this.#timers[slot] = this.#clock.setTimer(milliseconds, run);
        });
    };
    const slot = this.#timers.push(this.#clock.setTimer(milliseconds, run)) - 1;
  }

  stop(): void {
    this.#isStopped = true;
    for (const timer of this.#timers) timer.cancel();
  }
}
