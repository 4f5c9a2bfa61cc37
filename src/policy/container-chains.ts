/**
 * The chains around a list where it is enforced inside the container (pure): what a macvlan's traffic meets, which the host does not see.
 *
 *     prerouting ──from the wire─► nctl-wire-in  ─► nctl-in-<list>
 *     postrouting ─to the wire───► nctl-wire-out ─► nctl-out-<list> ─► nctl-allowed
 *                 ─to the host───► nctl-pair-out    only its own sources: the host judges what comes to it
 *     prerouting ──from the host─► nctl-pair-in     marks the connection: what answers goes back by the host
 *     output ────────────────────► nctl-pair-back
 *
 * The lists' own chains are those of routed endpoints (compile-list.ts). The hooks lie between the wire and the container's own
 * address translation and forwarding: what is judged is what the host would see of a routed endpoint. What goes by the pair, the host
 * judges, both ways: there it is traffic of an endpoint's host interface, as any.
 *
 * In: an endpoint's interfaces, its list. Out: chains, and what leads into them. Never: another interface of the container touched.
 */
import type { Cidr, Family } from '../model/ip.ts';
import type { Mac } from '../model/mac.ts';
import { ACCEPT, type Chain, type ChainRule, type Condition, DROP, goto, type Mark, rule } from './chain.ts';
import { acceptIcmp6, known, ofNoConnection } from './compile.ts';
import { chains, listChains } from './names.ts';
import type { NftJump } from './render-nftables.ts';

/** Where packets enter: from and to the wire, from and to the host by the pair, and what the container answers there. */
export const containerEntries = {
  wireIn: 'nctl-wire-in',
  wireOut: 'nctl-wire-out',
  pairIn: 'nctl-pair-in',
  pairOut: 'nctl-pair-out',
  pairBack: 'nctl-pair-back',
} as const;

/** Members: the endpoint's addresses and extra sources. */
export const ownSet = (family: Family): string => `nctl${family}-own`;
/** Members: the extra sources among them. */
export const ownExtraSet = (family: Family): string => `nctl${family}-own-extra`;

export interface ContainerEnds {
  /** The macvlan's name. */
  readonly wire: string;
  /** Of the pair to the host, where there is one, and the mark of connections that came by it. */
  readonly hostPair: { readonly name: string; readonly mark: Mark } | null;
  /** By which the host is known on the wire, where it is reached there, and the MAC that it has there. */
  readonly hostOnWire: { readonly nets: readonly Cidr[]; readonly mac: Mac } | null;
}

/** Between connection tracking and address translation, in both directions. */
export function containerJumps({ wire, hostPair }: ContainerEnds): NftJump[] {
  const inbound = { type: 'filter', hook: 'prerouting', priority: -150 } as const;
  const outbound = { type: 'filter', hook: 'postrouting', priority: 300 } as const;
  const local = { type: 'route', hook: 'output', priority: -150 } as const;
  const jump = (hook: NftJump['hook'], side: 'src' | 'dst', name: string, chain: string): NftJump => ({
    hook,
    chain,
    rule: rule([{ kind: 'interface', side, pattern: name, negated: false }], goto(chain), chain),
  });
  return [
    jump(inbound, 'src', wire, containerEntries.wireIn),
    jump(outbound, 'dst', wire, containerEntries.wireOut),
    ...(hostPair === null
      ? []
      : [
          jump(inbound, 'src', hostPair.name, containerEntries.pairIn),
          jump(outbound, 'dst', hostPair.name, containerEntries.pairOut),
          {
            hook: local,
            chain: containerEntries.pairBack,
            rule: rule([], goto(containerEntries.pairBack), containerEntries.pairBack),
          },
        ]),
  ];
}

/**
 * @param list id; null where the endpoint has no address of the family, and nothing of it passes
 * @param ends `hostOnWire` of this family
 */
export function compileContainer(
  family: Family,
  list: string | null,
  { hostPair, hostOnWire }: ContainerEnds,
  hasExtraSources: boolean,
): Chain[] {
  const hostRules = (ruleOf: (net: Cidr, mac: Mac) => ChainRule): ChainRule[] =>
    hostOnWire === null ? [] : hostOnWire.nets.map((net) => ruleOf(net, hostOnWire.mac));
  const none = [rule([], DROP, 'no address of this family')];
  const inbound = (to: Chain['name']): ChainRule[] => [
    ...(family === 6 ? [acceptIcmp6(130, 'multicast listener query'), ...neighbours()] : []),
    known(),
    ofNoConnection(),
    ...hostRules((net, mac) => rule([is('src', net), { kind: 'source-mac', mac }], ACCEPT, 'from the host')),
    rule([], goto(to), 'from the wire'),
  ];
  const outbound = (to: Chain['name'], more: readonly ChainRule[] = []): ChainRule[] => [
    ...(family === 6 ? unspecified() : []),
    rule([{ ...inSet(ownSet(family)), negated: true }], DROP, 'spoofed source'),
    ...(family === 6 ? neighbours() : []),
    known(),
    ...(hasExtraSources
      ? [rule([inSet(ownExtraSet(family))], goto(to), 'from an extra source of the endpoint')]
      : []),
    ofNoConnection(),
    ...more,
    rule([], goto(to), 'of the endpoint'),
  ];
  const toHost =
    list === null
      ? []
      : hostRules((net) => rule([is('dst', net)], goto(listChains.host(list)), 'to the host'));
  return [
    { name: containerEntries.wireIn, rules: list === null ? none : inbound(listChains.inbound(list)) },
    {
      name: containerEntries.wireOut,
      rules: list === null ? none : outbound(listChains.outbound(list), toHost),
    },
    ...(hostPair === null ? [] : pairChains(family, hostPair.mark)),
    { name: chains.allowed, rules: [rule([], ACCEPT, 'allowed')] },
  ];
}

/**
 * The mark is the connection's, since a packet's own ends with it. Only what begins by the pair is marked: what the container itself begins
 * finds its way as ever.
 */
function pairChains(family: Family, mark: Mark): Chain[] {
  const begins: Condition = { kind: 'connection', states: ['NEW'] };
  const came: Condition = { kind: 'connection-mark', mark };
  return [
    {
      name: containerEntries.pairIn,
      rules: [
        rule([begins], { kind: 'mark-connection', mark }, 'what answers goes back by the host'),
        rule([], ACCEPT, 'judged by the host'),
      ],
    },
    {
      name: containerEntries.pairOut,
      rules: [
        ...(family === 6 ? unspecified() : []),
        rule([{ ...inSet(ownSet(family)), negated: true }], DROP, 'spoofed source'),
        rule([], ACCEPT, 'judged by the host'),
      ],
    },
    {
      name: containerEntries.pairBack,
      rules: [
        rule([came], { kind: 'mark-packet', mark }, 'came by the host'),
        rule([], ACCEPT, 'finds its way by its mark'),
      ],
    },
  ];
}

/** Where the list's own rules begin. */
export function entriesOf(list: string, { hostOnWire }: ContainerEnds): string[] {
  const hasHost = (hostOnWire?.nets.length ?? 0) > 0;
  return [listChains.inbound(list), listChains.outbound(list), ...(hasHost ? [listChains.host(list)] : [])];
}

/** Who has an address is asked and told by these; whose address it is, the rules for frames see to. */
function neighbours(): ChainRule[] {
  return [acceptIcmp6(135, 'neighbour solicitation'), acceptIcmp6(136, 'neighbour advertisement')];
}

/** From no address yet: whether somebody has it, and which multicast groups switches must let through. */
function unspecified(): ChainRule[] {
  const from = is('src', '::/128' as Cidr);
  return [acceptIcmp6(135, 'duplicate address detection'), acceptIcmp6(143, 'multicast listener report')].map(
    (each) => ({ ...each, conditions: [from, ...each.conditions] }),
  );
}

function is(side: 'src' | 'dst', net: Cidr): Condition {
  return { kind: 'net', side, net, negated: false };
}

function inSet(set: string): Condition & { kind: 'set' } {
  return { kind: 'set', set, side: 'src', withInterface: false, negated: false };
}
