/**
 * Inputs for BGP tests: nodes, peers and filters with what is not said left at its default.
 *
 * In: what a test is about. Out: a BgpInput. Never: a record that the model would refuse.
 */
import type { BgpInput, BgpNode } from '../../../src/bgp/config.ts';
import { bgpFilterSchema, bgpPeerSchema, bgpSettingsSchema } from '../../../src/model/bgp.ts';
import { type Address, type Cidr, parseAddress, parseCidr } from '../../../src/model/ip.ts';

export function node(number: number, more: Partial<BgpNode> = {}): BgpNode {
  return {
    address4: parseAddress(`192.0.2.${number}`),
    address6: null,
    asNumber: null,
    labels: {},
    routeReflectorClusterId: null,
    bgpPort: 179,
    ...more,
  };
}

export interface Wanted {
  /** Seen from this one. */
  readonly node?: string;
  readonly nodes?: Readonly<Record<string, BgpNode>>;
  readonly peers?: Readonly<Record<string, object>>;
  readonly filters?: Readonly<Record<string, object | null>>;
  readonly settings?: object;
  readonly pools?: readonly string[];
  readonly isOnLink?: (address: Address) => boolean;
}

export function input(wanted: Wanted = {}): BgpInput {
  const { nodes = { node1: node(1), node2: node(2), node3: node(3) } } = wanted;
  return {
    node: wanted.node ?? 'node1',
    nodes: new Map(Object.entries(nodes)),
    peers: mapOf(wanted.peers, (peer) => bgpPeerSchema.parse(peer)),
    filters: mapOf(wanted.filters, (filter) => (filter === null ? null : bgpFilterSchema.parse(filter))),
    settings: bgpSettingsSchema.parse(wanted.settings ?? {}),
    pools: (wanted.pools ?? ['10.65.0.0/16']).map((pool): Cidr => parseCidr(pool)),
    isOnLink: wanted.isOnLink ?? (() => true),
  };
}

function mapOf<T, U>(
  values: Readonly<Record<string, T>> | undefined,
  parse: (value: T) => U,
): Map<string, U> {
  return new Map(Object.entries(values ?? {}).map(([name, value]) => [name, parse(value)]));
}
