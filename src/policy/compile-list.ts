/**
 * The chains of one list: what its policies and profiles say (pure).
 *
 *     nctl-in-<list>     no policy: the profiles' rules       with policies: theirs, then drop
 *         └─ pass ─► nctl-pi-<list>                           the profiles' rules, then drop
 *     nctl-out-<list>, nctl-host-<list> likewise; for host endpoints nctl-hi-<list> and nctl-ho-<list>
 *
 * In: names, what they stand for, a family. Out: chains. Never: a rule left out because something that it names is missing or
 * broken: such a rule denies whatever it could have spoken of.
 */
import type { Family } from '../model/ip.ts';
import type { BrokenPolicy, Policy } from '../model/policy.ts';
import type { Profile } from '../model/profile.ts';
import type { Rule } from '../model/rule.ts';
import { ruleText } from '../model/rule-text.ts';
import {
  ACCEPT,
  type Chain,
  type ChainRule,
  DROP,
  goto,
  type RuleOrigin,
  rule,
  type Verdict,
} from './chain.ts';
import { compileRule } from './compile-rule.ts';
import { chains, listChains } from './names.ts';

/** What a container may send to its own host, once its outbound rules have allowed it. */
export type EndpointToHost = 'drop' | 'accept' | 'return';

/** What the names in a list stand for. */
export interface Definitions {
  /** null: missing or invalid. */
  profile(name: string): Profile | null;
  policy(name: string): Policy | BrokenPolicy | null;
  hasAddressSet(name: string): boolean;
}

export interface ListParts {
  /** Of containers, or of the host's own interfaces. */
  readonly kind: 'endpoint' | 'host';
  /** In the order in which they are tried. */
  readonly profiles: readonly string[];
  /** Sorted by name; they are tried in their own order. */
  readonly policies: readonly string[];
}

type Direction = RuleOrigin['direction'];

/** All that a chain of packets to this host says where they are dropped anyhow. */
export const takesNothing: ChainRule = rule([], DROP, 'this host takes nothing from endpoints');

export function compileList(
  family: Family,
  list: string,
  parts: ListParts,
  definitions: Definitions,
  endpointToHost: EndpointToHost,
): Chain[] {
  const compiler = new ListCompiler(family, parts, definitions);
  const allowed = goto(chains.allowed);
  if (parts.kind === 'host') {
    // What netctl does not take away, the host's own rules judge.
    const leave: Verdict = { kind: 'return' };
    return [
      ...compiler.chains('inbound', listChains.hostInbound(list), listChains.hostInboundPassed(list), leave),
      ...compiler.chains(
        'outbound',
        listChains.hostOutbound(list),
        listChains.hostOutboundPassed(list),
        leave,
      ),
    ];
  }
  return [
    ...compiler.chains('inbound', listChains.inbound(list), listChains.inboundPassed(list), ACCEPT),
    ...compiler.chains('outbound', listChains.outbound(list), listChains.outboundPassed(list), allowed),
    ...(isDroppedAnyhow(parts, definitions, endpointToHost)
      ? [{ name: listChains.host(list), rules: [takesNothing] }]
      : compiler.chains('outbound', listChains.host(list), listChains.hostPassed(list), {
          kind: endpointToHost,
        })),
  ];
}

/** What is sent to this host: then no rule has to be asked, unless one is there to log. */
function isDroppedAnyhow(
  parts: ListParts,
  definitions: Definitions,
  endpointToHost: EndpointToHost,
): boolean {
  return endpointToHost === 'drop' && rulesOfList(parts, definitions).every(({ action }) => action !== 'log');
}

/** All rules that the list's parts have now, for the sets that they need. */
export function rulesOfList({ profiles, policies }: ListParts, definitions: Definitions): Rule[] {
  return [...profiles.map(definitions.profile), ...policies.map(definitions.policy)].flatMap((part) =>
    part === null || 'broken' in part ? [] : [...(part.inbound ?? []), ...(part.outbound ?? [])],
  );
}

class ListCompiler {
  readonly #family: Family;
  readonly #parts: ListParts;
  readonly #definitions: Definitions;

  constructor(family: Family, parts: ListParts, definitions: Definitions) {
    this.#family = family;
    this.#parts = parts;
    this.#definitions = definitions;
  }

  /** @param passed name of the chain for what the policies pass */
  chains(direction: Direction, name: string, passed: string, allow: Verdict): Chain[] {
    const policies = this.#policies(direction);
    const profiles = this.#profileRules(direction, allow);
    if (policies.length === 0) return [{ name, rules: profiles }];
    const rules = this.#policyRules(policies, direction, allow, goto(passed));
    const passes = rules.some(({ verdict }) => verdict.kind === 'goto' && verdict.chain === passed);
    return [{ name, rules }, ...(passes ? [{ name: passed, rules: profiles }] : [])];
  }

  /** Those that say something about the direction, in the order in which they are tried. */
  #policies(direction: Direction): [string, Policy | BrokenPolicy][] {
    return this.#parts.policies
      .map((name): [string, Policy | BrokenPolicy | null] => [name, this.#definitions.policy(name)])
      .filter((entry): entry is [string, Policy | BrokenPolicy] => entry[1] !== null)
      .filter(([, policy]) => 'broken' in policy || policy[direction] !== null)
      .sort(([a, { order: first }], [b, { order: second }]) => first - second || (a < b ? -1 : 1));
  }

  #policyRules(
    policies: readonly [string, Policy | BrokenPolicy][],
    direction: Direction,
    allow: Verdict,
    pass: Verdict,
  ): ChainRule[] {
    const rules: ChainRule[] = [];
    for (const [name, policy] of policies) {
      if ('broken' in policy) return [...rules, rule([], DROP, `policy ${name} is invalid`)];
      const origin = { kind: 'policy', name, direction } as const;
      rules.push(...this.#compile(policy[direction] ?? [], origin, { allow, pass }, `policy ${name}`));
    }
    return [...rules, rule([], DROP, 'no policy decided')];
  }

  #profileRules(direction: Direction, allow: Verdict): ChainRule[] {
    const rules: ChainRule[] = [];
    for (const name of this.#parts.profiles) {
      const profile = this.#definitions.profile(name);
      if (profile === null) return [...rules, rule([], DROP, `profile ${name} is missing or invalid`)];
      const origin = { kind: 'profile', name, direction } as const;
      rules.push(...this.#compile(profile[direction], origin, { allow, pass: DROP }, name));
    }
    return [...rules, rule([], DROP, 'no profile matched')];
  }

  #compile(
    rules: readonly Rule[],
    origin: Omit<RuleOrigin, 'index'>,
    { allow, pass }: { allow: Verdict; pass: Verdict },
    who: string,
  ): ChainRule[] {
    return rules.flatMap((each, index) => {
      const { usable, missing } = this.#withoutMissingSets(each);
      const verdicts = {
        allow,
        pass,
        deny: DROP,
        log: { kind: 'log', prefix: `netctl:${origin.name} ` },
      } as const;
      const verdict = missing.length === 0 || each.action === 'log' ? verdicts[each.action] : DROP;
      const why = missing.length === 0 ? '' : ` (address set ${missing.join(', ')} is missing or invalid)`;
      // The double quotes of selectors would not survive in a comment.
      const comment = `${who}: ${ruleText(each).replaceAll('"', "'")}${why}`;
      return compileRule(usable, this.#family, verdict, comment).map((compiled) => ({
        ...compiled,
        origin: { ...origin, index },
      }));
    });
  }

  /** A rule whose set is missing could have meant any address. */
  #withoutMissingSets(rule: Rule): { usable: Rule; missing: string[] } {
    const isMissing = (match: Rule['matches'][number]): boolean =>
      match.kind === 'set' && !this.#definitions.hasAddressSet(match.set);
    const missing = rule.matches.filter(isMissing).map((match) => (match.kind === 'set' ? match.set : ''));
    if (missing.length === 0) return { usable: rule, missing };
    return { usable: { ...rule, matches: rule.matches.filter((match) => !isMissing(match)) }, missing };
  }
}
