/**
 * Work that is asked for often and done seldom.
 *
 * In: calls, as many as come. Out: the work, once a moment after the first of them, and again after a pause where more came meanwhile. Never: a
 * call after which the work is not done; two runs closer than the pause.
 */
import type { Clock, Timer } from './clock.ts';

export interface Soon {
  call(): void;
  /** What was asked for is not done any more. */
  cancel(): void;
}

export interface SoonOptions {
  readonly delayMs: number;
  /** From one run to the next. */
  readonly pauseMs: number;
  readonly work: () => Promise<unknown>;
  readonly report: (error: unknown) => void;
}

export function soon(clock: Clock, { delayMs, pauseMs, work, report }: SoonOptions): Soon {
  let state: 'idle' | 'waiting' | 'pausing' | 'called again' = 'idle';
  let timer: Timer | null = null;
  const call = (): void => {
    if (state === 'pausing') state = 'called again';
    if (state !== 'idle') return;
    state = 'waiting';
    timer = clock.setTimer(delayMs, () => {
      state = 'pausing';
      timer = clock.setTimer(pauseMs, () => {
        const isCalledAgain = state === 'called again';
        state = 'idle';
        if (isCalledAgain) call();
      });
      work().catch(report);
    });
  };
  return { call, cancel: () => timer?.cancel() };
}
