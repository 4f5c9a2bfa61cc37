/**
 * Profiles → chains (pure).
 *
 *     FORWARD ─► nctl-FORWARD ─┬─► nctl-from ─► nctl-out-<list> ─► nctl-allowed ─┬─► elsewhere
 *                              └─► nctl-to ◄──────── to an endpoint of this host ┘
 *                                     └─► nctl-in-<list>
 *     INPUT ───► nctl-INPUT ─────► nctl-host ─► nctl-host-<list>     (outbound rules, then endpointToHost)
 *
 * Verdicts travel by goto: no packet mark is used, and RETURN anywhere below leads to the built-in chain. Outbound rules stand
 * twice, for FORWARD and for INPUT, because no match tells for sure in which of the two a packet is (addrtype calls an IPv6
 * address of this host unicast, as any other).
 *
 * In: profiles by name, the lists in use. Out: chains for one family. Never: a packet of an endpoint that is accepted without a
 * rule that says so; a foreign packet that is touched.
 */
import type { Family } from '../model/ip.ts';
import type { Profile } from '../model/profile.ts';
import { ICMPV6 } from '../model/protocol.ts';
import type { Action, Rule, Side } from '../model/rule.ts';
import { ruleText } from '../model/rule-text.ts';
import type { Chain, ChainRule, Condition, Verdict } from './chain.ts';
import { compileRule } from './compile-rule.ts';
import { chains, endpointInterfaces, endpointSet, listChains, listSet } from './names.ts';

/** What a container may send to its own host, once its outbound rules have allowed it. */
export type EndpointToHost = 'drop' | 'accept' | 'return';

/** The one rule at the top of each built-in chain that leads to ours. */
export const jumps: readonly { readonly builtin: 'FORWARD' | 'INPUT'; readonly rule: ChainRule }[] = [
  { builtin: 'FORWARD', rule: rule([], { kind: 'jump', chain: chains.forward }, 'policy of endpoints') },
  {
    builtin: 'INPUT',
    rule: rule([fromEndpoint()], { kind: 'jump', chain: chains.input }, 'policy of endpoints'),
  },
];

/** The chains that do not depend on which lists are in use. */
export function compileBase(family: Family): Chain[] {
  return [compileForward(family), compileInput(family), compileAllowed()];
}

/** nctl-from, nctl-host and nctl-to: which list of profiles a packet's endpoint has. @param lists ids, sorted */
export function compileDispatch(family: Family, lists: readonly string[]): Chain[] {
  const dispatch = (name: string, side: Side, chain: (list: string) => string): Chain => ({
    name,
    rules: [
      ...lists.map((list) =>
        rule([inSet(listSet(family, list), side)], goto(chain(list)), `endpoints with ${list}`),
      ),
      rule([], DROP, 'unknown endpoint'),
    ],
  });
  return [
    dispatch(chains.from, 'src', listChains.outbound),
    dispatch(chains.host, 'src', listChains.host),
    dispatch(chains.to, 'dst', listChains.inbound),
  ];
}

/** nctl-in-<list>, nctl-out-<list> and nctl-host-<list>. A profile that is missing denies, in its place. */
export function compileList(
  family: Family,
  list: string,
  profiles: readonly string[],
  profile: (name: string) => Profile | null,
  endpointToHost: EndpointToHost,
): Chain[] {
  const flatten = (rulesOf: (profile: Profile) => readonly Rule[], allow: Verdict): ChainRule[] => {
    const rules: ChainRule[] = [];
    for (const name of profiles) {
      const found = profile(name);
      if (found === null) return [...rules, rule([], DROP, `profile ${name} is missing or invalid`)];
      for (const each of rulesOf(found)) {
        rules.push(
          ...compileRule(each, family, verdictOf(each.action, allow, name), `${name}: ${ruleText(each)}`),
        );
      }
    }
    return [...rules, rule([], DROP, 'no profile matched')];
  };
  return [
    { name: listChains.inbound(list), rules: flatten((found) => found.inbound, ACCEPT) },
    { name: listChains.outbound(list), rules: flatten((found) => found.outbound, goto(chains.allowed)) },
    { name: listChains.host(list), rules: flatten((found) => found.outbound, { kind: endpointToHost }) },
  ];
}

/** The spoof check stands first, so that no forged packet rides on an established connection. */
function compileForward(family: Family): Chain {
  return {
    name: chains.forward,
    rules: [
      rule([interfaceIs('src', true), interfaceIs('dst', true)], { kind: 'return' }, 'not of an endpoint'),
      dropSpoofed(family),
      ...byConnection(),
      rule([fromEndpoint()], goto(chains.from), 'from an endpoint'),
      rule([], goto(chains.to), 'to an endpoint'),
    ],
  };
}

/** IPv6 neighbours are found from link-local addresses, which no set holds. */
function compileInput(family: Family): Chain {
  return {
    name: chains.input,
    rules: [
      ...(family === 6
        ? [acceptIcmp6(135, 'neighbour solicitation'), acceptIcmp6(136, 'neighbour advertisement')]
        : []),
      dropSpoofed(family),
      ...byConnection(),
      rule([], goto(chains.host), 'from an endpoint to this host'),
    ],
  };
}

function compileAllowed(): Chain {
  return {
    name: chains.allowed,
    rules: [
      rule([interfaceIs('dst', false)], goto(chains.to), 'to an endpoint of this host'),
      rule([], ACCEPT, 'to elsewhere'),
    ],
  };
}

function byConnection(): ChainRule[] {
  return [
    rule([{ kind: 'connection', states: ['RELATED', 'ESTABLISHED'] }], ACCEPT, 'known connection'),
    rule([{ kind: 'connection', states: ['INVALID'] }], DROP, 'of no connection'),
  ];
}

function dropSpoofed(family: Family): ChainRule {
  const isEndpoint = inSet(endpointSet(family), 'src');
  return rule(
    [fromEndpoint(), { ...isEndpoint, negated: true }],
    DROP,
    'spoofed source or unknown interface',
  );
}

function acceptIcmp6(type: number, comment: string): ChainRule {
  return rule(
    [
      { kind: 'protocol', protocol: ICMPV6, negated: false },
      { kind: 'icmp', family: 6, type, code: null, negated: false },
    ],
    ACCEPT,
    comment,
  );
}

function verdictOf(action: Action, allow: Verdict, profile: string): Verdict {
  if (action === 'allow') return allow;
  return action === 'deny' ? DROP : { kind: 'log', prefix: `netctl:${profile} ` };
}

const ACCEPT: Verdict = { kind: 'accept' };
const DROP: Verdict = { kind: 'drop' };

function goto(chain: string): Verdict {
  return { kind: 'goto', chain };
}

function rule(conditions: readonly Condition[], verdict: Verdict, comment: string): ChainRule {
  return { conditions, verdict, comment };
}

function fromEndpoint(): Condition {
  return interfaceIs('src', false);
}

function interfaceIs(side: Side, negated: boolean): Condition {
  return { kind: 'interface', side, pattern: endpointInterfaces, negated };
}

function inSet(set: string, side: Side): Condition & { kind: 'set' } {
  return { kind: 'set', set, side, withInterface: true, negated: false };
}
