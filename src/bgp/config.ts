/**
 * What goes into BIRD's configuration, and what comes of it before it is text: flat values, no references.
 *
 * In: nothing. Out: the types between `compileBgp`, `renderBird` and `compareSessions`. Never: a text of a user that has not been
 * through its parser in src/model.
 */
import type { BgpFilter, BgpFilterRule, BgpPeer, BgpSettings } from '../model/bgp.ts';
import type { Address, Cidr, Family } from '../model/ip.ts';
import type { Labels } from '../model/selector.ts';

/** What BGP needs to know of a node. */
export interface BgpNode {
  readonly address4: Address | null;
  readonly address6: Address | null;
  /** null: the cluster's. */
  readonly asNumber: number | null;
  readonly labels: Labels;
  /** Set: it is a route reflector of this cluster id (RFC 4456). */
  readonly routeReflectorClusterId: Address | null;
  /** Where its BIRD listens; null: it has none. */
  readonly bgpPort: number | null;
}

export interface BgpInput {
  /** Name of this node. */
  readonly node: string;
  /** All nodes by name, this one included. */
  readonly nodes: ReadonlyMap<string, BgpNode>;
  readonly peers: ReadonlyMap<string, BgpPeer>;
  /** null: there is one, but it cannot be read: sessions that use it pass nothing. */
  readonly filters: ReadonlyMap<string, BgpFilter | null>;
  readonly settings: BgpSettings;
  /** Prefixes of the routed pools, of both families. */
  readonly pools: readonly Cidr[];
  /** True for an address on a network of one of this node's interfaces. */
  isOnLink(address: Address): boolean;
}

/** What `node status` calls the kind of a session. */
export type SessionType = 'mesh' | 'node' | 'selector' | 'global';

export interface BgpConfig {
  readonly routerId: Address;
  readonly pools: Readonly<Record<Family, readonly Cidr[]>>;
  /** Some next hop lies behind a router, so BIRD has to know the host's other routes to find the way there. */
  readonly isRouted: Readonly<Record<Family, boolean>>;
  readonly gracefulRestartSeconds: number;
  readonly bfd: { readonly intervalMilliseconds: number; readonly multiplier: number };
  /** Sorted by protocol. */
  readonly sessions: readonly BgpSession[];
  /** The filters that sessions name, sorted by name; null: passes nothing. */
  readonly filters: readonly { readonly name: string; readonly rules: readonly BgpFilterRule[] | null }[];
  /** What of the records cannot be carried out, a sentence each. */
  readonly problems: readonly string[];
}

export interface BgpSession {
  /** Name in BIRD: its type and a hash, safe and the same as long as it is the same peer. */
  readonly protocol: string;
  readonly type: SessionType;
  /** Record of the peer; null for the mesh. */
  readonly peer: string | null;
  /** The node at the other end; null for a router outside. */
  readonly node: string | null;
  readonly address: Address;
  readonly port: number;
  readonly asNumber: number;
  readonly localAddress: Address;
  readonly localAsNumber: number;
  readonly localPort: number;
  /** Families whose routes are exchanged: the session's own, and IPv4 with extended next hop. */
  readonly families: readonly Family[];
  readonly multihop: boolean;
  readonly passive: boolean;
  readonly password: string | null;
  readonly holdSeconds: number;
  /** null: a third of the hold time that the two sides agree on. */
  readonly keepaliveSeconds: number | null;
  readonly ttlSecurityHops: number | null;
  /** graceful: between nodes, where the agent tells a BIRD that restarts from a host that is dead. */
  readonly bfd: 'on' | 'graceful' | null;
  readonly nextHop: 'self' | 'keep' | null;
  /** The peer is a client of this reflector. */
  readonly clientOf: Address | null;
  /** This node passes on what others announced: it is a reflector. */
  readonly passesOn: boolean;
  /** Takes prefixes of the pools only: between nodes. */
  readonly onlyPools: boolean;
  readonly extendedNextHop: boolean;
  /** How often our own AS may be in a path that is taken. */
  readonly allowOwnAsNumbers: number;
  readonly prepend: number;
  readonly communities: readonly string[];
  readonly importFilters: readonly string[];
  readonly exportFilters: readonly string[];
  readonly maxPrefixes: number | null;
}
