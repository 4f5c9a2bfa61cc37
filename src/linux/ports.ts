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
import type { MacvlanMode } from '../model/macvlan.ts';
import type { LinkCounters, QdiscInfo, TokenBucket } from './link-kinds.ts';
import type { Nftables, OpenNftables, TraceStep } from './nftables-port.ts';

/** One host as netctl sees it. `netns` absent means the namespace that the agent runs in. */
export interface Linux {
  /** The families that this kernel has: IPv6 may be switched off at boot, and then nothing of it can be written. */
  readonly families: readonly Family[];
  /** Opens a namespace file. @throws NETNS_INVALID when the path is not a network namespace. Close it soon: it pins the namespace. */
  openNetns(path: string): Netns;
  /** A routing socket born in the namespace; it stays there after `netns` is closed. */
  openRouting(netns?: Netns): Routing;
  /**
   * Batches one after the other, as Routing.batch; what follows one with a refused request is not sent. Several such chains that come at the
   * same time are carried out together, off the JavaScript thread. Namespaces stay open until the promise settles.
   * @throws KernelError where a batch could not be sent
   */
  batches(batches: readonly Batch[]): Promise<BatchRefusal | null>;
  /**
   * Begins a short batch in the agent's namespace while the caller does something else; what it gives back is to be called once, before any
   * namespace that is named in it is closed, waits for the end, and tells what was refused. null where other work waits: then `batches` is
   * quicker. @throws KernelError where it could not be sent
   */
  ahead(requests: readonly RoutingRequest[]): (() => KernelError | null) | null;
  /**
   * Whole Ethernet frames of one protocol (a number of linux/if_ether.h: 0x0806 is ARP, 0x86dd IPv6) on one link.
   * 0x0003, all of them, hears what tells who has an address (ARP, neighbour discovery), before rules on the link drop it.
   * @param onFrame hears what arrives, not what is sent from here @throws KernelError ENODEV
   */
  openPackets(
    linkIndex: number,
    protocol: number,
    onFrame: ((frame: Buffer) => void) | null,
    netns?: Netns,
  ): Packets;
  /** Reads and writes below /proc/sys (`net/ipv4/ip_forward`), in the namespace. */
  readSysctl(path: string, netns?: Netns): string;
  writeSysctl(path: string, value: string, netns?: Netns): void;
  /**
   * Sends an IP packet from the namespace, and tells which rules of nftables (iptables-nft's too) it meets, in order: here, or `inside` that
   * namespace. @throws KernelError
   */
  tracePacket(packet: Uint8Array, netns?: Netns, where?: 'here' | 'inside'): Promise<TraceStep[]>;
  readonly ipsets: IpSets;
  readonly iptables: Iptables;
  /** Of the agent's namespace. */
  readonly nftables: Nftables;
  /** Of another one, which may be closed afterwards. */
  openNftables(netns: Netns): OpenNftables;
  readonly conntrack: Conntrack;
  /**
   * Of another namespace, which stays open until each call has settled. Its connections are told as the wire sees them: with their source
   * translated, their destination not.
   */
  conntrackIn(netns: Netns): Pick<Conntrack, 'flushWhere'>;
  /** One process of each other namespace that has CAP_NET_ADMIN, by the namespace's inode. */
  networkAdmins(): Promise<ReadonlyMap<number, number>>;
  /**
   * Tells of links that appear, change or vanish in the agent's namespace. `lost` means notifications were dropped
   * (receive buffer overflow): read everything again. Returns the function that stops it.
   * @param quietFrom what links with this index or a higher one change is not told, only that they are gone
   */
  watchLinks(onEvent: (event: LinkEvent) => void, quietFrom?: number): () => void;
  /**
   * Tells when others have changed rules of nftables (iptables-nft's too, of iptables-legacy the kernel tells nothing) in tables whose
   * names do not begin as given, or when notifications were lost. Returns the function that stops it.
   */
  watchForeignRules(ownTable: string, onChange: () => void): () => void;
  /**
   * Tells when others have changed rules of nftables in the namespaces that are given to it, without keeping those alive.
   * @param onChange hears the namespace's inode; null when notifications were lost
   */
  watchRulesIn(onChange: (inode: number | null) => void): RuleWatch;
  /**
   * Deletes a link (by its index, if no name is given) of the agent's namespace, or of another, which stays open until then (with a veth, its peer too). Resolves when
   * the kernel announced that it is gone, or never was; does not wait for the kernel's own RCU grace period (16–25 ms). Many at
   * once in the agent's own namespace go in groups.
   */
  deleteLink(link: number | { readonly name: string }, netns?: Netns): Promise<void>;
}

export interface RuleWatch {
  /** From now on until it ends. @throws KernelError */
  add(netns: Netns): void;
  close(): void;
}

export interface Packets {
  /** @throws KernelError ENETDOWN, ENOBUFS, EPERM (a filter on the link dropped it) */
  send(frame: Uint8Array): void;
  close(): void;
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
  link(by: LinkChoice): LinkInfo | null;
  links(): Promise<LinkInfo[]>;
  /** Addresses of all links, or of one. */
  addresses(linkIndex?: number): Promise<AddressInfo[]>;
  /**
   * Of the main table, with the protocol number (all protocols if absent). @param filter `table`: of another one; `everyTable`: of all but
   * the local one
   */
  routes(filter?: { protocol?: number; everyTable?: boolean; table?: number }): Promise<RouteInfo[]>;
  /** Those that ask for a mark. */
  markRules(): Promise<MarkRule[]>;
  neighbours(linkIndex?: number): Promise<NeighbourInfo[]>;
  /** Queueing disciplines of all links, or of one. */
  qdiscs(linkIndex?: number): Promise<QdiscInfo[]>;
  /** What went through each link since it was made, by index. */
  counters(): Promise<Map<number, LinkCounters>>;
  close(): void;
}

export interface Batch {
  /** Absent: the agent's. */
  readonly netns?: Netns;
  readonly requests: readonly RoutingRequest[];
}

/** Which batch of several was refused, by its number; of `error`, the position is that in the batch. */
export interface BatchRefusal {
  readonly batch: number;
  readonly error: KernelError;
}

export type LinkChoice = { readonly index: number } | { readonly name: string };

/** What may stand in a batch. Interface indexes may be chosen by the caller (1 … 2^31-1, unused in that namespace). */
export type RoutingRequest =
  | {
      /** Both ends at once, the peer born in the other namespace under its final name. Neither end is up. */
      kind: 'veth-add';
      host: LinkSpec;
      peer: LinkSpec & { readonly netnsFd: number };
    }
  /** A macvlan on a link of this namespace, born in the other one (if one is named) under its final name. It is not up. */
  | {
      kind: 'macvlan-add';
      parentIndex: number;
      mode: MacvlanMode;
      link: LinkSpec & { readonly netnsFd?: number };
    }
  /** An 802.1Q VLAN of a link, of this namespace. Not up. EOPNOTSUPP where the kernel has none. */
  | { kind: 'vlan-add'; parentIndex: number; id: number; link: Omit<LinkSpec, 'mac'>; alias: string }
  /** A link that hands on what is sent to it, so that what arrived elsewhere can be queued (`redirect-ingress`). Not up. */
  | { kind: 'ifb-add'; link: Omit<LinkSpec, 'mac'> }
  | {
      kind: 'link-set';
      index: number;
      up?: boolean;
      mtuBytes?: number;
      /** `none`: the kernel makes no IPv6 link-local address, and nothing waits for duplicate address detection. */
      ipv6AddressGeneration?: 'none' | 'eui64';
    }
  /** Makes the kernel settle the carrier state, as Routing.link does. */
  | { kind: 'link-settle'; index: number }
  | { kind: 'link-delete'; index: number }
  /** `scope: host`: answered for on the link, never the source of what is sent by it. */
  | { kind: 'address-add'; index: number; address: Address; prefixLength: number; scope?: 'host' }
  | { kind: 'route-add' | 'route-replace'; route: RouteSpec }
  | { kind: 'route-delete'; route: RouteSpec }
  /** What is sent from the address finds its way in the table first. EEXIST where the rule is there. */
  | { kind: 'source-rule-add' | 'source-rule-delete'; source: Address; table: number }
  /** What carries the mark finds its way in the table first. EEXIST where the rule is there. */
  | { kind: 'mark-rule-add' | 'mark-rule-delete'; family: Family; mark: number; mask: number; table: number }
  | { kind: 'address-delete'; index: number; address: Address; prefixLength: number }
  | { kind: 'neighbour-replace'; index: number; address: Address; mac: Mac }
  /** What leaves by the link goes through a token bucket: made, or changed where there is one. */
  | { kind: 'shape'; index: number; bucket: TokenBucket }
  | { kind: 'unshape'; index: number }
  /** What arrives on the link leaves by another one first: an ifb of the same namespace. */
  | { kind: 'redirect-ingress'; index: number; toIndex: number }
  | { kind: 'unredirect-ingress'; index: number };

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
  /** Default: main. */
  readonly table?: number;
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
  /** Index of the link below in its namespace, for a macvlan and its like. */
  readonly parentIndex: number | null;
  /** The bridge or bond that the link is a port of. */
  readonly masterIndex: number | null;
  readonly macvlanMode: MacvlanMode | null;
  /** What somebody has noted on it (`ip link set … alias`). */
  readonly alias: string | null;
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

export interface MarkRule {
  readonly family: Family;
  readonly mark: number;
  readonly mask: number;
  readonly table: number;
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

export interface Conntrack {
  /** Deletes every tracked connection that one of the addresses has an end of: it is the source of its packets, or of the answers to them. */
  flushAddresses(addresses: Iterable<Address>): Promise<void>;
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
