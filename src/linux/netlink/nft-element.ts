/**
 * Sets of nftables: what they hold as text ↔ as the bytes that the kernel compares.
 *
 * In: specs and elements of ports.ts; attributes. Out: attributes; elements. Never: an element that the kernel would read as
 * another one (interface names are padded to 16 bytes; a prefix is an element for each of its ends).
 */
import { invalid } from '../../lib/errors.ts';
import {
  type Address,
  addressBits,
  addressBytes,
  addressFrom,
  addressFromBytes,
  addressValue,
  cidrBase,
  cidrSize,
  type Family,
  familyOf,
  networkOf,
  parseAddress,
  parseCidr,
} from '../../model/ip.ts';
import { type Mac, macBytes, macFromBytes, parseMac } from '../../model/mac.ts';
import { parseInterfaceName } from '../../model/names.ts';
import type { NftData, NftElement, NftSetSpec } from '../nftables-port.ts';
import { type ByteWriter, eachAttribute, NLA_F_NESTED, readAttributes, readText } from './attribute.ts';
import { DATA_VALUE, LIST_ELEMENT, verdictOf, writeVerdict } from './nft-expression.ts';

const ELEMENT_KEY = 1;
const ELEMENT_DATA = 2;
const ELEMENT_FLAGS = 3;
const ELEMENT_KEY_END = 10;
const INTERVAL_END = 1;
const DATA_VERDICT = 2;
/** Length of an interface name in the kernel, with its NUL. */
const NAME_BYTES = 16;
const LAST_ASCII = 0x7f;
const ID_BYTES = 4;
const MAC_BYTES = 6;
/** Before another value: each begins at a multiple of 4. */
const PADDED_MAC_BYTES = 8;

/** How the program nft numbers its types; for its listings only. */
const TYPES = {
  address: { 4: 7, 6: 8 },
  mac: 9,
  mark: 19,
  index: 20,
  name: 41,
  verdict: 0xffffff00,
} as const;
/** Bits of each part of a concatenated type. */
const TYPE_BITS = 6;

interface FirstValue {
  /** With what is added, so that the address begins at a multiple of 4. */
  readonly bytes: number;
  parse(text: string, what: string): string;
  write(bytes: Uint8Array, text: string): void;
  read(key: Buffer): string | null;
}

/** What stands before the address in a key of two values. */
const FIRST_VALUES: Readonly<Partial<Record<NftSetSpec['key'], FirstValue>>> = {
  pair: {
    bytes: NAME_BYTES,
    parse: parseInterfaceName,
    write: writeName,
    read: (key) => readText(key.subarray(0, NAME_BYTES)),
  },
  'index-pair': {
    bytes: ID_BYTES,
    parse: (text) => text,
    write: (bytes, index) => bytes.set(idBytes(Number(index))),
    read: (key) => String(key.readUInt32LE(0)),
  },
  'mac-pair': {
    bytes: PADDED_MAC_BYTES,
    parse: parseMac,
    write: (bytes, mac) => bytes.set(macBytes(mac as Mac)),
    read: (key) => macFromBytes(key.subarray(0, MAC_BYTES)),
  },
};

export interface SetLayout {
  readonly keyType: number;
  readonly keyBytes: number;
  readonly dataType: number | null;
  /** null for verdicts, whose length the kernel knows. */
  readonly dataBytes: number | null;
  /** Of each of several values in the key; null where it is one. */
  readonly fieldBytes: readonly number[] | null;
}

export function layoutOf(spec: NftSetSpec, family: Family): SetLayout {
  const addressLength = addressBits(family) / 8;
  const key = {
    address: { keyType: TYPES.address[family], keyBytes: addressLength, fieldBytes: null },
    pair: {
      keyType: (TYPES.name << TYPE_BITS) | TYPES.address[family],
      keyBytes: NAME_BYTES + addressLength,
      fieldBytes: [NAME_BYTES, addressLength],
    },
    'index-pair': {
      keyType: (TYPES.index << TYPE_BITS) | TYPES.address[family],
      keyBytes: ID_BYTES + addressLength,
      fieldBytes: [ID_BYTES, addressLength],
    },
    id: { keyType: TYPES.mark, keyBytes: ID_BYTES, fieldBytes: null },
    mac: { keyType: TYPES.mac, keyBytes: MAC_BYTES, fieldBytes: null },
    'mac-pair': {
      keyType: (TYPES.mac << TYPE_BITS) | TYPES.address[family],
      keyBytes: PADDED_MAC_BYTES + addressLength,
      fieldBytes: [MAC_BYTES, addressLength],
    },
  }[spec.key];
  if (spec.data === null) return { ...key, dataType: null, dataBytes: null };
  return spec.data === 'verdict'
    ? { ...key, dataType: TYPES.verdict, dataBytes: null }
    : { ...key, dataType: TYPES.mark, dataBytes: ID_BYTES };
}

/** @throws INVALID when the element does not fit the set */
export function writeElement(
  writer: ByteWriter,
  family: Family,
  spec: NftSetSpec,
  [key, data]: NftElement,
): void {
  checkData(spec, data);
  const [text, name] = splitPair(key, spec);
  if (!spec.prefixes) {
    writeOne(writer, keyBytes(text, name, family, spec), { data });
    return;
  }
  const { first, last } = parseRange(text, family);
  if (name !== null) {
    // Fields are compared one by one: the element says where each begins and ends.
    const to = Buffer.concat([firstBytes(name, spec), addressBytes(addressFrom(family, last))]);
    writeOne(writer, Buffer.concat([firstBytes(name, spec), addressBytes(first)]), { data, to });
    return;
  }
  writeOne(writer, addressBytes(first), { data });
  if (last < lastValue(family)) {
    writeOne(writer, addressBytes(addressFrom(family, last + 1n)), { flags: INTERVAL_END });
  }
}

/** For an anonymous set of two-byte numbers: an element for each end, like a prefix. */
export function writeRange(writer: ByteWriter, from: Uint8Array, end: Uint8Array | null): void {
  writeOne(writer, from, {});
  if (end !== null) writeOne(writer, end, { flags: INTERVAL_END });
}

/** @throws INVALID */
export function checkElement(family: Family, spec: NftSetSpec, [key, data]: NftElement): void {
  const [text, name] = splitPair(key, spec);
  if (spec.prefixes) parseRange(text, family);
  else keyBytes(text, name, family, spec);
  checkData(spec, data);
}

function checkData(spec: NftSetSpec, data: NftData | null): void {
  const kind = typeof data === 'number' ? 'id' : data === null ? null : 'verdict';
  if (kind !== null && kind !== spec.data) throw invalid('data', data, spec.data ?? 'no data');
}

export interface RawElement {
  readonly key: Buffer;
  /** Where the last address of a pair's prefix stands. */
  readonly to: Buffer | null;
  readonly data: NftData | null;
  readonly isEnd: boolean;
}

/** The elements in the list attribute of a message. */
export function readRawElements(list: Buffer): RawElement[] {
  return [...eachAttribute(list)].flatMap(({ value }): RawElement[] => {
    const attributes = readAttributes(value);
    const key = readValue(attributes.get(ELEMENT_KEY));
    if (key === null) return [];
    const flags = attributes.get(ELEMENT_FLAGS)?.readUInt32BE(0) ?? 0;
    return [
      {
        key,
        to: readValue(attributes.get(ELEMENT_KEY_END)),
        data: readData(attributes.get(ELEMENT_DATA)),
        isEnd: (flags & INTERVAL_END) !== 0,
      },
    ];
  });
}

/** All elements of a set, in ports.ts's form. */
export function elementsOf(raw: readonly RawElement[], family: Family, spec: NftSetSpec): NftElement[] {
  if (spec.prefixes && spec.key === 'address') return rangesOf(raw, family).map((key) => [key, null]);
  return raw.map(({ key, to, data }) => [keyText(key, to, family, spec), data]);
}

/** Ends stand before a start of the same value: one range may end where another one begins. */
function rangesOf(raw: readonly RawElement[], family: Family): string[] {
  const points = raw
    .map(({ key, isEnd }) => ({ value: addressValue(addressFromBytes(key)), isEnd }))
    .sort((a, b) => (a.value === b.value ? Number(b.isEnd) - Number(a.isEnd) : a.value < b.value ? -1 : 1));
  const ranges: string[] = [];
  let start: bigint | null = null;
  for (const { value, isEnd } of points) {
    if (!isEnd) start = value;
    else if (start !== null) {
      ranges.push(rangeText(family, start, value - 1n));
      start = null;
    }
  }
  if (start !== null) ranges.push(rangeText(family, start, lastValue(family)));
  return ranges;
}

/** A prefix where it is one. */
function rangeText(family: Family, first: bigint, last: bigint): string {
  const size = last - first + 1n;
  const bits = size.toString(2).length - 1;
  const isPrefix = size === 1n << BigInt(bits) && first % size === 0n;
  const from = addressFrom(family, first);
  return isPrefix ? networkOf(from, addressBits(family) - bits) : `${from}-${addressFrom(family, last)}`;
}

/** `10.0.0.0/8` or `10.0.0.1-10.0.0.5`. */
function parseRange(text: string, family: Family): { first: Address; last: bigint } {
  const [from, to] = text.split('-', 2);
  const cidr = to === undefined ? parseCidr(text, 'element') : null;
  const first = cidr === null ? parseAddress(from, 'element') : cidrBase(cidr);
  if (familyOf(first) !== family) throw invalid('element', text, `an IPv${family} prefix`);
  const last =
    cidr === null ? addressValue(parseAddress(to, 'element')) : addressValue(first) + cidrSize(cidr) - 1n;
  return { first, last };
}

function lastValue(family: Family): bigint {
  return (1n << BigInt(addressBits(family))) - 1n;
}

/** Address (or number, or MAC), and interface, index or MAC of a pair. @throws INVALID when one of them is missing, or too many */
function splitPair(key: string, spec: NftSetSpec): [text: string, name: string | null] {
  const comma = key.indexOf(',');
  const firstOf = FIRST_VALUES[spec.key];
  if (comma >= 0 !== (firstOf !== undefined))
    throw invalid('element', key, `an element of a set of ${spec.key}`);
  if (firstOf === undefined) return [key, null];
  return [key.slice(0, comma), firstOf.parse(key.slice(comma + 1), 'element')];
}

function keyBytes(text: string, name: string | null, family: Family, spec: NftSetSpec): Uint8Array {
  if (spec.key === 'id') return idBytes(Number(text));
  if (spec.key === 'mac') return macBytes(parseMac(text, 'element'));
  const address = parseAddress(text, 'element');
  if (familyOf(address) !== family) throw invalid('element', text, `an IPv${family} address`);
  const bytes = addressBytes(address);
  if (name === null) return bytes;
  const { bytes: at, write } = FIRST_VALUES[spec.key]!;
  const key = new Uint8Array(at + bytes.length);
  write(key, name);
  key.set(bytes, at);
  return key;
}

/** Numbers of a packet's metadata are in the byte order of the host. @throws INVALID */
function idBytes(id: number): Uint8Array {
  if (!Number.isInteger(id) || id < 0 || id > 0xffffffff) throw invalid('id', id, 'a number of 32 bits');
  return Uint8Array.of(id, id >>> 8, id >>> 16, id >>> 24);
}

function writeName(bytes: Uint8Array, name: string): void {
  for (let i = 0; i < name.length; i++) {
    const code = name.charCodeAt(i);
    if (code > LAST_ASCII) {
      bytes.set(Buffer.from(name).subarray(0, NAME_BYTES));
      return;
    }
    bytes[i] = code;
  }
}

/** The first value of a pair, padded. */
function firstBytes(name: string, spec: NftSetSpec): Uint8Array {
  const { bytes, write } = FIRST_VALUES[spec.key]!;
  const first = new Uint8Array(bytes);
  write(first, name);
  return first;
}

function keyText(key: Buffer, to: Buffer | null, family: Family, spec: NftSetSpec): string {
  if (spec.key === 'id') return String(key.readUInt32LE(0));
  if (spec.key === 'address') return addressFromBytes(key);
  if (spec.key === 'mac') return macFromBytes(key.subarray(0, MAC_BYTES));
  const { bytes: at, read } = FIRST_VALUES[spec.key]!;
  const first = addressFromBytes(key.subarray(at));
  const last = addressFromBytes((to ?? key).subarray(at));
  const address = spec.prefixes ? rangeText(family, addressValue(first), addressValue(last)) : first;
  return `${address},${read(key)}`;
}

function writeOne(
  writer: ByteWriter,
  key: Uint8Array,
  { to, data = null, flags = 0 }: { to?: Uint8Array; data?: NftData | null; flags?: number },
): void {
  writer.nested(LIST_ELEMENT | NLA_F_NESTED, () => {
    if (flags !== 0) writer.attributeU32NetworkOrder(ELEMENT_FLAGS, flags);
    writer.nested(ELEMENT_KEY | NLA_F_NESTED, () => writer.attribute(DATA_VALUE, key));
    if (to !== undefined) {
      writer.nested(ELEMENT_KEY_END | NLA_F_NESTED, () => writer.attribute(DATA_VALUE, to));
    }
    if (data === null) return;
    writer.nested(ELEMENT_DATA | NLA_F_NESTED, () => {
      if (typeof data === 'number') writer.attribute(DATA_VALUE, idBytes(data));
      else writeVerdict(writer, data);
    });
  });
}

function readValue(data: Buffer | undefined): Buffer | null {
  return (data && readAttributes(data).get(DATA_VALUE)) ?? null;
}

function readData(data: Buffer | undefined): NftData | null {
  if (data === undefined) return null;
  const value = readValue(data);
  if (value !== null) return value.readUInt32LE(0);
  const verdict = readAttributes(data).get(DATA_VERDICT);
  if (verdict === undefined) return null;
  const inner = readAttributes(verdict);
  return verdictOf(inner.get(1)?.readUInt32BE(0) ?? 0, readText(inner.get(2)));
}
