/**
 * Chains → lines of iptables-restore (pure).
 *
 * In: a Chain. Out: one `-A` line per rule, with its hash. Never: text from outside unquoted (names and comments come checked
 * from src/model), nor a negation that the program would read as "any".
 */
import { addressFrom, addressValue, type Cidr, cidrBase, cidrSize, familyOf } from '../model/ip.ts';
import { portText } from '../model/port-range.ts';
import { ICMP, ICMPV6, protocolName } from '../model/protocol.ts';
import type { Side } from '../model/rule.ts';
import type { Chain, ChainRule, Condition, Mark, Verdict } from './chain.ts';
import { chainHashes, ruleComment } from './rule-hash.ts';

export interface RenderedChain {
  readonly name: string;
  /** `-A <chain> …` */
  readonly lines: readonly string[];
  /** The hash of each line. */
  readonly hashes: readonly string[];
}

export function renderChain(chain: Chain): RenderedChain {
  const bodies = chain.rules.map((rule) => ({
    conditions: renderConditions(rule),
    verdict: renderVerdict(rule.verdict),
  }));
  const hashes = chainHashes(
    chain.name,
    bodies.map((body, i) => `${body.conditions}${body.verdict} ${chain.rules[i]!.comment}`),
  );
  const lines = bodies.map(({ conditions, verdict }, i) => {
    const comment = ruleComment(hashes[i]!, chain.rules[i]!.comment);
    return `-A ${chain.name} ${conditions}-m comment --comment "${comment}" ${verdict}`;
  });
  return { name: chain.name, lines, hashes };
}

/** Each condition with a space behind it. */
function renderConditions(rule: ChainRule): string {
  return rule.conditions.map((condition) => `${renderCondition(condition, rule)} `).join('');
}

function renderCondition(condition: Condition, rule: ChainRule): string {
  switch (condition.kind) {
    case 'interface':
      return `${not(condition)}${condition.side === 'src' ? '-i' : '-o'} ${condition.pattern}`;
    case 'protocol':
      return `${not(condition)}-p ${programProtocol(condition.protocol)}`;
    case 'net':
      return renderNet(condition, rule);
    case 'set': {
      const { side, interfaceSide = side } = condition;
      const fields = condition.withInterface ? `${side},${interfaceSide}` : side;
      return `-m set ${not(condition)}--match-set ${condition.set} ${fields}`;
    }
    case 'ports':
      return `-m multiport ${not(condition)}--${condition.side[0]}ports ${condition.ports.map(portText).join(',')}`;
    case 'icmp': {
      const [module, option] = condition.family === 4 ? ['icmp', '--icmp-type'] : ['icmp6', '--icmpv6-type'];
      const code = condition.code === null ? '' : `/${condition.code}`;
      return `-m ${module} ${not(condition)}${option} ${condition.type}${code}`;
    }
    case 'connection':
      return `-m conntrack --ctstate ${condition.states.join(',')}`;
    case 'connection-mark':
      return `-m connmark --mark ${markText(condition.mark)}`;
    case 'source-mac':
      return `-m mac --mac-source ${condition.mac}`;
    case 'to-this-host':
      return '-m addrtype --dst-type LOCAL';
  }
}

/** A rule has room for one `-s` and one `-d`; an exception from a prefix goes by iprange. */
function renderNet(condition: Condition & { kind: 'net' }, rule: ChainRule): string {
  const { side, net } = condition;
  if (condition.negated && hasPositiveNet(rule, side)) {
    return `-m iprange ! --${side}-range ${cidrBase(net)}-${lastAddress(net)}`;
  }
  return `${not(condition)}${side === 'src' ? '-s' : '-d'} ${net}`;
}

function hasPositiveNet(rule: ChainRule, side: Side): boolean {
  return rule.conditions.some(
    (condition) => condition.kind === 'net' && condition.side === side && !condition.negated,
  );
}

function lastAddress(net: Cidr): string {
  return addressFrom(familyOf(net), addressValue(cidrBase(net)) + cidrSize(net) - 1n);
}

/** iptables knows some protocols by other names; numbers serve both families. */
function programProtocol(protocol: number): string {
  if (protocol === ICMP) return 'icmp';
  return protocol === ICMPV6 ? 'ipv6-icmp' : String(protocolName(protocol));
}

function renderVerdict(verdict: Verdict): string {
  switch (verdict.kind) {
    case 'accept':
      return '-j ACCEPT';
    case 'drop':
      return '-j DROP';
    case 'return':
      return '-j RETURN';
    case 'jump':
      return `-j ${verdict.chain}`;
    case 'goto':
      return `-g ${verdict.chain}`;
    case 'masquerade':
      return '-j MASQUERADE';
    case 'dnat': {
      const { address, port } = verdict;
      return `-j DNAT --to-destination ${familyOf(address) === 4 ? address : `[${address}]`}:${port}`;
    }
    case 'mark-connection':
      return `-j CONNMARK --set-xmark ${markText(verdict.mark)}`;
    case 'mark-packet':
      return `-j MARK --set-xmark ${markText(verdict.mark)}`;
    case 'log':
      return `-m limit --limit 10/second --limit-burst 20 -j LOG --log-prefix "${logPrefix(verdict.prefix)}"`;
  }
}

function markText({ value, mask }: Mark): string {
  return `0x${value.toString(16)}/0x${mask.toString(16)}`;
}

/** At most 29 characters; the space at the end stays. */
function logPrefix(prefix: string): string {
  return prefix.length <= 29 ? prefix : `${prefix.slice(0, 28)} `;
}

function not(condition: { readonly negated: boolean }): string {
  return condition.negated ? '! ' : '';
}
