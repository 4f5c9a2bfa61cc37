/**
 * Conditions and verdicts of a rule → expressions of nftables (pure).
 *
 * In: a condition and the one before it, or a verdict, a family. Out: expressions that use registers 1 and 2. Never: a register relied upon that an
 * expression in between may have changed.
 */
import type { NftConnectionState, NftExpression, NftVerdict } from '../linux/nftables-port.ts';
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
import type { Condition, Mark, Verdict } from './chain.ts';

/** What nft takes: 127 characters. */
const MAX_LOG_PREFIX = 127;
/** RTN_LOCAL, as the kernel holds it. */
const LOCAL_ADDRESS = Uint8Array.from([2, 0, 0, 0]);

/** What many rules load is one object each: it is encoded once. */
const LOAD_PROTOCOL: NftExpression = { kind: 'meta', key: 'l4proto', to: 1 };
const LOAD_INTERFACE: Readonly<Record<Side, NftExpression>> = {
  src: { kind: 'meta', key: 'iifname', to: 1 },
  dst: { kind: 'meta', key: 'oifname', to: 1 },
};
/** Of register 1: it has four quarters, and what goes on begins the next one. */
const FIRST_QUARTER = 8;
/** Where source and destination stand in the header (RFC 791, RFC 8200); into register 1 or 2. */
const LOAD_ADDRESS: Readonly<Record<Family, Record<Side, NftExpression[]>>> = {
  4: { src: loadsOf('network', 12, 4), dst: loadsOf('network', 16, 4) },
  6: { src: loadsOf('network', 8, 16), dst: loadsOf('network', 24, 16) },
};
const LOAD_INDEX_PAIR: typeof LOAD_ADDRESS = {
  4: { src: indexPairLoads('iif', 4, 'src'), dst: indexPairLoads('oif', 4, 'dst') },
  6: { src: indexPairLoads('iif', 6, 'src'), dst: indexPairLoads('oif', 6, 'dst') },
};
const LOAD_PORT: Readonly<Record<Side, NftExpression>> = {
  src: loadsOf('transport', 0, 2)[0]!,
  dst: loadsOf('transport', 2, 2)[0]!,
};

/** @param before the condition before it in its rule */
export function renderCondition(
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

export function renderVerdict(verdict: Verdict): NftExpression[] {
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

export function loadPair(side: Side, family: Family): NftExpression[] {
  return [loadInterface(side), loadAddress(side, family, 2)];
}

/** The index of the interface, and the address: one behind the other, from register 1 on. */
export function loadIndexPair(side: Side, family: Family): NftExpression[] {
  return LOAD_INDEX_PAIR[family][side];
}

function indexPairLoads(key: 'iif' | 'oif', family: Family, side: Side): NftExpression[] {
  const [address] = LOAD_ADDRESS[family][side];
  return [{ kind: 'meta', key, to: FIRST_QUARTER }, { ...address!, to: FIRST_QUARTER + 1 } as NftExpression];
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
