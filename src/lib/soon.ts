/**
 * Work that is asked for often and done seldom.
 *
 * In: calls, as many as come. Out: the work, once a moment after the first of them, and again after a pause where more came meanwhile. Never: a
 * call after which the work is not done; two runs closer than the pause; more than a tenth of the time spent on runs.
 */
import type { Clock, Timer } from './clock.ts';

/** At least so many times as long as a run takes, there is no other. */
const pauseShare = 9;

export interface Soon {
  call(): void;
  /** What was asked for is not done any more. */
  cancel(): void;
}

export interface SoonOptions {
  readonly delayMs: number;
  /** From the end of one run to the next, at least. */
  readonly pauseMs: number;
  readonly work: () => Promise<unknown>;
  readonly report: (error: unknown) => void;
}

export function soon(clock: Clock, { delayMs, pauseMs, work, report }: SoonOptions): Soon {
  let state: 'idle' | 'waiting' | 'pausing' | 'called again' = 'idle';
  let timer: Timer | null = null;
  let isCancelled = false;
  const again = (): void => {
    const isCalledAgain = state === 'called again';
    state = 'idle';
    if (isCalledAgain) call();
  };
  const run = async (): Promise<void> => {
    state = 'pausing';
    const from = clock.now();
    await work().catch(report);
    if (!isCancelled) timer = clock.setTimer(Math.max(pauseMs, pauseShare * (clock.now() - from)), again);
  };
  const call = (): void => {
    if (state === 'pausing') state = 'called again';
    if (state !== 'idle') return;
    state = 'waiting';
    timer = clock.setTimer(delayMs, () => void run());
  };
  const cancel = (): void => {
    isCancelled = true;
    timer?.cancel();
  };
  return { call, cancel };
}
