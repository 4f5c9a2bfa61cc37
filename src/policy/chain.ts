/**
 * Chains as values: what policy is compiled to, before any program's syntax.
 *
 * In: built by compile.ts. Out: read by the renderer. Never: a verdict by falling through: every chain of ours ends in a rule
 * without conditions, or leaves traffic alone that is not ours.
 */
import type { Cidr, Family } from '../model/ip.ts';
import type { PortRange } from '../model/port-range.ts';
import type { Side } from '../model/rule.ts';

export interface Chain {
  readonly name: string;
  readonly rules: readonly ChainRule[];
}

/** Applies to a packet for which all conditions hold. */
export interface ChainRule {
  readonly conditions: readonly Condition[];
  readonly verdict: Verdict;
  /** For people: why this rule is here. */
  readonly comment: string;
}

export type Verdict =
  | { readonly kind: 'accept' }
  | { readonly kind: 'drop' }
  /** Back to the built-in chain, since all chains of ours are entered by goto. */
  | { readonly kind: 'return' }
  /** Only from a built-in chain. */
  | { readonly kind: 'jump'; readonly chain: string }
  | { readonly kind: 'goto'; readonly chain: string }
  /** Goes on with the next rule. */
  | { readonly kind: 'log'; readonly prefix: string };

export type Condition =
  | { readonly kind: 'interface'; readonly side: Side; readonly pattern: string; readonly negated: boolean }
  | { readonly kind: 'protocol'; readonly protocol: number; readonly negated: boolean }
  | { readonly kind: 'net'; readonly side: Side; readonly net: Cidr; readonly negated: boolean }
  /** `withInterface`: the set holds pairs of address and interface. */
  | {
      readonly kind: 'set';
      readonly set: string;
      readonly side: Side;
      readonly withInterface: boolean;
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
  | { readonly kind: 'connection'; readonly states: readonly ('RELATED' | 'ESTABLISHED' | 'INVALID')[] };

/** The sets that a rule of the chain names. */
export function setsOfChain(chain: Chain): Set<string> {
  const sets = new Set<string>();
  for (const rule of chain.rules) {
    for (const condition of rule.conditions) if (condition.kind === 'set') sets.add(condition.set);
  }
  return sets;
}
