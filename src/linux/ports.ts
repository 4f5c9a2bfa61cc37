/**
 * The ports to Linux: what the rest of netctl may ask of a kernel, in the kernel's own terms.
 *
 * In: requests as plain values (names, indexes, addresses as canonical text). Out: what the kernel holds, or a
 * KernelError with the errno and the kernel's own words. Never: a domain word (endpoint, profile, pool), a policy decision.
 * Two adapters: real/ (netlink through the addon, iptables by execution) and fake/ (strict, stateful, fails on request);
 * test/kernel/linux-contract.ts runs on both.
 */
import { NetctlError } from '../lib/errors.ts';
import type { Address, Cidr, Family } from '../model/ip.ts';
import type { Mac } from '../model/mac.ts';

/** One host as netctl sees it. `netns` absent means the namespace that the agent runs in. */
export interface Linux {
  /** The families that this kernel has: IPv6 may be switched off at boot, and then nothing of it can be written. */
  readonly families: readonly Family[];
  /** Opens a namespace file. @throws NETNS_INVALID when the path is not a network namespace. Close it soon: it pins the namespace. */
  openNetns(path: string): Netns;
  /** A routing socket born in the namespace; it stays there after `netns` is closed. */
  openRouting(netns?: Netns): Routing;
  /** Reads and writes below /proc/sys (`net/ipv4/ip_forward`), in the namespace. */
  readSysctl(path: string, netns?: Netns): string;
  writeSysctl(path: string, value: string, netns?: Netns): void;
  /** Sends an IP packet from the namespace, and tells which rules of nftables (iptables-nft's too) it meets here, in order. @throws KernelError */
  tracePacket(packet: Uint8Array, netns?: Netns): Promise<TraceStep[]>;
  readonly ipsets: IpSets;
  readonly iptables: Iptables;
  readonly nftables: Nftables;
  readonly conntrack: Conntrack;
  /**
   * Tells of links that appear, change or vanish in the agent's namespace. `lost` means notifications were dropped
   * (receive buffer overflow): read everything again. Returns the function that stops it.
   */
  watchLinks(onEvent: (event: LinkEvent) => void): () => void;
  /**
   * Tells when others have changed rules of nftables (iptables-nft's too, of iptables-legacy the kernel tells nothing) in tables whose
   * names do not begin as given, or when notifications were lost. Returns the function that stops it.
   */
  watchForeignRules(ownTable: string, onChange: () => void): () => void;
  /**
   * Deletes a link of the agent's namespace (with a veth, its peer too). Resolves when the kernel announced that it is
   * gone, or never was; does not wait for the kernel's own RCU grace period (16–25 ms). Many at once go in groups.
   */
  deleteLink(index: number): Promise<void>;
}

export interface Netns {
  readonly fd: number;
  readonly identity: NetnsIdentity;
  close(): void;
}

/** Tells two namespaces apart for as long as either lives; both are the numbers of stat(2). */
export interface NetnsIdentity {
  readonly device: number;
  readonly inode: number;
}

export type LinkEvent =
  | { kind: 'changed'; link: LinkInfo }
  | { kind: 'gone'; index: number; name: string }
  | { kind: 'lost' };

/** rtnetlink in one namespace. */
export interface Routing {
  /**
   * Sends all requests in one message batch and reads the answers before it returns (synchronously: one system call
   * each way). The batch is not atomic: requests after a failed one may have been carried out, so the caller undoes.
   * @throws KernelError of the first request that failed, with its position
   */
  batch(requests: readonly RoutingRequest[]): void;
  /** The link, or null. Also makes the kernel settle the carrier state (no packet lost to a noop qdisc afterwards). */
  link(by: { index: number } | { name: string }): LinkInfo | null;
  links(): Promise<LinkInfo[]>;
  /** Addresses of all links, or of one. */
  addresses(linkIndex?: number): Promise<AddressInfo[]>;
  /** Routes of the main table that carry the protocol number (all protocols if absent). */
  routes(filter?: { protocol?: number }): Promise<RouteInfo[]>;
  neighbours(linkIndex?: number): Promise<NeighbourInfo[]>;
  close(): void;
}

/** What may stand in a batch. Interface indexes may be chosen by the caller (1 … 2^31-1, unused in that namespace). */
export type RoutingRequest =
  | {
      /** Both ends at once, the peer born in the other namespace under its final name. Neither end is up. */
      kind: 'veth-add';
      host: LinkSpec;
      peer: LinkSpec & { readonly netnsFd: number };
    }
  | {
      kind: 'link-set';
      index: number;
      up?: boolean;
      mtuBytes?: number;
      /** `none`: the kernel makes no IPv6 link-local address, and nothing waits for duplicate address detection. */
      ipv6AddressGeneration?: 'none' | 'eui64';
    }
  | { kind: 'link-delete'; index: number }
  | { kind: 'address-add'; index: number; address: Address; prefixLength: number }
  | { kind: 'route-add' | 'route-replace'; route: RouteSpec }
  | { kind: 'route-delete'; route: RouteSpec }
  | { kind: 'neighbour-replace'; index: number; address: Address; mac: Mac };

export interface LinkSpec {
  readonly name: string;
  readonly index: number;
  readonly mac: Mac;
  readonly mtuBytes: number;
}

export interface RouteSpec {
  readonly destination: Cidr;
  /**
   * `local`: delivered on this host, in the table `local` (so `routes` does not list it). The kernel makes these for its
   * addresses by itself, but for IPv6 only when a worker thread gets to it: until then, packets to a new address are lost.
   */
  readonly type: 'unicast' | 'blackhole' | 'local';
  readonly linkIndex?: number;
  readonly gateway?: Address;
  /** The gateway is on the link though no prefix says so. */
  readonly onlink?: boolean;
  /** Preferred source address. */
  readonly source?: Address;
  /** `link` for a directly attached destination; default `universe`. Ignored by IPv6. */
  readonly scope?: 'universe' | 'link';
  /** Who made it: a number of /etc/iproute2/rt_protos. */
  readonly protocol: number;
}

export interface LinkInfo {
  readonly index: number;
  readonly name: string;
  /** `veth`, `macvlan`, …; null for a plain device. */
  readonly type: string | null;
  readonly mac: Mac | null;
  readonly mtuBytes: number;
  readonly up: boolean;
  /** Operational state is UP (RFC 2863). */
  readonly running: boolean;
  /** Index of the peer in the peer's namespace, for a veth. */
  readonly peerIndex: number | null;
}

export interface AddressInfo {
  readonly linkIndex: number;
  readonly address: Address;
  readonly prefixLength: number;
  readonly tentative: boolean;
}

export interface RouteInfo {
  readonly destination: Cidr;
  readonly type: 'unicast' | 'blackhole' | 'unreachable' | 'prohibit' | 'other';
  readonly linkIndex: number | null;
  readonly gateway: Address | null;
  readonly protocol: number;
}

export interface NeighbourInfo {
  readonly linkIndex: number;
  readonly address: Address;
  readonly mac: Mac | null;
  readonly permanent: boolean;
}

/** IP sets of the agent's namespace, over netlink. */
export interface IpSets {
  /** All sets whose name begins with the prefix, with their members. */
  list(namePrefix: string): Promise<IpSetInfo[]>;
  /**
   * Sends the requests in order and reads the answers before it returns. Adding a member that is there, and removing
   * one that is not, succeed. Not atomic: what stood before a failed request is done.
   * @throws KernelError of the first request that failed, with its position
   */
  batch(requests: readonly IpSetRequest[]): void;
}

/**
 * `net`: members are prefixes (`hash:net`). `net,iface`: a prefix with the interface a packet came from or leaves by
 * (`hash:net,iface`).
 */
export type IpSetType = 'net' | 'net,iface';

/** `10.0.0.1/32`, or `10.0.0.1/32,eth0` for `net,iface`. A prefix of length 0 is not a member that the kernel takes. */
export type IpSetMember = string;

export type IpSetRequest =
  | { kind: 'create'; name: string; type: IpSetType; family: Family }
  | { kind: 'destroy'; name: string }
  | { kind: 'flush'; name: string }
  | { kind: 'add' | 'delete'; name: string; members: readonly IpSetMember[] };

export interface IpSetInfo {
  readonly name: string;
  readonly type: IpSetType | 'other';
  readonly family: Family;
  readonly members: readonly IpSetMember[];
}

export type IptablesTable = 'filter' | 'nat';

/** The programs iptables-restore and iptables-save. Never on the path of an ADD whose rules exist. */
export interface Iptables {
  /** Which variant is driven, for status. */
  readonly backend: 'nft' | 'legacy';
  /** The kernel holds a table filter of the legacy variant: its rules count beside those of the other variant. */
  hasLegacyRules(): boolean;
  /**
   * The output of `iptables-save` for the table (default filter); nothing where the kernel does not have the table yet (to ask for it would bring
   * its hooks into the path of every packet). `withCounters`: with `[packets:bytes] ` before each rule.
   */
  save(family: Family, table?: IptablesTable, withCounters?: boolean): Promise<string>;
  /** Feeds `iptables-restore --noflush --wait`: of each table in the text all or nothing, in order. @throws KernelError with the program's words */
  restore(family: Family, text: string): Promise<void>;
}

/** nftables of the agent's namespace, over netlink: tables of the families `ip` and `ip6`. No program is executed. */
export interface Nftables {
  /**
   * Carries out all of the requests at once, or none of them, before it returns. Adding a table, chain, set or element that is there
   * succeeds; deleting one that is not, and adding an element of a map that is there with other data, do not.
   * @throws KernelError of the first request that was refused, with its position
   */
  transact(requests: readonly NftRequest[]): void;
  /** The table with everything in it (anonymous sets aside), or null where there is none. */
  read(family: Family, table: string): Promise<NftTable | null>;
  /** By chain: what the counters of its rules say, in order; null for a rule without. Empty where there is no such table. */
  counts(family: Family, table: string): Promise<ReadonlyMap<string, readonly (NftCount | null)[]>>;
  /** The base chains at the hook forward, of all tables, that drop whatever none of their rules accepts. */
  dropsAtForward(): Promise<NftBaseChain[]>;
  /**
   * Tells when somebody else has changed a table of this name, in either family, or when notifications were lost. Returns the
   * function that stops it.
   */
  watch(table: string, onForeignChange: () => void): () => void;
}

/** One rule, the end or the policy of a chain that a traced packet met. */
export interface TraceStep {
  readonly family: 'ip' | 'ip6' | 'inet';
  readonly table: string;
  readonly chain: string;
  readonly at: 'rule' | 'end' | 'policy';
  /** `accept`, `drop`, `goto CHAIN`, `continue`. */
  readonly verdict: string;
}

export interface NftBaseChain {
  readonly family: 'ip' | 'ip6' | 'inet';
  readonly table: string;
  readonly chain: string;
}

export type NftRequest = { readonly family: Family; readonly table: string } & (
  | { readonly kind: 'table-add' | 'table-delete' }
  | { readonly kind: 'chain-add'; readonly chain: string; readonly hook: NftHook | null }
  | { readonly kind: 'chain-flush' | 'chain-delete'; readonly chain: string }
  | { readonly kind: 'rule-add'; readonly chain: string; readonly rule: NftRule }
  | { readonly kind: 'set-add'; readonly set: string; readonly spec: NftSetSpec }
  | { readonly kind: 'set-delete'; readonly set: string }
  | {
      readonly kind: 'elements-add' | 'elements-delete';
      readonly set: string;
      readonly spec: NftSetSpec;
      readonly elements: readonly NftElement[];
    }
);

/** Makes a chain a base chain, with policy accept. */
export interface NftHook {
  readonly type: 'filter' | 'nat';
  readonly hook: 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting';
  readonly priority: number;
}

export interface NftRule {
  readonly expressions: readonly NftExpression[];
  /** At most 127 bytes. */
  readonly comment: string;
}

/**
 * What the kernel's little machine does, in order; a comparison or look-up that does not hold ends the rule. Registers have 16 bytes
 * and are numbered from 1; a longer value goes on in the next ones. Values are as they stand in the packet.
 */
export type NftExpression =
  | { readonly kind: 'meta'; readonly key: 'iifname' | 'oifname' | 'l4proto' | 'mark'; readonly to: number }
  | { readonly kind: 'mark-set'; readonly from: number }
  | {
      readonly kind: 'payload';
      readonly base: 'network' | 'transport';
      readonly offsetBytes: number;
      readonly lengthBytes: number;
      readonly to: number;
    }
  /** Goes on if the connection is in one of the states. */
  | { readonly kind: 'ct-state'; readonly states: readonly NftConnectionState[] }
  | { readonly kind: 'mask'; readonly register: number; readonly mask: Uint8Array }
  /** A value shorter than what was loaded is compared with its beginning. */
  | { readonly kind: 'compare'; readonly from: number; readonly negated: boolean; readonly value: Uint8Array }
  /** Ranges of two-byte numbers, both ends included, neither overlapping nor touching, ascending. */
  | {
      readonly kind: 'in-ranges';
      readonly from: number;
      readonly negated: boolean;
      readonly ranges: readonly { readonly from: number; readonly to: number }[];
    }
  | { readonly kind: 'in-set'; readonly from: number; readonly negated: boolean; readonly set: string }
  /** Loads the data of a map's element, or ends the rule where there is none. */
  | { readonly kind: 'map'; readonly from: number; readonly map: string; readonly to: number }
  /** Follows the verdict that a map has for a value; goes on with the next rule where there is none. */
  | { readonly kind: 'verdict-map'; readonly from: number; readonly map: string }
  | { readonly kind: 'counter' }
  | { readonly kind: 'limit'; readonly perSecond: number; readonly burst: number }
  | { readonly kind: 'log'; readonly prefix: string }
  /** Only below a base chain of type nat. */
  | { readonly kind: 'masquerade' }
  /** The kernel tells which rules the packet meets from here on. */
  | { readonly kind: 'trace' }
  | { readonly kind: 'verdict'; readonly verdict: NftVerdict };

export type NftConnectionState = 'invalid' | 'established' | 'related';

export type NftVerdict =
  | { readonly kind: 'accept' | 'drop' | 'return' }
  | { readonly kind: 'jump' | 'goto'; readonly chain: string };

/**
 * `pair`: interface and address; `id`: a number of 32 bits. `prefixes`: the elements are prefixes that do not overlap,
 * else single values.
 */
export interface NftSetSpec {
  readonly key: 'address' | 'pair' | 'id';
  readonly prefixes: boolean;
  /** What a map holds; null for a set. */
  readonly data: 'id' | 'verdict' | null;
}

/** Keys are `10.0.0.1`, `10.0.0.1,eth0` (pair), `17` (id); with `prefixes` `10.0.0.0/8`, `10.0.0.0/8,eth0`. */
export type NftElement = readonly [key: string, data: NftData | null];

export type NftData = number | NftVerdict;

export interface NftCount {
  readonly packets: number;
  readonly bytes: number;
}

export interface NftTable {
  readonly isDormant: boolean;
  readonly chains: ReadonlyMap<string, NftChainInfo>;
  readonly sets: ReadonlyMap<string, NftSetInfo>;
}

export interface NftChainInfo {
  /** `other` for a hook, type or policy that we never ask for. */
  readonly hook: NftHook | 'other' | null;
  /** The comments of its rules, in order; null for a rule without. */
  readonly comments: readonly (string | null)[];
}

export interface NftSetInfo {
  readonly spec: NftSetSpec | 'other';
  /** None where the spec is `other`. */
  readonly elements: readonly NftElement[];
}

export interface Conntrack {
  /** Deletes every tracked connection that has the address as original or reply source or destination. */
  flushAddress(address: Address): Promise<void>;
  /** Deletes the tracked connections of the family that are to go. Returns how many. The table is read in pieces. */
  flushWhere(family: Family, isToGo: (connection: TrackedConnection) => boolean): Promise<number>;
}

/** A tracked connection by its first packet, as a filter has seen it: with its destination translated, its source not yet. */
export interface TrackedConnection {
  readonly source: Address;
  readonly destination: Address;
  readonly protocol: number;
  /** null where the protocol has none. */
  readonly sourcePort: number | null;
  readonly destinationPort: number | null;
  readonly icmp: { readonly type: number; readonly code: number } | null;
}

/** The kernel said no. `errno` is its symbolic name (`EEXIST`), `position` that of the request in its batch. */
export class KernelError extends NetctlError {
  readonly errno: string;
  readonly position: number;

  constructor(what: string, errno: string, kernelText: string | null, position = 0) {
    super('KERNEL', `${what}: ${kernelText ? `${kernelText} (${errno})` : errno}`, { errno, position });
    this.name = 'KernelError';
    this.errno = errno;
    this.position = position;
  }
}
