/**
 * The expressions of an nftables rule as attributes (linux/netfilter/nf_tables.h).
 *
 * In: expressions of ports.ts. Out: attributes in a message, and the anonymous sets that they look into, as nft makes them, so that
 * `nft list` shows what was meant. Never: a choice of what a rule does.
 */
import type { NftExpression, NftVerdict } from '../nftables-port.ts';
import { AF } from './address.ts';
import { type ByteWriter, NLA_F_NESTED } from './attribute.ts';

/** What the rule looks up in a set of its own: the set is made in the message before. */
export interface PortSet {
  readonly id: number;
  readonly ranges: readonly { readonly from: number; readonly to: number }[];
}

export const ANONYMOUS_SET = '__set%d';
export const DATA_VALUE = 1;
export const LIST_ELEMENT = 1;
const DATA_VERDICT = 2;
const VERDICT_REGISTER = 0;
const META_KEYS = {
  protocol: 1,
  iif: 4,
  oif: 5,
  iifname: 6,
  oifname: 7,
  l4proto: 16,
  mark: 3,
  trace: 12,
} as const;
const PAYLOAD_BASES = { link: 0, network: 1, transport: 2 } as const;
const CT_KEY_STATE = 0;
const CT_KEY_MARK = 3;
const CT_STATES = { invalid: 1, established: 2, related: 4, new: 8 } as const;
const FIB_RESULT_TYPE = 3;
const FIB_OF_DESTINATION = 2;
const NAT_DESTINATION = 1;
const COMPARE = { equal: 0, notEqual: 1, atMost: 3, atLeast: 5 } as const;
const LOOKUP_INVERTED = 1;
const VERDICT_CODES = { drop: 0, accept: 1, jump: -3, goto: -4, return: -5 } as const;
/** The register in which states of connections are compared: rules here load nothing before that they need afterwards. */
const STATE_REGISTER = 1;
const TRACE_REGISTER = 1;

/** More than one range is looked up in an anonymous set. */
export function portSetOf(expression: NftExpression, id: number): PortSet | null {
  return expression.kind === 'in-ranges' && expression.ranges.length > 1
    ? { id, ranges: expression.ranges }
    : null;
}

/** @param setId of the expression's anonymous set, if it has one */
export function writeExpression(writer: ByteWriter, expression: NftExpression, setId: number): void {
  switch (expression.kind) {
    case 'meta':
      write(writer, 'meta', () => numbers(writer, [1, expression.to], [2, META_KEYS[expression.key]]));
      break;
    case 'mark-set':
      write(writer, 'meta', () => numbers(writer, [2, META_KEYS.mark], [3, expression.from]));
      break;
    case 'connection-mark':
      write(writer, 'ct', () => numbers(writer, [1, expression.to], [2, CT_KEY_MARK]));
      break;
    case 'connection-mark-set':
      write(writer, 'ct', () => numbers(writer, [2, CT_KEY_MARK], [4, expression.from]));
      break;
    case 'destination-type':
      write(writer, 'fib', () =>
        numbers(writer, [1, expression.to], [2, FIB_RESULT_TYPE], [3, FIB_OF_DESTINATION]),
      );
      break;
    case 'payload': {
      const { base, offsetBytes, lengthBytes, to } = expression;
      write(writer, 'payload', () =>
        numbers(writer, [1, to], [2, PAYLOAD_BASES[base]], [3, offsetBytes], [4, lengthBytes]),
      );
      break;
    }
    case 'ct-state': {
      write(writer, 'ct', () => numbers(writer, [1, STATE_REGISTER], [2, CT_KEY_STATE]));
      const bits = Buffer.alloc(4);
      bits.writeUInt32LE(expression.states.reduce((sum, state) => sum | CT_STATES[state], 0));
      mask(writer, STATE_REGISTER, bits);
      compare(writer, STATE_REGISTER, COMPARE.notEqual, Buffer.alloc(4));
      break;
    }
    case 'mask':
      mask(writer, expression.register, expression.mask, expression.flip);
      break;
    case 'compare':
      compare(writer, expression.from, comparison(expression), expression.value);
      break;
    case 'in-ranges':
      inRanges(writer, expression, setId);
      break;
    case 'in-set':
      lookup(writer, expression.set, expression.from, { inverted: expression.negated });
      break;
    case 'map':
      lookup(writer, expression.map, expression.from, { to: expression.to });
      break;
    case 'verdict-map':
      lookup(writer, expression.map, expression.from, { to: VERDICT_REGISTER });
      break;
    case 'counter':
      write(writer, 'counter', () => {
        writer.attribute(1, u64(0));
        writer.attribute(2, u64(0));
      });
      break;
    case 'limit':
      write(writer, 'limit', () => {
        writer.attribute(1, u64(expression.perSecond));
        writer.attribute(2, u64(1));
        numbers(writer, [3, expression.burst], [4, 0], [5, 0]);
      });
      break;
    case 'log':
      write(writer, 'log', () => writer.attributeText(2, expression.prefix));
      break;
    case 'masquerade':
      write(writer, 'masq', () => {});
      break;
    case 'dnat':
      write(writer, 'nat', () =>
        numbers(
          writer,
          [1, NAT_DESTINATION],
          [2, AF[expression.family]],
          [3, expression.address],
          [5, expression.port],
        ),
      );
      break;
    case 'immediate':
      write(writer, 'immediate', () => {
        numbers(writer, [1, expression.to]);
        data(writer, 2, expression.value);
      });
      break;
    case 'trace':
      write(writer, 'immediate', () => {
        numbers(writer, [1, TRACE_REGISTER]);
        data(writer, 2, Buffer.from([1, 0, 0, 0]));
      });
      write(writer, 'meta', () => numbers(writer, [2, META_KEYS.trace], [3, TRACE_REGISTER]));
      break;
    case 'verdict':
      write(writer, 'immediate', () => {
        numbers(writer, [1, VERDICT_REGISTER]);
        writer.nested(2 | NLA_F_NESTED, () => writeVerdict(writer, expression.verdict));
      });
  }
}

/** The inside of nft_data_attributes. */
export function writeVerdict(writer: ByteWriter, verdict: NftVerdict): void {
  writer.nested(DATA_VERDICT | NLA_F_NESTED, () => {
    numbers(writer, [1, VERDICT_CODES[verdict.kind] >>> 0]);
    if ('chain' in verdict) writer.attributeText(2, verdict.chain);
  });
}

/** @returns null for a verdict that we never ask for */
export function verdictOf(code: number, chain: string | null): NftVerdict | null {
  const kind = (Object.keys(VERDICT_CODES) as (keyof typeof VERDICT_CODES)[]).find(
    (name) => VERDICT_CODES[name] === (code | 0),
  );
  if (kind === 'jump' || kind === 'goto') return chain === null ? null : { kind, chain };
  return kind === undefined ? null : { kind };
}

function inRanges(
  writer: ByteWriter,
  expression: NftExpression & { kind: 'in-ranges' },
  setId: number,
): void {
  const { from: register, negated, ranges } = expression;
  const [only] = ranges;
  if (ranges.length > 1 || only === undefined) {
    lookup(writer, ANONYMOUS_SET, register, { inverted: negated, setId });
  } else if (only.from === only.to) {
    compare(writer, register, comparison(expression), u16(only.from));
  } else if (negated) {
    write(writer, 'range', () => {
      numbers(writer, [1, register], [2, COMPARE.notEqual]);
      data(writer, 3, u16(only.from));
      data(writer, 4, u16(only.to));
    });
  } else {
    compare(writer, register, COMPARE.atLeast, u16(only.from));
    compare(writer, register, COMPARE.atMost, u16(only.to));
  }
}

function lookup(
  writer: ByteWriter,
  set: string,
  from: number,
  { inverted = false, to, setId }: { inverted?: boolean; to?: number; setId?: number },
): void {
  write(writer, 'lookup', () => {
    writer.attributeText(1, set);
    numbers(writer, [2, from]);
    if (to !== undefined) numbers(writer, [3, to]);
    if (setId !== undefined) numbers(writer, [4, setId]);
    numbers(writer, [5, inverted ? LOOKUP_INVERTED : 0]);
  });
}

function mask(
  writer: ByteWriter,
  register: number,
  bits: Uint8Array,
  flip: Uint8Array = new Uint8Array(bits.length),
): void {
  write(writer, 'bitwise', () => {
    numbers(writer, [1, register], [2, register], [3, bits.length]);
    data(writer, 4, bits);
    data(writer, 5, flip);
  });
}

function compare(writer: ByteWriter, register: number, operator: number, value: Uint8Array): void {
  write(writer, 'cmp', () => {
    numbers(writer, [1, register], [2, operator]);
    data(writer, 3, value);
  });
}

function comparison({ negated }: { readonly negated: boolean }): number {
  return negated ? COMPARE.notEqual : COMPARE.equal;
}

function write(writer: ByteWriter, name: string, attributes: () => void): void {
  writer.nested(LIST_ELEMENT | NLA_F_NESTED, () => {
    writer.attributeText(1, name);
    writer.nested(2 | NLA_F_NESTED, attributes);
  });
}

function data(writer: ByteWriter, attribute: number, value: Uint8Array): void {
  writer.nested(attribute | NLA_F_NESTED, () => writer.attribute(DATA_VALUE, value));
}

function numbers(
  writer: ByteWriter,
  ...attributes: readonly (readonly [type: number, value: number])[]
): void {
  for (const [type, value] of attributes) writer.attributeU32NetworkOrder(type, value);
}

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}
