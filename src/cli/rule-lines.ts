/**
 * Rules numbered per direction, with how often each applied on this host.
 *
 * In: rules in words, counters. Out: lines. Never: a counter next to another rule than its own.
 */
import type { RuleCounts } from '../api/explain-schemas.ts';
import type { Context } from './command.ts';

export function readCounts(
  api: Context['api'],
  kind: 'profile' | 'policy',
  name: string,
): Promise<RuleCounts> {
  return api().send<RuleCounts>('GET', `/v1/rule-counts?${new URLSearchParams({ kind, name })}`);
}

/** `   1 allow tcp   (12 packets, 720 bytes)` */
export function ruleLines(rules: readonly string[], counts: RuleCounts['inbound']): string[] {
  const width = Math.max(0, ...rules.map((rule) => rule.length));
  return rules.map((rule, i) => {
    const number = String(i + 1).padStart(4);
    const { packets, bytes } = counts[i] ?? { packets: 0, bytes: 0 };
    return `${number} ${rule.padEnd(width)}   (${packets} packets, ${bytes} bytes)`;
  });
}
