/**
 * What all measurements share: callers in a closed loop, quantiles, lines of a table.
 *
 * In: how many callers, how many calls, what to call. Out: rate and latencies. Never: a number without its p99.
 */

import { median, quantile } from './statistics.ts';

export interface Measured {
  /** Milliseconds, in order. */
  readonly latencies: readonly number[];
  /** Calls per second. */
  readonly rate: number;
}

/** Each caller calls again as soon as it has its answer. */
export async function measure(
  callers: number,
  calls: number,
  call: (number: number) => Promise<unknown>,
): Promise<Measured> {
  const latencies: number[] = [];
  let next = 0;
  const start = performance.now();
  const caller = async (): Promise<void> => {
    while (next < calls) {
      const before = performance.now();
      await call(next++);
      latencies.push(performance.now() - before);
    }
  };
  await Promise.all(Array.from({ length: callers }, caller));
  const rate = (calls / (performance.now() - start)) * 1000;
  return { latencies: latencies.sort((a, b) => a - b), rate };
}

/** The medians of several rounds in one line. */
export function summary(rounds: readonly Measured[]): string {
  const of = (share: number): string =>
    median(rounds.map(({ latencies }) => quantile(latencies, share)))
      .toFixed(2)
      .padStart(7);
  const rate = Math.round(median(rounds.map(({ rate }) => rate)));
  return `${String(rate).padStart(7)}/s   p50 ${of(0.5)} ms   p99 ${of(0.99)} ms`;
}

/** Round by round, what it is next to the other. */
export const ratio = (ours: readonly Measured[], theirs: readonly Measured[]): number =>
  median(ours.map(({ rate }, round) => rate / theirs[round]!.rate));
