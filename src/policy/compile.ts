/**
 * The chains around the lists (pure): entry, spoof guard, which list an endpoint has. The lists' own: compile-list.ts.
 *
 *     FORWARD ─┬─► nctl-FORWARD ─► nctl-from ─► nctl-out-<list> ─► nctl-allowed ─┬─► elsewhere
 *              └─► nctl-FORWARD-to ─► nctl-to ◄──── to an endpoint of this host ─┘
 *                                        └─► nctl-in-<list>
 *     INPUT ───► nctl-INPUT ─────► nctl-host ─► nctl-host-<list>     (outbound rules, then endpointToHost)
 *     FORWARD, INPUT ─► nctl-foreign, nctl-foreign-in ─► as above    (foreign-interfaces.ts; only while there is one)
 *     INPUT, OUTPUT ─► nctl-host-in, nctl-host-out                   (host-endpoints.ts; only while there is a host endpoint)
 *     POSTROUTING ─► nctl-nat                                        (only while a pool asks for NAT)
 *     PREROUTING, OUTPUT, POSTROUTING, INPUT ─► nctl-published…      (published-ports.ts; only while an endpoint publishes a port)
 *
 * Verdicts travel by goto: no packet mark is used, and RETURN anywhere below leads to the built-in chain. Outbound rules stand
 * twice, for FORWARD and for INPUT, because no match tells for sure in which of the two a packet is (addrtype calls an IPv6
 * address of this host unicast, as any other).
 *
 * In: the lists in use. Out: chains for one family. Never: a packet of an endpoint that is accepted without a
 * rule that says so; a foreign packet that is touched.
 */
import type { Cidr, Family } from '../model/ip.ts';
import { ICMPV6 } from '../model/protocol.ts';
import type { Side } from '../model/rule.ts';
import { ACCEPT, type Chain, type ChainRule, type Condition, DROP, goto, lazyChain, rule } from './chain.ts';
import {
  chains,
  endpointInterfaces,
  endpointSet,
  extraSourceSet,
  foreignSet,
  listChains,
  listSet,
  natPoolSet,
  poolSet,
} from './names.ts';

export const loopbackNet = '127.0.0.0/8' as Cidr;

/** What leads from the kernel's own chains to ours. */
export interface Jump {
  readonly table: 'filter' | 'nat';
  readonly builtin: 'FORWARD' | 'INPUT' | 'OUTPUT' | 'PREROUTING' | 'POSTROUTING';
  /** It is in place exactly while this chain is. */
  readonly chain: string;
  readonly rule: ChainRule;
}

/**
 * At the top of the kernel's chains, in this order. What leads on all packets comes back with those that it does not decide; of the
 * others, no two in one chain speak of the same packets, or the first decides.
 */
export const jumps: readonly Jump[] = [
  jump('filter', 'FORWARD', chains.foreign, [], 'interfaces of other plugins'),
  jump('filter', 'FORWARD', chains.forward, [fromEndpoint()], 'from endpoints'),
  // Of those from endpoints none gets here: what it leads to decides all of them.
  jump('filter', 'FORWARD', chains.forwardTo, [interfaceIs('dst', false)], 'to endpoints'),
  jump('filter', 'INPUT', chains.publishedIn, [fromEndpoint(), toLoopback()], 'published ports'),
  jump('filter', 'INPUT', chains.foreignIn, [], 'interfaces of other plugins'),
  jump('filter', 'INPUT', chains.input, [fromEndpoint()], 'policy of endpoints'),
  jump('filter', 'INPUT', chains.hostIn, [interfaceIs('src', true)], 'policy of host interfaces'),
  jump('filter', 'OUTPUT', chains.hostOut, [interfaceIs('dst', true)], 'policy of host interfaces'),
  jump('nat', 'PREROUTING', chains.published, [{ kind: 'to-this-host' }], 'published ports'),
  jump('nat', 'OUTPUT', chains.published, [{ kind: 'to-this-host' }], 'published ports'),
  jump('nat', 'POSTROUTING', chains.publishedBack, [], 'published ports'),
  jump('nat', 'POSTROUTING', chains.nat, [], 'pools with NAT'),
];

/** nctl-nat: what pools with NAT send to where no pool is. Of what stays inside the pools, the source stays what it is. */
export function compileNat(family: Family): Chain {
  const inside = (set: string, side: Side, negated: boolean): Condition => {
    return { kind: 'set', set, side, withInterface: false, negated };
  };
  const conditions = [inside(natPoolSet(family), 'src', false), inside(poolSet(family), 'dst', true)];
  return {
    name: chains.nat,
    table: 'nat',
    rules: [rule(conditions, { kind: 'masquerade' }, 'leaves the pools')],
  };
}

/**
 * The chains that do not depend on which lists are in use.
 * @param has an endpoint with an extra source of the family; an endpoint with an interface that another plugin has made
 */
export function compileBase(
  family: Family,
  has: { readonly extraSources: boolean; readonly foreign: boolean },
): Chain[] {
  const extra = has.extraSources ? [fromExtraSource(family)] : [];
  return [
    compileForward(family, extra),
    compileForwardTo(),
    compileInput(family),
    compileAllowed(family, has.foreign),
  ];
}

/**
 * What comes from an interface of ours is for nctl-FORWARD, wherever it goes. Known connections are accepted here: the chains that this leads
 * to may have left that to whoever leads there by the name of the interface (render-nftables.ts).
 */
export function compileForeign(family: Family): Chain[] {
  const from = inSet(foreignSet(family), 'src');
  const to = inSet(foreignSet(family), 'dst');
  return [
    {
      name: chains.foreign,
      rules: [
        knownFrom(family),
        rule([from], goto(chains.forward), 'from an endpoint'),
        known(interfaceIs('src', true), to),
        rule([interfaceIs('src', true), to], goto(chains.forwardTo), 'to an endpoint'),
      ],
    },
    {
      name: chains.foreignIn,
      rules: [knownFrom(family), rule([from], goto(chains.input), 'from an endpoint to this host')],
    },
  ];
}

/**
 * nctl-from, nctl-host and nctl-to: which list of profiles a packet's endpoint has. While a thousand lists come, each tells these
 * chains anew: their rules are made when they are first asked for.
 * @param lists ids, sorted
 */
export function compileDispatch(family: Family, lists: readonly string[]): Chain[] {
  const dispatch = (name: string, side: Side, chain: (list: string) => string): Chain =>
    lazyChain(name, () => [
      ...lists.map((list) =>
        rule([inSet(listSet(family, list), side)], goto(chain(list)), `endpoints with ${list}`),
      ),
      rule([], DROP, 'unknown endpoint'),
    ]);
  return [
    dispatch(chains.from, 'src', listChains.outbound),
    dispatch(chains.host, 'src', listChains.host),
    dispatch(chains.to, 'dst', listChains.inbound),
  ];
}

function compileForward(family: Family, extra: readonly ChainRule[]): Chain {
  return {
    name: chains.forward,
    rules: [
      knownFrom(family),
      dropSpoofed(family),
      ...extra,
      ofNoConnection(),
      rule([], goto(chains.from), 'from an endpoint'),
    ],
  };
}

function compileForwardTo(): Chain {
  return {
    name: chains.forwardTo,
    rules: [known(), ofNoConnection(), rule([], goto(chains.to), 'to an endpoint')],
  };
}

/** IPv6 neighbours are found from link-local addresses, which no set holds. */
function compileInput(family: Family): Chain {
  return {
    name: chains.input,
    rules: [
      knownFrom(family),
      ...(family === 6
        ? [acceptIcmp6(135, 'neighbour solicitation'), acceptIcmp6(136, 'neighbour advertisement')]
        : []),
      dropSpoofed(family),
      ofNoConnection(),
      rule([], goto(chains.host), 'from an endpoint to this host'),
    ],
  };
}

function compileAllowed(family: Family, hasForeign: boolean): Chain {
  const toForeign = rule([inSet(foreignSet(family), 'dst')], goto(chains.to), 'to an endpoint of this host');
  return {
    name: chains.allowed,
    rules: [
      rule([interfaceIs('dst', false)], goto(chains.to), 'to an endpoint of this host'),
      ...(hasForeign ? [toForeign] : []),
      rule([], ACCEPT, 'to elsewhere'),
    ],
  };
}

function jump(
  table: Jump['table'],
  builtin: Jump['builtin'],
  chain: string,
  conditions: readonly Condition[],
  comment: string,
): Jump {
  return { table, builtin, chain, rule: rule(conditions, { kind: 'jump', chain }, comment) };
}

export function known(...more: readonly Condition[]): ChainRule {
  const isKnown = { kind: 'connection', states: ['RELATED', 'ESTABLISHED'] } as const;
  return rule([isKnown, ...more], ACCEPT, 'known connection');
}

/** The source is asked for in the same rule, so that no forged packet rides on somebody else's connection. */
function knownFrom(family: Family): ChainRule {
  return known(inSet(endpointSet(family), 'src'));
}

export function ofNoConnection(): ChainRule {
  return rule([{ kind: 'connection', states: ['INVALID'] }], DROP, 'of no connection');
}

/**
 * An answer from a virtual address belongs to no connection that this host has seen (the question came to another address, in a
 * tunnel): the outbound rules judge every packet of it.
 */
function fromExtraSource(family: Family): ChainRule {
  const isExtra = inSet(extraSourceSet(family), 'src');
  return rule([isExtra], goto(chains.from), 'from an extra source of an endpoint');
}

function dropSpoofed(family: Family): ChainRule {
  const isEndpoint = inSet(endpointSet(family), 'src');
  return rule([{ ...isEndpoint, negated: true }], DROP, 'spoofed source or unknown interface');
}

export function acceptIcmp6(type: number, comment: string): ChainRule {
  return rule(
    [
      { kind: 'protocol', protocol: ICMPV6, negated: false },
      { kind: 'icmp', family: 6, type, code: null, negated: false },
    ],
    ACCEPT,
    comment,
  );
}

function toLoopback(): Condition {
  return { kind: 'net', side: 'dst', net: loopbackNet, negated: false };
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
