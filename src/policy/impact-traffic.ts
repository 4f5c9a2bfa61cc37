/**
 * The kinds of traffic that a set of rules tells apart (pure): one packet stands for each, and what became of several is said in few words.
 *
 * In: rules. Out: packets by protocol, ports and ICMP type; words. Never: two packets in one kind that some rule tells apart.
 */
import type { Family } from '../model/ip.ts';
import { portText } from '../model/port-range.ts';
import { carriesPorts, ICMP, ICMPV6, protocolName } from '../model/protocol.ts';
import type { Rule, Side } from '../model/rule.ts';
import type { Packet } from './explain.ts';

export interface Traffic extends Pick<Packet, 'protocol' | 'sourcePort' | 'destinationPort' | 'icmp'> {
  /** Of the ports that it stands for; null where the protocol has none. */
  readonly to: { readonly from: number; readonly to: number } | null;
  readonly from: { readonly from: number; readonly to: number } | null;
}

const LAST_PORT = 65535;
const TCP = 6;
const UDP = 17;
/** For experiments (RFC 3692): stands for protocols that no rule names. */
const OTHER = 253;

export function trafficOf(rules: readonly Rule[], family: Family): Traffic[] {
  const matches = rules.flatMap((rule) => rule.matches);
  const icmp = family === 4 ? ICMP : ICMPV6;
  const named = matches.flatMap((match) => (match.kind === 'protocol' ? [match.protocol] : []));
  const protocols = [...new Set([TCP, UDP, icmp, ...named, OTHER])].filter(
    (protocol) => protocol !== (family === 4 ? ICMPV6 : ICMP),
  );
  const ports = (side: Side) =>
    intervals(matches.flatMap((match) => (match.kind === 'ports' && match.side === side ? match.ports : [])));
  const [sources, destinations] = [ports('src'), ports('dst')];
  const types = matches.flatMap((match) => (match.kind === 'icmp' ? [match] : []));
  return protocols.flatMap((protocol): Traffic[] => {
    const none = { protocol, sourcePort: null, destinationPort: null, icmp: null, from: null, to: null };
    if (protocol === icmp) return icmpKinds(types).map((kind) => ({ ...none, icmp: kind }));
    if (!carriesPorts(protocol)) return [none];
    return sources.flatMap((from) =>
      destinations.map((to) => ({ ...none, sourcePort: from.from, destinationPort: to.from, from, to })),
    );
  });
}

/** `all traffic`, or `tcp 22,80, udp, icmp type 8`. @param of which of all kinds are meant */
export function trafficText(all: readonly Traffic[], of: ReadonlySet<Traffic>): string {
  if (all.every((each) => of.has(each))) return 'all traffic';
  const byProtocol = Map.groupBy(all, ({ protocol }) => protocol);
  return Array.from(byProtocol, ([protocol, kinds]) => {
    const meant = kinds.filter((each) => of.has(each));
    if (meant.length === 0) return null;
    const name = protocol === OTHER ? 'other protocols' : String(protocolName(protocol));
    if (meant.length === kinds.length) return name;
    if (meant[0]!.to === null) return `${name} ${meant.map(icmpText).join(', ')}`;
    const bySource = Map.groupBy(meant, ({ from }) => portText(from!));
    return Array.from(bySource, ([from, each]) => {
      const to = joined(each.map(({ to }) => to!))
        .map(portText)
        .join(',');
      const isAll = from === `0:${LAST_PORT}`;
      return `${name} ${to}${isAll ? '' : ` from ports ${from}`}`;
    }).join(', ');
  })
    .filter((text) => text !== null)
    .join(', ');
}

function intervals(ranges: readonly { from: number; to: number }[]): { from: number; to: number }[] {
  const starts = new Set([0, ...ranges.flatMap(({ from, to }) => [from, to + 1])]);
  const sorted = [...starts].filter((port) => port <= LAST_PORT).sort((a, b) => a - b);
  return sorted.map((from, i) => ({ from, to: (sorted[i + 1] ?? LAST_PORT + 1) - 1 }));
}

/** Neighbours as one range. */
function joined(ranges: readonly { from: number; to: number }[]): { from: number; to: number }[] {
  const result: { from: number; to: number }[] = [];
  for (const { from, to } of ranges) {
    const last = result.at(-1);
    if (last?.to === from - 1) last.to = to;
    else result.push({ from, to });
  }
  return result;
}

/** Each type and code that a rule names, another code of that type, and another type. */
function icmpKinds(
  named: readonly { type: number; code: number | null }[],
): { type: number; code: number }[] {
  const types = [...new Set(named.map(({ type }) => type))];
  const unused = (of: readonly number[]): number => {
    let number = 0;
    while (of.includes(number)) number++;
    return number;
  };
  const kinds = types.flatMap((type) => {
    const codes = [
      ...new Set(named.flatMap((each) => (each.type === type && each.code !== null ? [each.code] : []))),
    ];
    return [...codes, unused(codes)].map((code) => ({ type, code }));
  });
  return [...kinds, { type: unused(types), code: 0 }];
}

function icmpText({ icmp }: Traffic): string {
  return `type ${icmp!.type} code ${icmp!.code}`;
}
