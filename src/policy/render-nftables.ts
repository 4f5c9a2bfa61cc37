/**
 * Chains → rules of nftables (pure).
 *
 * In: a Chain, a family. Out: its rules as expressions, with their hashes; what leads from the kernel's hooks to our chains; which list
 * of profiles leads where. Never: a packet mark that is still changed when the rule has ended, a rule per endpoint or per list.
 *
 * Rules that only ask which list an endpoint has (`compileDispatch`) become one rule: a map tells the list's number for interface
 * and address, a second one the chain for the number. The number goes from one map to the other through the packet's mark, which
 * the same rule puts back: registers alone would do for the kernel, but nft 1.0.6 aborts when it is to list such a rule. Before anybody
 * asks by the interface's name, the list is looked up by its index, which is cheaper; what is not found so is found by the name.
 */
import type { NftExpression, NftHook, NftRule } from '../linux/nftables-port.ts';
import type { Family } from '../model/ip.ts';
import type { Side } from '../model/rule.ts';
import type { Chain, ChainRule, Condition } from './chain.ts';
import { jumps } from './compile.ts';
import { mergePorts } from './merge-ports.ts';
import { chains, isListSet } from './names.ts';
import { loadIndexPair, loadPair, renderCondition, renderVerdict } from './nft-expressions.ts';
import { conditionText, dispatchText, indexPairText, pairText, ruleText } from './nft-text.ts';
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
/** The same → the number of its list. */
export const indexMap = 'nctl-list-of-index';
/** The verdict map of a dispatching chain: the number of a list → its chain. It is there even when it is empty. */
export const dispatchMap = (chain: string): string => `${chain}-by-list`;

/** Part of every hash: to be counted up when the same text comes to other expressions. */
const ENCODING = 1;
/** What nft takes: 127 characters. */
const MAX_COMMENT = 127;
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
const SAVED_MARK = 3;
const IS_NEW: Condition = { kind: 'connection', states: ['NEW'] };

/** What many rules load is one object each: it is encoded once. */
const COUNTER: NftExpression = { kind: 'counter' };
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
  const known = knownRule(chain);
  const rules = mergePorts(known === null || known.isByIndex ? chain.rules : chain.rules.slice(1));
  const first = rules.findIndex((rule) => dispatchOf(rule).length > 0);
  const bodies = rules.flatMap((rule, i): NftBody[] => {
    if (dispatchOf(rule).length === 0) return [...foundByIndex(rule, family), renderRule(rule, family)];
    return i === first ? [renderDispatch('name', sideOf(rule), family, chain.name)] : [];
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
  const known = knownRule(chain);
  if (known === null) return [jump];
  if (known.isByIndex)
    return [renderKnownByIndex(known.rule, family), ...foundNewByIndex(chain, family), jump];
  const conditions = [...rule.conditions, ...known.rule.conditions];
  return [renderRule({ ...known.rule, conditions }, family), jump];
}

/**
 * Most packets end here: 8 bytes are compared instead of a name and an address, and no name is asked for before. An interface that does not
 * have the index which belongs to its name is known by its name in the chain behind.
 */
function renderKnownByIndex(rule: ChainRule, family: Family): NftBody {
  const states = rule.conditions.filter(({ kind }) => kind === 'connection');
  const { expressions, text, comment } = renderRule({ ...rule, conditions: states }, family);
  return {
    expressions: [
      ...loadIndexPair('src', family),
      { kind: 'in-set', from: 1, negated: false, set: indexSet },
      ...expressions,
    ],
    text: `${indexPairText('src', family)} @${indexSet} ${text}`,
    comment,
  };
}

/** What is new and comes from an endpoint is not known, not of no connection and not spoofed: nctl-FORWARD would lead it to its list. */
function foundNewByIndex({ name }: Chain, family: Family): NftBody[] {
  if (name !== chains.forward) return [];
  return [renderDispatch('index', 'src', family, chains.from, [IS_NEW])];
}

/** Before a rule that leads to nctl-to by no more than the interface, the same is decided by its index. */
function foundByIndex({ conditions, verdict }: ChainRule, family: Family): NftBody[] {
  const leads = verdict.kind === 'goto' && verdict.chain === chains.to;
  if (!leads || conditions.some(({ kind }) => kind !== 'interface')) return [];
  return [renderDispatch('index', 'dst', family, chains.to)];
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

function sideOf({ conditions: [only] }: ChainRule): Side {
  return (only as Condition & { kind: 'set' }).side;
}

/**
 * Registers 1 and 2 hold the pair, then 1 what is looked up for it.
 * @param chain whose verdict map leads on
 * @param before that are asked first
 */
function renderDispatch(
  by: 'name' | 'index',
  side: Side,
  family: Family,
  chain: string,
  before: readonly Condition[] = [],
): NftBody {
  const isByName = by === 'name';
  const map = isByName ? pairMap : indexMap;
  const verdicts = dispatchMap(chain);
  const pair = isByName ? pairText(side, family) : indexPairText(side, family);
  return {
    expressions: [
      ...before.flatMap((condition) => renderCondition(condition, family, undefined)),
      ...(isByName ? loadPair(side, family) : loadIndexPair(side, family)),
      { kind: 'meta', key: 'mark', to: SAVED_MARK },
      { kind: 'map', from: 1, map, to: 1 },
      { kind: 'mark-set', from: 1 },
      { kind: 'meta', key: 'mark', to: 1 },
      { kind: 'mark-set', from: SAVED_MARK },
      { kind: 'verdict-map', from: 1, map: verdicts },
    ],
    text: [...before.map((each) => conditionText(each, family)), dispatchText(pair, map, verdicts)].join(' '),
    comment: 'list of the endpoint',
  };
}
