/**
 * Where a packet is judged between two parties: on hosts, and in the containers of macvlan endpoints (pure).
 *
 *     macvlan → macvlan                 its container, the other's container
 *     macvlan → routed, or elsewhere    its container, the other's host
 *     macvlan ↔ its own host            by their pair: the host (and out of the container, the container); without one, nowhere
 *     routed → macvlan of the same host with a pair: the host alone
 *
 * In: the parties as the store has them. Out: the places, in the order in which a packet comes to them. Never: a host asked that the packet passes
 * as a frame only.
 */
import type { Address } from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';
import type { containerEntries } from '../policy/container-chains.ts';
import type { Explanation } from '../policy/explain.ts';

export interface Party {
  readonly address: Address;
  /** null for an address of nobody that the store knows. */
  readonly node: string | null;
  readonly endpoint: string | null;
}

export interface HostAnswer {
  readonly node: string;
  /** The macvlan endpoint in whose container the rules are; null: on the host. */
  readonly container: string | null;
  /** `left`: netctl does not decide, the host's own rules do. */
  readonly verdict: 'accept' | 'drop' | 'left';
  readonly rules: {
    readonly chain: string;
    /** From 1. */
    readonly position: number;
    readonly text: string;
    readonly verdict: string;
    readonly origin: { kind: string; name: string; direction: string; position: number } | null;
  }[];
}

export interface Found extends Party {
  /** '' for a host itself, null for a party outside. */
  readonly hostInterface: string | null;
  /** A macvlan endpoint's record. */
  readonly onWire: Endpoint | null;
}

/** Where a packet is judged. */
export type Place =
  | { readonly node: string }
  | { readonly at: Found; readonly entry: keyof typeof containerEntries };

/** In the order in which a packet comes to them. */
export function placesOf(source: Found, destination: Found): Place[] {
  const isPair = hasPairBetween(source, destination);
  const nodes = [source, destination].flatMap(({ node, onWire }) =>
    node === null || (onWire !== null && !isPair) ? [] : [node],
  );
  const onHosts = [...new Set(nodes)].map((node): Place => ({ node }));
  const before: Place[] =
    source.onWire === null ? [] : [{ at: source, entry: isPair ? 'pairOut' : 'wireOut' }];
  // What comes by the pair, the host has judged.
  const behind: Place[] = destination.onWire === null || isPair ? [] : [{ at: destination, entry: 'wireIn' }];
  return isDeaf(source, destination)
    ? [{ at: source.onWire === null ? destination : source, entry: 'wireIn' }]
    : [...before, ...onHosts, ...behind];
}

/** Between a host and its own container, and from its routed endpoints; what goes to those, goes over the wire. */
export function hasPairBetween(source: Found, destination: Found): boolean {
  const [macvlan, other] = source.onWire === null ? [destination, source] : [source, destination];
  if (macvlan.onWire?.macvlan?.hostAccess !== 'veth' || other.onWire !== null) return false;
  return other.node === macvlan.node && (macvlan === destination || other.hostInterface === '');
}

/** A macvlan and its own host do not hear each other on the wire. */
export function isDeaf(source: Found, destination: Found): boolean {
  const [macvlan, other] = source.onWire === null ? [destination, source] : [source, destination];
  const isOwnHost = other.hostInterface === '' && other.node === macvlan.node;
  return macvlan.onWire?.macvlan?.hostAccess === 'none' && isOwnHost;
}

export function noWay(node: string, { endpoint, onWire }: Found): HostAnswer {
  const text = 'a macvlan and its own host do not hear each other (hostAccess: none)';
  const chain = onWire?.macvlan?.parent ?? '';
  const rules = [{ chain, position: 1, text, verdict: 'drop', origin: null }];
  return { node, container: endpoint, verdict: 'drop', rules };
}

export function answerOf(
  node: string,
  container: string | null,
  { verdict, steps }: Explanation,
): HostAnswer {
  const rules = steps.map(({ chain, index, rule: { comment, verdict, origin } }) => ({
    chain,
    position: index + 1,
    text: comment,
    verdict: verdictText(verdict),
    origin:
      origin === undefined
        ? null
        : { kind: origin.kind, name: origin.name, direction: origin.direction, position: origin.index + 1 },
  }));
  return { node, container, verdict, rules };
}

function verdictText(verdict: Explanation['steps'][number]['rule']['verdict']): string {
  if (verdict.kind === 'dnat') return `to port ${verdict.port} of ${verdict.address}`;
  return 'chain' in verdict ? `${verdict.kind} ${verdict.chain}` : verdict.kind;
}
