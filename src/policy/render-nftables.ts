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
const HOOKS = { FORWARD: 'forward', INPUT: 'input', OUTPUT: 'output', POSTROUTING: 'postrouting' } as const;
/** Those that nft calls filter and srcnat. */
const PRIORITIES = { filter: 0, nat: 100 } as const;
const SAVED_MARK = 3;

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
  const rules = mergePorts(chain.rules);
  const first = rules.findIndex((rule) => dispatchOf(rule).length > 0);
  const bodies = rules.flatMap((rule, i): NftBody[] => {
    if (dispatchOf(rule).length === 0) return [renderRule(rule, family)];
    return i === first ? [renderDispatch(rule, family, chain.name)] : [];
  });
  return { ...withHashes(chain.name, null, bodies), dispatch };
}

/** A chain for each hook, named like it. @param isThere whether a chain of ours is told */
export function renderBaseChains(
  family: Family,
  isThere: (chain: string) => boolean,
  toChains: readonly NftJump[] = hostJumps,
): RenderedNftChain[] {
  const places = Map.groupBy(
    toChains.filter(({ chain }) => isThere(chain)),
    ({ hook }) => hook.hook,
  );
  return Array.from(places, ([name, here]) =>
    withHashes(
      name,
      here[0]!.hook,
      here.map((each) => renderJump(each, family)),
    ),
  );
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
 * As goto, which is cheaper on each packet: what comes back from our chain has nothing left to do here, since no two rules of a base chain
 * speak of the same packets, or the first decides.
 */
function renderJump({ rule, chain }: NftJump, family: Family): NftBody {
  return renderRule({ ...rule, verdict: { kind: 'goto', chain } }, family, false);
}

function renderRule(rule: ChainRule, family: Family, isCounted = countsPackets(rule)): NftBody {
  return {
    expressions: [
      ...rule.conditions.flatMap((condition) => renderCondition(condition, family)),
      ...(isCounted ? [{ kind: 'counter' } as const] : []),
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
  return !(verdict.kind === 'accept' && conditions.some(({ kind }) => kind === 'connection'));
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

function renderCondition(condition: Condition, family: Family): NftExpression[] {
  switch (condition.kind) {
    case 'interface':
      return [loadInterface(condition.side), compare(condition, interfaceBytes(condition.pattern))];
    case 'protocol':
      return [{ kind: 'meta', key: 'l4proto', to: 1 }, compare(condition, Buffer.from([condition.protocol]))];
    case 'net':
      return renderNet(condition, family);
    case 'set': {
      const load = condition.withInterface
        ? loadPair(condition.side, family)
        : [loadAddress(condition.side, family, 1)];
      return [...load, { kind: 'in-set', from: 1, negated: condition.negated, set: condition.set }];
    }
    case 'ports': {
      const load = loadTransport(condition.side === 'src' ? 0 : 2, 2);
      return [load, { kind: 'in-ranges', from: 1, negated: condition.negated, ranges: condition.ports }];
    }
    case 'icmp': {
      const { type, code } = condition;
      const value = code === null ? [type] : [type, code];
      return [loadTransport(0, value.length), compare(condition, Buffer.from(value))];
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
  return { kind: 'meta', key: side === 'src' ? 'iifname' : 'oifname', to: 1 };
}

/** Where source and destination stand in the header (RFC 791, RFC 8200). */
function loadAddress(side: Side, family: Family, to: number): NftExpression {
  const lengthBytes = addressBits(family) / 8;
  const source = family === 4 ? 12 : 8;
  const offsetBytes = side === 'src' ? source : source + lengthBytes;
  return { kind: 'payload', base: 'network', offsetBytes, lengthBytes, to };
}

function loadTransport(offsetBytes: number, lengthBytes: number): NftExpression {
  return { kind: 'payload', base: 'transport', offsetBytes, lengthBytes, to: 1 };
}

function compare({ negated }: { readonly negated: boolean }, value: Uint8Array): NftExpression {
  return { kind: 'compare', from: 1, negated, value };
}

/** `nctl+` is a beginning, as iptables writes it; else the whole name, padded as the kernel holds it. */
function interfaceBytes(pattern: string): Buffer {
  if (pattern.endsWith('+')) return Buffer.from(pattern.slice(0, -1));
  const name = Buffer.alloc(16);
  name.write(pattern);
  return name;
}
