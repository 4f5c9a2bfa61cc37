/**
 * Work that is done once for all who ask for it before it begins, one at a time.
 *
 *     nobody else is at work     it begins when what has arrived is heard
 *     others are                 they will ask, too: it waits for them, at most for four times as long as it took last, and 0.25 s
 *
 * In: asking; how many are at work. Out: promises. Never: somebody served by work that had begun before he asked; two runs at once.
 */
import type { Clock, Timer } from './clock.ts';

/** So that a fifth of the time goes to the work, at most. */
const pauseShare = 4;
const mostPauseMs = 250;

export interface SharedWorkOptions {
  readonly clock: Clock;
  /** How many may ask, those who have included. */
  readonly atWork: () => number;
  readonly work: () => Promise<void>;
}

interface Waiting extends PromiseWithResolvers<void> {
  asked: number;
}

export class SharedWork {
  readonly #options: SharedWorkOptions;
  #waiting: Waiting | null = null;
  #isRunning = false;
  #isAboutToRun = false;
  #timer: Timer | null = null;
  /** By the monotonic clock. */
  #notBefore = 0;

  constructor(options: SharedWorkOptions) {
    this.#options = options;
  }

  /** Resolves, or throws, as the next run of the work. */
  ask(): Promise<void> {
    this.#waiting ??= { ...Promise.withResolvers<void>(), asked: 0 };
    this.#waiting.asked++;
    const { promise } = this.#waiting;
    this.#look();
    return promise;
  }

  #look(): void {
    if (this.#waiting === null || this.#isRunning || this.#isAboutToRun) return;
    const { clock, atWork } = this.#options;
    const leftMs = this.#notBefore - clock.monotonic();
    if (leftMs > 0 && this.#waiting.asked < atWork()) {
      this.#timer ??= clock.setTimer(leftMs, () => {
        this.#timer = null;
        this.#notBefore = 0;
        this.#look();
      });
      return;
    }
    this.#timer?.cancel();
    this.#timer = null;
    this.#isAboutToRun = true;
    setImmediate(() => void this.#run());
  }

  async #run(): Promise<void> {
    const { clock, work } = this.#options;
    const { resolve, reject } = this.#waiting!;
    this.#waiting = null;
    this.#isAboutToRun = false;
    this.#isRunning = true;
    const from = clock.monotonic();
    const [result] = await Promise.allSettled([work()]);
    const to = clock.monotonic();
    this.#notBefore = to + Math.min(pauseShare * (to - from), mostPauseMs);
    this.#isRunning = false;
    if (result.status === 'fulfilled') resolve();
    else reject(result.reason);
    this.#look();
  }
}
