/**
 * Puts together what compile-rule.ts cuts for iptables (pure): one rule with all its ports, for a set takes any number.
 *
 * In: the rules of a chain. Out: fewer rules that decide the same, their ports as ranges in order. Never: two rules of a profile
 * made one.
 */
import type { PortRange } from '../model/port-range.ts';
import type { ChainRule, Condition } from './chain.ts';

/** Rules that were cut because multiport has 15 slots come together again. */
export function mergePorts(rules: readonly ChainRule[]): ChainRule[] {
  const merged: ChainRule[] = [];
  for (const rule of rules) {
    const last = merged.at(-1);
    if (last !== undefined && isSameButPorts(last, rule)) {
      merged[merged.length - 1] = {
        ...last,
        conditions: joinPorts([...last.conditions, ...positivePorts(rule)]),
      };
    } else {
      merged.push({ ...rule, conditions: joinPorts(rule.conditions) });
    }
  }
  return merged;
}

function isSameButPorts(a: ChainRule, b: ChainRule): boolean {
  const rest = ({ conditions, verdict, origin }: ChainRule): string =>
    JSON.stringify([
      joinPorts(conditions).filter((condition) => !isPositivePorts(condition)),
      verdict,
      origin,
    ]);
  return isSameOrigin(a, b) && positivePorts(a).length > 0 && rest(a) === rest(b);
}

function isSameOrigin({ origin: a }: ChainRule, { origin: b }: ChainRule): boolean {
  return (
    a !== undefined &&
    a.index === b?.index &&
    a.direction === b.direction &&
    a.kind === b.kind &&
    a.name === b.name
  );
}

/** One condition for each side and each of "any of" and "none of". */
function joinPorts(conditions: readonly Condition[]): Condition[] {
  const joined: Condition[] = [];
  for (const condition of conditions) {
    const at = joined.findIndex(
      (other) =>
        condition.kind === 'ports' &&
        other.kind === 'ports' &&
        other.side === condition.side &&
        other.negated === condition.negated,
    );
    const other = joined[at];
    if (condition.kind !== 'ports') joined.push(condition);
    else if (other?.kind !== 'ports') joined.push({ ...condition, ports: disjoint(condition.ports) });
    else joined[at] = { ...condition, ports: disjoint([...other.ports, ...condition.ports]) };
  }
  return joined;
}

/** Ascending, neither overlapping nor touching. */
function disjoint(ports: readonly PortRange[]): PortRange[] {
  const ranges: { from: number; to: number }[] = [];
  for (const { from, to } of ports.toSorted((a, b) => a.from - b.from)) {
    const last = ranges.at(-1);
    if (last !== undefined && from <= last.to + 1) last.to = Math.max(last.to, to);
    else ranges.push({ from, to });
  }
  return ranges;
}

function positivePorts(rule: ChainRule): Condition[] {
  return rule.conditions.filter(isPositivePorts);
}

function isPositivePorts(condition: Condition): boolean {
  return condition.kind === 'ports' && !condition.negated;
}
