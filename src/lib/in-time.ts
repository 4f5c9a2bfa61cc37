/**
 * A limit on how long somebody waits for work that goes on all the same.
 *
 * In: work, a time. Out: its result, or an error once the time is over. Never: work that is cut off.
 */
import type { Clock } from './clock.ts';

/** @throws with the complaint when the work takes longer */
export function inTime<T>(
  clock: Clock,
  milliseconds: number,
  complaint: string,
  work: () => Promise<T>,
): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const timer = clock.setTimer(milliseconds, () => reject(new Error(complaint)));
  work().then(resolve, reject);
  return promise.finally(() => timer.cancel());
}
