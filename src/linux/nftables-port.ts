/**
 * The port to nftables: what may be asked of it, in its own terms (linux/netfilter/nf_tables.h).
 *
 * In: requests as plain values. Out: what the kernel holds, or a KernelError. Never: a word of policy.
 */
import type { Family } from '../model/ip.ts';

/** nftables of one namespace, over netlink: tables of the families `ip` and `ip6`, and of `netdev`. No program is executed. */
export interface Nftables {
  /**
   * Carries out all of the requests at once, or none of them, before it returns. Adding a table, chain, set or element that is there
   * succeeds; deleting one that is not, and adding an element of a map that is there with other data, do not.
   * @throws KernelError of the first request that was refused, with its position
   */
  transact(requests: readonly NftRequest[]): void;
  /** The table with everything in it (anonymous sets aside), or null where there is none. */
  read(family: Family, table: string, layer?: 'link'): Promise<NftTable | null>;
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

/** To be closed soon: it keeps its namespace alive. */
export interface OpenNftables extends Nftables {
  close(): void;
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

/**
 * `layer: 'link'`: a table of the family `netdev`, whose chains see whole frames on a device; its addresses are all of `family`. Two such
 * tables have two names.
 */
export interface NftPlace {
  readonly family: Family;
  readonly table: string;
  readonly layer?: 'link' | undefined;
}

export type NftRequest = NftPlace &
  /** `table-make`: refused (EEXIST) where there is one. */
  (
    | { readonly kind: 'table-add' | 'table-make' | 'table-delete' }
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

/** Makes a chain a base chain, with policy accept. Those of the link layer are on a device, which must be there. */
export type NftHook =
  | {
      /** `route`, at the hook output: what changes the packet's mark finds its way anew. */
      readonly type: 'filter' | 'nat' | 'route';
      readonly hook: 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting';
      readonly priority: number;
    }
  | {
      readonly type: 'filter';
      readonly hook: 'ingress' | 'egress';
      readonly device: string;
      readonly priority: number;
    };

export interface NftRule {
  readonly expressions: readonly NftExpression[];
  /** At most 127 bytes. */
  readonly comment: string;
}

/**
 * What the kernel's little machine does, in order; a comparison or look-up that does not hold ends the rule. Registers have 16 bytes
 * and are numbered from 1; a longer value goes on in the next ones. From 8 on they are numbered a second time, by quarters of 4 bytes.
 * Values are as they stand in the packet.
 */
export type NftExpression =
  | {
      readonly kind: 'meta';
      readonly key: 'iif' | 'oif' | 'iifname' | 'oifname' | 'l4proto' | 'mark' | 'protocol';
      readonly to: number;
    }
  | { readonly kind: 'mark-set'; readonly from: number }
  | { readonly kind: 'connection-mark'; readonly to: number }
  | { readonly kind: 'connection-mark-set'; readonly from: number }
  /** Loads what the destination is to this host, a number of 4 bytes in its order: RTN_LOCAL is 2 (linux/rtnetlink.h). */
  | { readonly kind: 'destination-type'; readonly to: number }
  | {
      readonly kind: 'payload';
      readonly base: 'link' | 'network' | 'transport';
      readonly offsetBytes: number;
      readonly lengthBytes: number;
      readonly to: number;
    }
  /** Goes on if the connection is in one of the states. */
  | { readonly kind: 'ct-state'; readonly states: readonly NftConnectionState[] }
  /** Keeps the bits of the mask, then turns round those of `flip`. */
  | {
      readonly kind: 'mask';
      readonly register: number;
      readonly mask: Uint8Array;
      readonly flip?: Uint8Array;
    }
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
  /** The same: the connection goes on to the address in one register, and the port in another. */
  | { readonly kind: 'dnat'; readonly family: Family; readonly address: number; readonly port: number }
  /** Loads a constant. */
  | { readonly kind: 'immediate'; readonly to: number; readonly value: Uint8Array }
  /** The kernel tells which rules the packet meets from here on. */
  | { readonly kind: 'trace' }
  | { readonly kind: 'verdict'; readonly verdict: NftVerdict };

export type NftConnectionState = 'invalid' | 'established' | 'related' | 'new';

export type NftVerdict =
  | { readonly kind: 'accept' | 'drop' | 'return' }
  | { readonly kind: 'jump' | 'goto'; readonly chain: string };

/**
 * `pair`: interface and address; `index-pair`: index of an interface and address; `id`: a number of 32 bits; `mac-pair`: MAC and address.
 * `prefixes`: the elements are prefixes that do not overlap, else single values.
 */
export interface NftSetSpec {
  readonly key: 'address' | 'pair' | 'index-pair' | 'id' | 'mac' | 'mac-pair';
  readonly prefixes: boolean;
  /** What a map holds; null for a set. */
  readonly data: 'id' | 'verdict' | null;
}

/**
 * Keys are `10.0.0.1`, `10.0.0.1,eth0` (pair), `10.0.0.1,17` (index-pair), `17` (id), `02:42:0a:00:00:01` (mac), `10.0.0.1,02:42:0a:00:00:01` (mac-pair); with
 * `prefixes` `10.0.0.0/8`, `10.0.0.0/8,eth0`.
 */
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
