/**
 * Chains of many rules in two parts, for a back end in which a rule costs more than a goto (pure).
 *
 *     nctl-in-<list> ── the port is not of its rules ──► nctl-in-<list>.rest ◄── none of its rules decided ── nctl-in-<list>
 *
 * What is new walks over most rules of its list until one applies, and each costs what it takes to read it from memory: a packet whose port no
 * rule of the first part names walks over the second one only.
 *
 * In: a chain. Out: it, or two that decide the same. Never: a rule passed over that asks for more, or less, than ports.
 */
import type { PortRange } from '../model/port-range.ts';
import { type Chain, type ChainRule, goto, rule } from './chain.ts';
import { disjoint, mergePorts } from './merge-ports.ts';

/** As many rules are worth a chain more, which every transaction looks at (decision 25). */
export const LONG_CHAIN = 16;
const REST = '.rest';

/** @param long from how many rules on */
export function cutLongChain(chain: Chain, long: number): readonly Chain[] {
  const rules = mergePorts(chain.rules);
  const portsOf = rules.slice(0, rules.length >> 1).map(destinationPorts);
  const others = portsOf.indexOf(null);
  const count = others < 0 ? portsOf.length : others;
  if (rules.length < long || count < long >> 1) return [chain];
  const ports = disjoint(portsOf.slice(0, count).flatMap((each) => each ?? []));
  const rest: Chain = { ...chain, name: `${chain.name}${REST}`, rules: rules.slice(count) };
  const toRest = goto(rest.name);
  const passesOver = rule(
    [{ kind: 'ports', side: 'dst', ports, negated: true }],
    toRest,
    'no port of these rules',
  );
  return [
    { ...chain, rules: [passesOver, ...rules.slice(0, count), rule([], toRest, 'none of these rules')] },
    rest,
  ];
}

/** By the name of the whole chain, with what both parts hold for its rules. @param parts for each rule of a chain one */
export function joinParts<T>(parts: ReadonlyMap<string, readonly T[]>): Map<string, readonly T[]> {
  const whole = new Map<string, readonly T[]>();
  for (const [name, rules] of parts) {
    if (name.endsWith(REST)) continue;
    const rest = parts.get(`${name}${REST}`);
    whole.set(name, rest === undefined ? rules : [...rules.slice(1, -1), ...rest]);
  }
  return whole;
}

/** That a user's rule asks for; null if it does not, or is none. */
function destinationPorts({ conditions, origin }: ChainRule): readonly PortRange[] | null {
  const asked = conditions.find((each) => each.kind === 'ports' && each.side === 'dst' && !each.negated);
  return asked?.kind === 'ports' && origin !== undefined ? asked.ports : null;
}
