/**
 * Whether a time in a record is over, in spite of a machine clock that may be set while we run.
 *
 * In: the wall clock, the monotonic clock; times from records with the interval that they were made of. Out: yes or no. Never: yes
 * because the clock jumped. After a jump a deadline counts only when it has been seen to be over for a full interval of its own
 * (cooldown, reservation or retention), measured by the monotonic clock: late by at most that, never early.
 */
import type { Clock } from '../lib/clock.ts';

/** Clocks that are slewed, and timers that fire late, differ by less. */
const toleranceMilliseconds = 10_000;

export class Deadlines {
  readonly #clock: Pick<Clock, 'now' | 'monotonic'>;
  /** Wall minus monotonic clock: at the start, and when last looked at. */
  readonly #origin: number;
  #offset: number;
  #jumped = false;
  /** Since the jump: when (monotonic) a deadline was first seen to be over, and for how long that counts. */
  readonly #seen = new Map<string, { readonly at: number; readonly keep: number }>();

  constructor(clock: Pick<Clock, 'now' | 'monotonic'>) {
    this.#clock = clock;
    this.#origin = clock.now() - clock.monotonic();
    this.#offset = this.#origin;
  }

  /** True when the clock was set while this process ran. */
  get jumped(): boolean {
    this.#notice();
    return this.#jumped;
  }

  /** The time as it would be if nobody had set the clock; not ahead of what the clock says. */
  steady(): Date {
    const { now, monotonic } = { now: this.#clock.now(), monotonic: this.#clock.monotonic() };
    return new Date(Math.min(now, this.#origin + monotonic));
  }

  /** @param key names the deadline: another one of the same record is another key */
  isOver(key: string, deadline: string | null, intervalMilliseconds: number): boolean {
    this.#notice();
    if (!(Date.parse(deadline ?? '') <= this.#clock.now())) return false;
    if (!this.#jumped) return true;
    const now = this.#clock.monotonic();
    const seen = this.#seen.get(key);
    if (seen === undefined) {
      this.#forget(now);
      this.#seen.set(key, { at: now, keep: now + 2 * intervalMilliseconds });
      return intervalMilliseconds === 0;
    }
    return now - seen.at >= intervalMilliseconds;
  }

  #notice(): void {
    const offset = this.#clock.now() - this.#clock.monotonic();
    if (Math.abs(offset - this.#offset) > toleranceMilliseconds) {
      this.#jumped = true;
      this.#seen.clear();
    }
    this.#offset = offset;
  }

  /** What was looked at long ago is settled by now. */
  #forget(now: number): void {
    if (this.#seen.size < 4096) return;
    for (const [key, { keep }] of this.#seen) if (keep < now) this.#seen.delete(key);
  }
}
