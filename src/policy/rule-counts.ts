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

/** Of each chain (`4 nctl-in-…`), one for each of its rules. */
export type ChainCounts = ReadonlyMap<string, readonly Count[]>;

export function countsOf(
  part: Pick<RuleOrigin, 'kind' | 'name'>,
  chains: Iterable<{ readonly key: string; readonly rules: readonly ChainRule[] }>,
  counts: ChainCounts,
): Record<RuleOrigin['direction'], Count[]> {
  const sums: Record<RuleOrigin['direction'], Count[]> = { inbound: [], outbound: [] };
  for (const { key, rules } of chains) {
    for (const [i, { origin }] of rules.entries()) {
      if (origin === undefined || origin.kind !== part.kind || origin.name !== part.name) continue;
      const of = sums[origin.direction];
      // A rule that this family has no use for has no counter there.
      while (of.length <= origin.index) of.push({ packets: 0, bytes: 0 });
      const { packets, bytes } = counts.get(key)?.[i] ?? { packets: 0, bytes: 0 };
      const sum = of[origin.index]!;
      of[origin.index] = { packets: sum.packets + packets, bytes: sum.bytes + bytes };
    }
  }
  return sums;
}
