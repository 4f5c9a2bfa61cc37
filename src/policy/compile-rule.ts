/**
 * One rule of a profile or policy → the chain rules that decide the same (pure).
 *
 * In: a Rule, a family, what its action comes to in this chain. Out: none (the rule does not speak of this family, or can match
 * nothing), one, or several chain rules. Never: a rule that matches more because a condition could not be expressed.
 */
import { type Family, prefixLength } from '../model/ip.ts';
import type { PortRange } from '../model/port-range.ts';
import { type Match, type Rule, ruleFamily, type Side } from '../model/rule.ts';
import type { ChainRule, Condition, Verdict } from './chain.ts';
import { addressSet, selectorSet, tagSet } from './names.ts';

export function compileRule(rule: Rule, family: Family, verdict: Verdict, comment: string): ChainRule[] {
  const of = ruleFamily(rule);
  if ((of !== null && of !== family) || neverMatches(rule)) return [];
  const common = rule.matches
    .filter((match) => !isRedundant(match, rule))
    .flatMap((match) => conditions(match, family));
  return portChoices(rule).map((ports) => ({
    conditions: cheapestFirst([...common, ...ports]),
    verdict,
    comment,
  }));
}

/** What a packet is asked first: most rules are left at the first condition that does not hold, and a look-up costs most. */
const COST: Readonly<Record<Condition['kind'], number>> = {
  interface: 0,
  connection: 0,
  'connection-mark': 0,
  protocol: 0,
  icmp: 1,
  ports: 1,
  net: 1,
  'source-mac': 1,
  'to-this-host': 2,
  set: 2,
};

function cheapestFirst(conditions: readonly Condition[]): Condition[] {
  return conditions.toSorted((a, b) => COST[a.kind] - COST[b.kind]);
}

/** Not from anywhere, or a protocol that is excluded at once. */
function neverMatches(rule: Rule): boolean {
  return rule.matches.some(
    (match) =>
      match.negated &&
      ((match.kind === 'net' && prefixLength(match.net) === 0) ||
        (match.kind === 'protocol' && match.protocol === wantedProtocol(rule))),
  );
}

/** "tcp, and not udp" is just tcp; "from anywhere" is no condition. Neither can be written next to what it repeats. */
function isRedundant(match: Match, rule: Rule): boolean {
  if (match.kind === 'protocol') return match.negated && wantedProtocol(rule) !== null;
  return match.kind === 'net' && prefixLength(match.net) === 0;
}

function wantedProtocol(rule: Rule): number | null {
  for (const match of rule.matches) if (match.kind === 'protocol' && !match.negated) return match.protocol;
  return null;
}

/** All but the positive ports, which multiply rules. */
function conditions(match: Match, family: Family): Condition[] {
  switch (match.kind) {
    case 'protocol':
      return [{ kind: 'protocol', protocol: match.protocol, negated: match.negated }];
    case 'net':
      return [{ kind: 'net', side: match.side, net: match.net, negated: match.negated }];
    case 'tag':
      return [inSet(tagSet(family, match.tag), match)];
    case 'selector':
      return [inSet(selectorSet(family, match.selector), match)];
    case 'set':
      return [inSet(addressSet(family, match.set), match)];
    case 'icmp':
      return [{ kind: 'icmp', family, type: match.type, code: match.code, negated: match.negated }];
    case 'ports':
      return match.negated
        ? chunks(match.ports).map((ports) => ({ kind: 'ports', side: match.side, ports, negated: true }))
        : [];
  }
}

function inSet(set: string, { side, negated }: Match & { side: Side }): Condition {
  return { kind: 'set', set, side, withInterface: false, negated };
}

/** Every pair of a chunk of source ports and a chunk of destination ports; one empty choice where no ports are asked for. */
function portChoices(rule: Rule): Condition[][] {
  let choices: Condition[][] = [[]];
  for (const match of rule.matches) {
    if (match.kind !== 'ports' || match.negated) continue;
    choices = choices.flatMap((choice) =>
      chunks(match.ports).map((ports): Condition[] => [
        ...choice,
        { kind: 'ports', side: match.side, ports, negated: false },
      ]),
    );
  }
  return choices;
}

/** The kernel's multiport match has 15 slots; a range takes two. */
const SLOTS = 15;

function chunks(ports: readonly PortRange[]): PortRange[][] {
  const result: PortRange[][] = [];
  let free = 0;
  for (const range of ports) {
    const slots = range.from === range.to ? 1 : 2;
    if (slots > free) {
      result.push([]);
      free = SLOTS;
    }
    result.at(-1)!.push(range);
    free -= slots;
  }
  return result;
}
