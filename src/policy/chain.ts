/**
 * Chains as values: what policy is compiled to, before any program's syntax.
 *
 * What leads into them are the `jumps` of compile.ts: each is to be in place exactly while the chain that it leads to is told.
 * Chains of the table `nat` (only there while a pool or a published port asks for it) see the first packet of a connection.
 *
 * In: built by compile.ts. Out: read by the renderer. Never: a verdict by falling through: every chain of ours ends in a rule
 * without conditions, or leaves traffic alone that is not ours.
 */
import type { Address, Cidr, Family } from '../model/ip.ts';
import type { Mac } from '../model/mac.ts';
import type { PortRange } from '../model/port-range.ts';
import type { Side } from '../model/rule.ts';

export interface Chain {
  readonly name: string;
  /** Absent: filter. A chain stays in its table for good. */
  readonly table?: 'nat';
  readonly rules: readonly ChainRule[];
}

/** Applies to a packet for which all conditions hold. */
export interface ChainRule {
  readonly conditions: readonly Condition[];
  readonly verdict: Verdict;
  /** For people: why this rule is here. */
  readonly comment: string;
  /** The rule that it was compiled from; not rendered. Several chain rules may come from one. */
  readonly origin?: RuleOrigin;
}

export interface RuleOrigin {
  readonly kind: 'profile' | 'policy';
  readonly name: string;
  readonly direction: 'inbound' | 'outbound';
  /** From 0. */
  readonly index: number;
}

export type Verdict =
  | { readonly kind: 'accept' }
  | { readonly kind: 'drop' }
  /** Back to the built-in chain, since all chains of ours are entered by goto. */
  | { readonly kind: 'return' }
  /** Only from a built-in chain. */
  | { readonly kind: 'jump'; readonly chain: string }
  | { readonly kind: 'goto'; readonly chain: string }
  /** Gives the packet the address of the interface that it leaves by. Only in table nat. */
  | { readonly kind: 'masquerade' }
  /** Leads the connection elsewhere. Only in table nat. */
  | { readonly kind: 'dnat'; readonly address: Address; readonly port: number }
  /** Marks the connection, or the packet; what lies outside the mask stays. Goes on with the next rule. */
  | { readonly kind: 'mark-connection' | 'mark-packet'; readonly mark: Mark }
  /** Goes on with the next rule. */
  | { readonly kind: 'log'; readonly prefix: string };

export type Condition =
  /** `src`: came by it, `dst`: leaves by it. The pattern is a name, or ends in `+`: all that begin so. */
  | { readonly kind: 'interface'; readonly side: Side; readonly pattern: string; readonly negated: boolean }
  | { readonly kind: 'protocol'; readonly protocol: number; readonly negated: boolean }
  | { readonly kind: 'net'; readonly side: Side; readonly net: Cidr; readonly negated: boolean }
  /**
   * `withInterface`: the set holds pairs of address and interface, of the same side unless `interfaceSide` is another. Members of any set
   * may be prefixes of any length but 0.
   */
  | {
      readonly kind: 'set';
      readonly set: string;
      readonly side: Side;
      readonly withInterface: boolean;
      readonly interfaceSide?: Side;
      readonly negated: boolean;
    }
  /** At most 15 slots; a range takes two. */
  | {
      readonly kind: 'ports';
      readonly side: Side;
      readonly ports: readonly PortRange[];
      readonly negated: boolean;
    }
  | {
      readonly kind: 'icmp';
      readonly family: Family;
      readonly type: number;
      readonly code: number | null;
      readonly negated: boolean;
    }
  | {
      readonly kind: 'connection';
      readonly states: readonly ('NEW' | 'RELATED' | 'ESTABLISHED' | 'INVALID')[];
    }
  | { readonly kind: 'connection-mark'; readonly mark: Mark }
  /** The frame that it came in is from there. */
  | { readonly kind: 'source-mac'; readonly mac: Mac }
  /** The destination is an address of this host. */
  | { readonly kind: 'to-this-host' };

/** Bits of a 32-bit mark: those of the mask are as in the value, which has no others. */
export interface Mark {
  readonly value: number;
  readonly mask: number;
}

export const ACCEPT: Verdict = { kind: 'accept' };
export const DROP: Verdict = { kind: 'drop' };

export function goto(chain: string): Verdict {
  return { kind: 'goto', chain };
}

export function rule(conditions: readonly Condition[], verdict: Verdict, comment: string): ChainRule {
  return { conditions, verdict, comment };
}

/** A chain whose rules are made when somebody first asks for them. */
export function lazyChain(name: string, make: () => ChainRule[]): Chain {
  let rules: readonly ChainRule[] | null = null;
  return {
    name,
    get rules() {
      rules ??= make();
      return rules;
    },
  };
}

/** The sets that a rule of the chain names. */
export function setsOfChain(chain: Chain): Set<string> {
  const sets = new Set<string>();
  for (const rule of chain.rules) {
    for (const condition of rule.conditions) if (condition.kind === 'set') sets.add(condition.set);
  }
  return sets;
}
