/**
 * How often each rule of a profile or policy applied on this host: the counters of the chain rules that came from it, added up (pure).
 *
 * In: rules as they stand in the kernel's chains, its counters for them. Out: counters per rule as the user wrote it. Never: the counters of another
 * profile that stands in the same chain.
 */
import type { ChainRule, RuleOrigin } from './chain.ts';

export interface Count {
  readonly packets: number;
  readonly bytes: number;
}

/** One for each rule, as far as any was compiled. */
export type RuleCounts = Record<RuleOrigin['direction'], Count[]>;

/** Of each chain (`4 nctl-in-…`), one for each of its rules. */
export type ChainCounts = ReadonlyMap<string, readonly Count[]>;

export function countsOf(
  part: Pick<RuleOrigin, 'kind' | 'name'>,
  chains: Iterable<{ readonly key: string; readonly rules: readonly ChainRule[] }>,
  counts: ChainCounts,
): RuleCounts {
  const sums: RuleCounts = { inbound: [], outbound: [] };
  for (const { key, rules } of chains) {
    for (const [i, { origin }] of rules.entries()) {
      if (origin === undefined || origin.kind !== part.kind || origin.name !== part.name) continue;
      const of = sums[origin.direction];
      // A rule that this family has no use for has no counter there.
      while (of.length <= origin.index) of.push(NONE);
      of[origin.index] = plus(of[origin.index]!, counts.get(key)?.[i]);
    }
  }
  return sums;
}

/** Of several places together. */
export function addCounts(all: readonly RuleCounts[]): RuleCounts {
  const sumOf = (direction: RuleOrigin['direction']): Count[] => {
    const length = Math.max(0, ...all.map((counts) => counts[direction].length));
    const sum = (at: number): Count =>
      all.reduce<Count>((total, counts) => plus(total, counts[direction][at]), NONE);
    return Array.from({ length }, (_, at) => sum(at));
  };
  return { inbound: sumOf('inbound'), outbound: sumOf('outbound') };
}

const NONE: Count = { packets: 0, bytes: 0 };

function plus(one: Count, { packets, bytes } = NONE): Count {
  return { packets: one.packets + packets, bytes: one.bytes + bytes };
}
