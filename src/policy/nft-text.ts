/**
 * Rules as nft reads them (pure): for the hash of a rule, for people, and for tests that ask nft whether it reads the same in what
 * the kernel holds.
 *
 * In: a rule of a chain, a family. Out: one line. Never: text from outside unquoted (names come checked from src/model).
 */
import { type Family, familyOf } from '../model/ip.ts';
import type { PortRange } from '../model/port-range.ts';
import type { Side } from '../model/rule.ts';
import type { ChainRule, Condition, Mark, Verdict } from './chain.ts';

export function ruleText({ conditions, verdict }: ChainRule, family: Family, isCounted: boolean): string {
  return [
    ...conditions.map((condition) => conditionText(condition, family)),
    ...(isCounted ? ['counter'] : []),
    verdictText(verdict),
  ].join(' ');
}

/** The mark is there again when the rule has ended, which the text cannot say. */
export function dispatchText(pair: string, pairs: string, verdicts: string): string {
  return `meta mark set ${pair} map @${pairs} meta mark set meta mark meta mark vmap @${verdicts}`;
}

export function indexPairText(side: Side, family: Family): string {
  return `${side === 'src' ? 'iif' : 'oif'} . ${addressText(side, family)}`;
}

export function conditionText(condition: Condition, family: Family): string {
  switch (condition.kind) {
    case 'interface':
      return `${interfaceText(condition.side)} ${not(condition)}"${condition.pattern.replace(/\+$/, '*')}"`;
    case 'protocol':
      return `meta l4proto ${not(condition)}${condition.protocol}`;
    case 'net':
      return `${addressText(condition.side, family)} ${not(condition)}${condition.net}`;
    case 'set': {
      const { side, withInterface, interfaceSide = side } = condition;
      const field = withInterface ? pairText(side, family, interfaceSide) : addressText(side, family);
      return `${field} ${not(condition)}@${condition.set}`;
    }
    case 'ports':
      return `th ${condition.side[0]}port ${not(condition)}${portsText(condition.ports)}`;
    case 'icmp':
      return icmpText(condition);
    case 'connection':
      return `ct state ${condition.states.map((state) => state.toLowerCase()).join(',')}`;
    case 'connection-mark':
      return `ct mark & ${hex(condition.mark.mask)} == ${hex(condition.mark.value)}`;
    case 'source-mac':
      return `ether saddr ${condition.mac}`;
    case 'to-this-host':
      return 'fib daddr type local';
  }
}

/** What is not a type with a code is no two conditions. */
function icmpText({ family, type, code, negated }: Condition & { kind: 'icmp' }): string {
  const name = family === 4 ? 'icmp' : 'icmpv6';
  if (code === null) return `${name} type ${not({ negated })}${type}`;
  return negated
    ? `@th,0,16 != 0x${(type * 256 + code).toString(16).padStart(4, '0')}`
    : `${name} type ${type} ${name} code ${code}`;
}

function portsText(ports: readonly PortRange[]): string {
  const texts = ports.map(({ from, to }) => (from === to ? String(from) : `${from}-${to}`));
  return texts.length === 1 ? texts[0]! : `{ ${texts.join(', ')} }`;
}

function verdictText(verdict: Verdict): string {
  switch (verdict.kind) {
    case 'jump':
    case 'goto':
      return `${verdict.kind} ${verdict.chain}`;
    case 'log':
      return `limit rate 10/second burst 20 packets log prefix "${verdict.prefix}"`;
    case 'dnat': {
      const { address, port } = verdict;
      return `dnat to ${familyOf(address) === 4 ? address : `[${address}]`}:${port}`;
    }
    case 'mark-connection':
      return `ct mark set ${markedText('ct mark', verdict.mark)}`;
    case 'mark-packet':
      return `meta mark set ${markedText('meta mark', verdict.mark)}`;
    default:
      return verdict.kind;
  }
}

function markedText(what: string, { value, mask }: Mark): string {
  return `${what} & ${hex(~mask >>> 0)} | ${hex(value)}`;
}

function hex(number: number): string {
  return `0x${number.toString(16).padStart(8, '0')}`;
}

export function pairText(side: Side, family: Family, interfaceSide = side): string {
  return `${interfaceText(interfaceSide)} . ${addressText(side, family)}`;
}

function interfaceText(side: Side): string {
  return side === 'src' ? 'iifname' : 'oifname';
}

function addressText(side: Side, family: Family): string {
  return `${family === 4 ? 'ip' : 'ip6'} ${side[0]}addr`;
}

function not(condition: { readonly negated: boolean }): string {
  return condition.negated ? '!= ' : '';
}
