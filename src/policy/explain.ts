/**
 * What the chains do with a packet: an interpreter of what compile.ts makes (pure, in memory).
 *
 * In: sets, members and chains as an engine tells them; a packet. Out: the rules that it meets and the verdict. Never: a meaning of
 * a condition that is not the kernel's (the tests send the same packets through both).
 */
import type { IpSetMember } from '../linux/ports.ts';
import {
  type Address,
  addressBits,
  cidrContains,
  type Family,
  familyOf,
  hostCidr,
  networkOf,
} from '../model/ip.ts';
import type { Side } from '../model/rule.ts';
import type { Chain, ChainRule, Condition } from './chain.ts';
import { type Jump, jumps } from './compile.ts';
import { chains } from './names.ts';
import type { PolicyOutput, SetSpec } from './output.ts';

/** The first packet of a connection. */
export interface Packet {
  readonly source: Address;
  readonly destination: Address;
  /** '' for one that this host sends, or that is for it. */
  readonly inInterface: string;
  readonly outInterface: string;
  readonly protocol: number;
  /** null where the protocol has none. */
  readonly sourcePort: number | null;
  readonly destinationPort: number | null;
  readonly icmp: { readonly type: number; readonly code: number } | null;
}

export interface Step {
  readonly chain: string;
  /** From 0. */
  readonly index: number;
  readonly rule: ChainRule;
}

export interface Explanation {
  /** `left`: netctl does not decide; the host's own rules do. */
  readonly verdict: 'accept' | 'drop' | 'left';
  /** The rules that applied, in order; the last one decided. Empty where no chain of ours is met. */
  readonly steps: readonly Step[];
}

interface MemberSet {
  readonly members: Set<IpSetMember>;
  /** Of all prefixes that were ever in it. */
  readonly lengths: Set<number>;
}

/** Hears what an engine tells, and judges by it. */
export class Explainer implements PolicyOutput {
  readonly #sets = new Map<string, MemberSet>();
  readonly #chains = new Map<string, Chain>();

  set(name: string, spec: SetSpec | null): void {
    if (spec === null) this.#sets.delete(name);
    else this.#sets.set(name, { members: new Set(), lengths: new Set() });
  }

  member(set: string, member: IpSetMember, present: boolean): void {
    const { members, lengths } = this.#sets.get(set) ?? {};
    if (present) lengths?.add(Number.parseInt(member.slice(member.indexOf('/') + 1), 10));
    if (present) members?.add(member);
    else members?.delete(member);
  }

  chain(family: Family, name: string, chain: Chain | null): void {
    if (chain === null) this.#chains.delete(`${family} ${name}`);
    else this.#chains.set(`${family} ${name}`, chain);
  }

  /** @param builtin where the kernel takes it: forwarded, to this host, from this host */
  judge(builtin: 'FORWARD' | 'INPUT' | 'OUTPUT', packet: Packet): Explanation {
    const steps: Step[] = [];
    for (const jump of jumps) {
      if (!this.#leads(jump, builtin, packet)) continue;
      const verdict = this.#walk(jump.chain, packet, steps);
      if (verdict !== 'left') return { verdict, steps };
    }
    return { verdict: 'left', steps };
  }

  /** Where a published port leads a packet that is for this host; null: nowhere else. */
  led(packet: Packet): (Step & { readonly address: Address; readonly port: number }) | null {
    const { rules = [] } = this.#chains.get(`${familyOf(packet.source)} ${chains.published}`) ?? {};
    const index = rules.findIndex((rule) => this.#applies(rule, packet));
    const rule = rules[index];
    if (rule?.verdict.kind !== 'dnat') return null;
    const { address, port } = rule.verdict;
    return { chain: chains.published, index, rule, address, port };
  }

  /** @param chain where the kernel takes it */
  judgeFrom(chain: string, packet: Packet): Explanation {
    const steps: Step[] = [];
    const verdict = this.#walk(chain, packet, steps);
    return { verdict, steps };
  }

  /**
   * All that decides about an endpoint behind a dispatching chain: the rules of its list, up to the chain `end`, and the members of
   * the sets that they name. Equal texts decide alike.
   */
  textBehind(family: Family, dispatcher: string, end: string, pair: IpSetMember): string {
    const chainOf = (name: string): Chain | undefined => this.#chains.get(`${family} ${name}`);
    const isOfPair = ({ conditions: [only] }: ChainRule): boolean =>
      only?.kind === 'set' && this.#sets.get(only.set)?.members.has(pair) === true;
    const found = new Map<string, unknown>();
    const visit = ({ verdict, conditions }: ChainRule): void => {
      for (const condition of conditions)
        if (condition.kind === 'set')
          found.set(condition.set, [...(this.#sets.get(condition.set)?.members ?? [])].sort());
      if (verdict.kind !== 'goto' || verdict.chain === end || found.has(verdict.chain)) return;
      const { rules = [] } = chainOf(verdict.chain) ?? {};
      found.set(verdict.chain, rules);
      rules.forEach(visit);
    };
    const entry = chainOf(dispatcher)?.rules.find(isOfPair);
    if (entry !== undefined) visit({ ...entry, conditions: [] });
    return JSON.stringify([...found]);
  }

  #leads({ table, builtin, chain, rule }: Jump, wanted: string, packet: Packet): boolean {
    const isThere = this.#chains.has(`${familyOf(packet.source)} ${chain}`);
    return table === 'filter' && builtin === wanted && isThere && this.#applies(rule, packet);
  }

  /** Chains lead on by goto only, so there is nothing to come back to but the kernel's chain. */
  #walk(entry: string, packet: Packet, steps: Step[]): Explanation['verdict'] {
    let chain = this.#chains.get(`${familyOf(packet.source)} ${entry}`);
    let index = 0;
    while (chain !== undefined && index < chain.rules.length) {
      const rule = chain.rules[index]!;
      if (!this.#applies(rule, packet)) {
        index++;
        continue;
      }
      steps.push({ chain: chain.name, index, rule });
      switch (rule.verdict.kind) {
        case 'accept':
        case 'drop':
          return rule.verdict.kind;
        case 'return':
          return 'left';
        case 'goto':
          chain = this.#chains.get(`${familyOf(packet.source)} ${rule.verdict.chain}`);
          index = 0;
          break;
        case 'log':
          index++;
          break;
        case 'jump':
        case 'masquerade':
        case 'dnat':
        case 'mark-connection':
        case 'mark-packet':
          throw new Error(`${rule.verdict.kind} stands in no chain of table filter`);
      }
    }
    return 'left';
  }

  #applies(rule: ChainRule, packet: Packet): boolean {
    return rule.conditions.every((condition) => this.#holds(condition, packet));
  }

  #holds(condition: Condition, packet: Packet): boolean {
    // Nobody asks about forged frames: whose address it is, has the MAC.
    if (condition.kind === 'source-mac') return true;
    return 'negated' in condition && this.#matches(condition, packet) !== condition.negated;
  }

  #matches(condition: Extract<Condition, { negated: boolean }>, packet: Packet): boolean {
    switch (condition.kind) {
      case 'interface': {
        const name = interfaceOf(packet, condition.side);
        const { pattern } = condition;
        return pattern.endsWith('+') ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
      }
      case 'protocol':
        return packet.protocol === condition.protocol;
      case 'net':
        return cidrContains(condition.net, addressOf(packet, condition.side));
      case 'set':
        return this.#isMember(condition.set, packet, condition.side, condition.withInterface);
      case 'ports': {
        const port = condition.side === 'src' ? packet.sourcePort : packet.destinationPort;
        return port !== null && condition.ports.some(({ from, to }) => from <= port && port <= to);
      }
      case 'icmp': {
        const { icmp } = packet;
        return icmp?.type === condition.type && (condition.code === null || icmp.code === condition.code);
      }
    }
  }

  /** A member may be any prefix that holds the address. */
  #isMember(set: string, packet: Packet, side: Side, withInterface: boolean): boolean {
    const { members, lengths = [] } = this.#sets.get(set) ?? {};
    const address = addressOf(packet, side);
    const suffix = withInterface ? `,${interfaceOf(packet, side)}` : '';
    const all = addressBits(familyOf(address));
    for (const length of lengths) {
      const net = length === all ? hostCidr(address) : networkOf(address, length);
      if (members?.has(`${net}${suffix}`)) return true;
    }
    return false;
  }
}

function addressOf(packet: Packet, side: Side): Address {
  return side === 'src' ? packet.source : packet.destination;
}

function interfaceOf(packet: Packet, side: Side): string {
  return side === 'src' ? packet.inInterface : packet.outInterface;
}
