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
import type { NftExpression, NftHook, NftRule, NftVerdict } from '../linux/nftables-port.ts';
import { addressBits, addressBytes, addressFrom, cidrBase, type Family, prefixLength } from '../model/ip.ts';
import type { Side } from '../model/rule.ts';
import type { Chain, ChainRule, Condition, Verdict } from './chain.ts';
import { jumps } from './compile.ts';
import { mergePorts } from './merge-ports.ts';
import { isListSet } from './names.ts';
import { dispatchText, indexPairText, ruleText } from './nft-text.ts';
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
/** Index of the interface, and address, of every endpoint: the members of endpointSet in a form that is found faster. */
export const indexSet = 'nctl-by-index';
/** The verdict map of a chain: the number of a list → its chain. */
export const dispatchMap = (chain: string): string => `${chain}-by-list`;

/** Part of every hash: to be counted up when the same text comes to other expressions. */
const ENCODING = 1;
/** What nft takes: 127 characters. */
const MAX_COMMENT = 127;
const MAX_LOG_PREFIX = 127;
const HOOKS = { FORWARD: 'forward', INPUT: 'input', OUTPUT: 'output', POSTROUTING: 'postrouting' } as const;
/** Those that nft calls filter and srcnat. */
const PRIORITIES = { filter: 0, nat: 100 } as const;
const SAVED_MARK = 3;
/** Of register 1: it has four quarters, and what goes on begins the next one. */
const FIRST_QUARTER = 8;

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
  hook: { type: table, hook: HOOKS[builtin], priority: PRIORITIES[table] },
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
  const known = knownRule(chain);
  const rules = mergePorts(known === null || known.isByIndex ? chain.rules : chain.rules.slice(1));
  const first = rules.findIndex((rule) => dispatchOf(rule).length > 0);
  const bodies = rules.flatMap((rule, i): NftBody[] => {
    if (dispatchOf(rule).length === 0) return [renderRule(rule, family)];
    return i === first ? [renderDispatch(rule, family, chain.name)] : [];
  });
  return { ...withHashes(chain.name, null, bodies), dispatch };
}

/** A chain for each hook, named like it. @param chainOf a chain of ours, if it is told */
export function renderBaseChains(
  family: Family,
  chainOf: (chain: string) => Chain | undefined,
  toChains: readonly NftJump[] = hostJumps,
): RenderedNftChain[] {
  const places = new Map<string, [NftJump, Chain][]>();
  for (const jump of toChains) {
    const chain = chainOf(jump.chain);
    if (chain === undefined) continue;
    const name = jump.hook.hook;
    places.set(name, [...(places.get(name) ?? []), [jump, chain]]);
  }
  return Array.from(places, ([name, entries]) => {
    const bodies = entries.flatMap(([jump, chain]) => renderEntry(jump, chain, family));
    return withHashes(name, entries[0]![0].hook, bodies);
  });
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
  const known = knownRule(chain);
  if (known === null) return [jump];
  if (known.isByIndex) return [renderKnownByIndex(known.rule, family), jump];
  const conditions = [...rule.conditions, ...known.rule.conditions];
  return [renderRule({ ...known.rule, conditions }, family), jump];
}

/**
 * Most packets end here: 8 bytes are compared instead of a name and an address, and no name is asked for before. An interface that does not
 * have the index which belongs to its name is known by its name in the chain behind.
 */
function renderKnownByIndex(rule: ChainRule, family: Family): NftBody {
  const states = rule.conditions.filter(({ kind }) => kind === 'connection');
  const pair: NftExpression[] = [
    { kind: 'meta', key: 'iif', to: FIRST_QUARTER },
    { ...LOAD_ADDRESS[family].src[0]!, to: FIRST_QUARTER + 1 } as NftExpression,
    { kind: 'in-set', from: 1, negated: false, set: indexSet },
  ];
  const { expressions, text, comment } = renderRule({ ...rule, conditions: states }, family);
  return {
    expressions: [...pair, ...expressions],
    text: `${indexPairText(family, indexSet)} ${text}`,
    comment,
  };
}

/**
 * The first rule of a chain that the kernel's hooks lead to, if it accepts known connections. By the index, if it asks for the source on an
 * interface of ours; the chain then asks again, by the name.
 */
function knownRule({ name, rules }: Chain): { rule: ChainRule; isByIndex: boolean } | null {
  const entry = jumps.find(({ chain }) => chain === name);
  const [first] = rules;
  if (entry === undefined || first === undefined || !acceptsKnown(first)) return null;
  const asksForSource = first.conditions.some(({ kind }) => kind === 'set');
  return { rule: first, isByIndex: asksForSource && entry.rule.conditions.length > 0 };
}

/** Ports first: they tell most rules of a chain apart, and a rule that does not apply ends at its first condition. */
const RANKS: Partial<Record<Condition['kind'], number>> = { ports: -1, connection: -1 };

/** After an interface, states come last: its name is still in its register when the pair is looked up. */
function cheapestFirst(rule: ChainRule): ChainRule {
  const hasInterface = rule.conditions.some(({ kind }) => kind === 'interface');
  const rank = ({ kind }: Condition): number =>
    kind === 'connection' && hasInterface ? 1 : (RANKS[kind] ?? 0);
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
  if (verdict.kind === 'jump' || verdict.kind === 'log') return false;
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
      const { side, withInterface } = condition;
      const isLoaded = before?.kind === 'interface' && before.side === side;
      const pair = isLoaded ? [loadAddress(side, family, 2)] : loadPair(side, family);
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
      const names = { RELATED: 'related', ESTABLISHED: 'established', INVALID: 'invalid' } as const;
      return [{ kind: 'ct-state', states: condition.states.map((state) => names[state]) }];
    }
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
    default:
      return [{ kind: 'verdict', verdict: verdict satisfies NftVerdict }];
  }
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
