/**
 * Chains → rules of nftables (pure).
 *
 * In: a Chain, a family. Out: its rules as expressions, with their hashes; what leads from the kernel's hooks to our chains; which list
 * of profiles leads where. Never: a packet mark that is still changed when the rule has ended, a rule per endpoint or per list.
 *
 * Rules that only ask which list an endpoint has (`compileDispatch`) become one rule: a map tells the list's number for interface
 * and address, a second one the chain for the number. The number goes from one map to the other through the packet's mark, which
 * the same rule puts back: registers alone would do for the kernel, but nft 1.0.6 aborts when it is to list such a rule.
 */
import type {
  NftConnectionState,
  NftExpression,
  NftHook,
  NftRule,
  NftVerdict,
} from '../linux/nftables-port.ts';
import {
  addressBits,
  addressBytes,
  addressFrom,
  cidrBase,
  type Family,
  familyOf,
  prefixLength,
} from '../model/ip.ts';
import { macBytes } from '../model/mac.ts';
import type { Side } from '../model/rule.ts';
import type { Chain, ChainRule, Condition, Mark, Verdict } from './chain.ts';
import { jumps } from './compile.ts';
import { mergePorts } from './merge-ports.ts';
import { isListSet } from './names.ts';
import { dispatchText, ruleText } from './nft-text.ts';
import { chainHashes, ruleComment } from './rule-hash.ts';

export interface RenderedNftChain {
  readonly name: string;
  readonly hook: NftHook | null;
  readonly rules: readonly NftRule[];
  /** The hash of each rule. */
  readonly hashes: readonly string[];
  /** The same rules as nft reads them. */
  readonly texts: readonly string[];
  /** What its verdict map holds: for each set of a list the chain. Empty: it has no such map. */
  readonly dispatch: readonly (readonly [listSet: string, chain: string])[];
}

/** What leads from a hook of the kernel to a chain of ours; it is in place exactly while that is. */
export interface NftJump {
  readonly hook: NftHook;
  readonly chain: string;
  readonly rule: ChainRule;
}

/** Interface and address of every endpoint → the number of its list. */
export const pairMap = 'nctl-list-of';
/** The verdict map of a chain: the number of a list → its chain. */
export const dispatchMap = (chain: string): string => `${chain}-by-list`;

/** Part of every hash: to be counted up when the same text comes to other expressions. */
const ENCODING = 1;
/** What nft takes: 127 characters. */
const MAX_COMMENT = 127;
const MAX_LOG_PREFIX = 127;
const HOOKS = {
  FORWARD: 'forward',
  INPUT: 'input',
  OUTPUT: 'output',
  PREROUTING: 'prerouting',
  POSTROUTING: 'postrouting',
} as const;
/** Those that nft calls filter, srcnat and dstnat. */
const FILTER = 0;
const SOURCE_NAT = 100;
const DESTINATION_NAT = -100;
/** RTN_LOCAL, as the kernel holds it. */
const LOCAL_ADDRESS = Uint8Array.from([2, 0, 0, 0]);
const SAVED_MARK = 3;

/** What many rules load is one object each: it is encoded once. */
const COUNTER: NftExpression = { kind: 'counter' };
const LOAD_PROTOCOL: NftExpression = { kind: 'meta', key: 'l4proto', to: 1 };
const LOAD_INTERFACE: Readonly<Record<Side, NftExpression>> = {
  src: { kind: 'meta', key: 'iifname', to: 1 },
  dst: { kind: 'meta', key: 'oifname', to: 1 },
};
/** Where source and destination stand in the header (RFC 791, RFC 8200); into register 1 or 2. */
const LOAD_ADDRESS: Readonly<Record<Family, Record<Side, NftExpression[]>>> = {
  4: { src: loadsOf('network', 12, 4), dst: loadsOf('network', 16, 4) },
  6: { src: loadsOf('network', 8, 16), dst: loadsOf('network', 24, 16) },
};
const LOAD_PORT: Readonly<Record<Side, NftExpression>> = {
  src: loadsOf('transport', 0, 2)[0]!,
  dst: loadsOf('transport', 2, 2)[0]!,
};

/** Those of the agent's namespace. */
export const hostJumps: readonly NftJump[] = jumps.map(({ table, builtin, chain, rule }) => ({
  hook: {
    type: table,
    hook: HOOKS[builtin],
    priority: table === 'filter' ? FILTER : builtin === 'POSTROUTING' ? SOURCE_NAT : DESTINATION_NAT,
  },
  chain,
  rule,
}));

/** A rule before it has its hash. */
export interface NftBody {
  readonly expressions: readonly NftExpression[];
  /** What makes a difference. */
  readonly text: string;
  readonly comment: string;
}

export function renderNftChain(family: Family, chain: Chain): RenderedNftChain {
  const dispatch = chain.rules.flatMap(dispatchOf);
  const rules = mergePorts(hoistedRule(chain) === null ? chain.rules : chain.rules.slice(1));
  const first = rules.findIndex((rule) => dispatchOf(rule).length > 0);
  const bodies = rules.flatMap((rule, i): NftBody[] => {
    if (dispatchOf(rule).length === 0) return [renderRule(rule, family)];
    return i === first ? [renderDispatch(rule, family, chain.name)] : [];
  });
  return { ...withHashes(chain.name, null, bodies), dispatch };
}

/** A chain for each hook and type, named like the hook. @param chainOf a chain of ours, if it is told */
export function renderBaseChains(
  family: Family,
  chainOf: (chain: string) => Chain | undefined,
  toChains: readonly NftJump[] = hostJumps,
): RenderedNftChain[] {
  const places = new Map<string, [NftJump, Chain][]>();
  for (const jump of toChains) {
    const chain = chainOf(jump.chain);
    if (chain === undefined) continue;
    const name = baseChainName(jump.hook);
    places.set(name, [...(places.get(name) ?? []), [jump, chain]]);
  }
  return Array.from(places, ([name, entries]) => {
    const bodies = entries.flatMap(([jump, chain]) => renderEntry(jump, chain, family));
    return withHashes(name, entries[0]![0].hook, bodies);
  });
}

/** At the hook output there may be one of each type. */
function baseChainName({ hook, type }: NftHook): string {
  return type === 'filter' || hook !== 'output' ? hook : `${hook}-${type}`;
}

/** A chain of rules that are expressions already. */
export function withHashes(name: string, hook: NftHook | null, bodies: readonly NftBody[]): RenderedNftChain {
  const hashes = chainHashes(
    name,
    bodies.map(({ text, comment }) => `${ENCODING} ${text} ${comment}`),
  );
  const rules = bodies.map(({ expressions, comment }, i) => ({
    expressions,
    comment: ruleComment(hashes[i]!, comment).slice(0, MAX_COMMENT).trimEnd(),
  }));
  return { name, hook, rules, hashes, texts: bodies.map(({ text }) => text), dispatch: [] };
}

/**
 * As goto, which is cheaper on each packet, where what comes back from our chain has nothing left to do here: no two jumps with conditions
 * speak of the same packets, or the first decides. What the chain accepts of known connections is accepted before the goto, whose
 * price most packets would pay for nothing.
 */
function renderEntry({ rule, chain: name }: NftJump, chain: Chain, family: Family): NftBody[] {
  const kind = rule.conditions.length === 0 ? 'jump' : 'goto';
  const jump = renderRule({ ...rule, verdict: { kind, chain: name } }, family, false);
  const hoisted = hoistedRule(chain);
  if (hoisted === null) return [jump];
  const conditions = [...rule.conditions, ...hoisted.conditions];
  return [renderRule({ ...hoisted, conditions }, family), jump];
}

/** The first rule of a chain that the kernel's hooks lead to, if it accepts known connections. */
function hoistedRule({ name, rules }: Chain): ChainRule | null {
  const isEntry = jumps.some(({ chain }) => chain === name);
  const [first] = isEntry ? rules : [];
  return first !== undefined && acceptsKnown(first) ? first : null;
}

/**
 * Ports first: they tell most rules of a chain apart, and a rule that does not apply ends at its first condition. States last: the
 * interface of the jump's rule is still in its register when the pair is looked up.
 */
const RANKS: Partial<Record<Condition['kind'], number>> = { ports: -1, connection: 1 };
const rank = ({ kind }: Condition): number => RANKS[kind] ?? 0;

function cheapestFirst(rule: ChainRule): ChainRule {
  if (rule.conditions.every((each, i) => i === 0 || rank(rule.conditions[i - 1]!) <= rank(each))) return rule;
  return { ...rule, conditions: rule.conditions.toSorted((a, b) => rank(a) - rank(b)) };
}

function renderRule(written: ChainRule, family: Family, isCounted = countsPackets(written)): NftBody {
  const rule = cheapestFirst(written);
  return {
    expressions: [
      ...rule.conditions.flatMap((condition, i) =>
        renderCondition(condition, family, rule.conditions[i - 1]),
      ),
      ...(isCounted ? [COUNTER] : []),
      ...renderVerdict(rule.verdict),
    ],
    text: ruleText(rule, family, isCounted),
    comment: rule.comment,
  };
}

/** Not where every packet of every connection comes along, foreign ones included. */
function countsPackets({ conditions, verdict, origin }: ChainRule): boolean {
  if (verdict.kind === 'jump' || verdict.kind === 'log' || verdict.kind === 'mark-packet') return false;
  if (verdict.kind === 'return') return origin !== undefined;
  return !acceptsKnown({ conditions, verdict });
}

function acceptsKnown({ conditions, verdict }: Pick<ChainRule, 'conditions' | 'verdict'>): boolean {
  return verdict.kind === 'accept' && conditions.some(({ kind }) => kind === 'connection');
}

function dispatchOf({ conditions: [only, ...more], verdict }: ChainRule): [listSet: string, chain: string][] {
  const isDispatch = only?.kind === 'set' && isListSet(only.set) && !only.negated && more.length === 0;
  return isDispatch && verdict.kind === 'goto' ? [[only.set, verdict.chain]] : [];
}

/** Registers 1 and 2 hold the pair, then 1 what is looked up for it. */
function renderDispatch({ conditions: [only] }: ChainRule, family: Family, chain: string): NftBody {
  const { side } = only as Condition & { kind: 'set' };
  const verdicts = dispatchMap(chain);
  return {
    expressions: [
      ...loadPair(side, family),
      { kind: 'meta', key: 'mark', to: SAVED_MARK },
      { kind: 'map', from: 1, map: pairMap, to: 1 },
      { kind: 'mark-set', from: 1 },
      { kind: 'meta', key: 'mark', to: 1 },
      { kind: 'mark-set', from: SAVED_MARK },
      { kind: 'verdict-map', from: 1, map: verdicts },
    ],
    text: dispatchText(side, family, pairMap, verdicts),
    comment: 'list of the endpoint',
  };
}

/** @param before the condition before it in its rule */
function renderCondition(
  condition: Condition,
  family: Family,
  before: Condition | undefined,
): NftExpression[] {
  switch (condition.kind) {
    case 'interface':
      return [loadInterface(condition.side), compare(condition, interfaceBytes(condition.pattern))];
    case 'protocol':
      return [LOAD_PROTOCOL, compare(condition, Buffer.from([condition.protocol]))];
    case 'net':
      return renderNet(condition, family);
    case 'set': {
      const { side, withInterface, interfaceSide = side } = condition;
      const isLoaded = before?.kind === 'interface' && before.side === interfaceSide;
      const address = loadAddress(side, family, 2);
      const pair = isLoaded ? [address] : [loadInterface(interfaceSide), address];
      const load = withInterface ? pair : [loadAddress(side, family, 1)];
      return [...load, { kind: 'in-set', from: 1, negated: condition.negated, set: condition.set }];
    }
    case 'ports': {
      return [
        LOAD_PORT[condition.side],
        { kind: 'in-ranges', from: 1, negated: condition.negated, ranges: condition.ports },
      ];
    }
    case 'icmp': {
      const { type, code } = condition;
      const value = code === null ? [type] : [type, code];
      return [loadsOf('transport', 0, value.length)[0]!, compare(condition, Buffer.from(value))];
    }
    case 'connection': {
      const states = condition.states.map((state) => state.toLowerCase() as NftConnectionState);
      return [{ kind: 'ct-state', states }];
    }
    case 'connection-mark': {
      const { value, mask } = condition.mark;
      return [
        { kind: 'connection-mark', to: 1 },
        { kind: 'mask', register: 1, mask: markBytes(mask) },
        compare({ negated: false }, markBytes(value)),
      ];
    }
    case 'source-mac':
      return [
        { kind: 'payload', base: 'link', offsetBytes: 6, lengthBytes: 6, to: 1 },
        compare({ negated: false }, macBytes(condition.mac)),
      ];
    case 'to-this-host':
      return [{ kind: 'destination-type', to: 1 }, compare({ negated: false }, LOCAL_ADDRESS)];
  }
}

function renderNet({ side, net, negated }: Condition & { kind: 'net' }, family: Family): NftExpression[] {
  const bits = prefixLength(net);
  const value = addressBytes(cidrBase(net));
  const all = addressBits(family);
  const mask = addressBytes(addressFrom(family, ((1n << BigInt(bits)) - 1n) << BigInt(all - bits)));
  return [
    loadAddress(side, family, 1),
    ...(bits === all ? [] : [{ kind: 'mask', register: 1, mask } as const]),
    compare({ negated }, value),
  ];
}

function renderVerdict(verdict: Verdict): NftExpression[] {
  switch (verdict.kind) {
    case 'log':
      return [
        { kind: 'limit', perSecond: 10, burst: 20 },
        { kind: 'log', prefix: verdict.prefix.slice(0, MAX_LOG_PREFIX) },
      ];
    case 'masquerade':
      return [{ kind: 'masquerade' }];
    case 'dnat': {
      const { address, port } = verdict;
      return [
        { kind: 'immediate', to: 1, value: addressBytes(address) },
        { kind: 'immediate', to: 2, value: Uint8Array.from([port >> 8, port & 0xff]) },
        { kind: 'dnat', family: familyOf(address), address: 1, port: 2 },
      ];
    }
    case 'mark-connection':
      return [
        { kind: 'connection-mark', to: 1 },
        marked(verdict.mark),
        { kind: 'connection-mark-set', from: 1 },
      ];
    case 'mark-packet':
      return [{ kind: 'meta', key: 'mark', to: 1 }, marked(verdict.mark), { kind: 'mark-set', from: 1 }];
    default:
      return [{ kind: 'verdict', verdict: verdict satisfies NftVerdict }];
  }
}

function marked({ value, mask }: Mark): NftExpression {
  return { kind: 'mask', register: 1, mask: markBytes(~mask >>> 0), flip: markBytes(value) };
}

/** In the host's order, as marks are. */
function markBytes(number: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(number);
  return bytes;
}

function loadPair(side: Side, family: Family): NftExpression[] {
  return [loadInterface(side), loadAddress(side, family, 2)];
}

function loadInterface(side: Side): NftExpression {
  return LOAD_INTERFACE[side];
}

function loadAddress(side: Side, family: Family, to: 1 | 2): NftExpression {
  return LOAD_ADDRESS[family][side][to - 1]!;
}

function compare({ negated }: { readonly negated: boolean }, value: Uint8Array): NftExpression {
  return { kind: 'compare', from: 1, negated, value };
}

function loadsOf(base: 'network' | 'transport', offsetBytes: number, lengthBytes: number): NftExpression[] {
  return [1, 2].map((to) => ({ kind: 'payload', base, offsetBytes, lengthBytes, to }));
}

/** `nctl+` is a beginning, as iptables writes it; else the whole name, padded as the kernel holds it. */
function interfaceBytes(pattern: string): Buffer {
  if (pattern.endsWith('+')) return Buffer.from(pattern.slice(0, -1));
  const name = Buffer.alloc(16);
  name.write(pattern);
  return name;
}
