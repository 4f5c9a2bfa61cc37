/**
 * The bytes of netlink: fixed headers and attributes (type, length, value), written and read.
 *
 * In: numbers, texts and bytes to write; bytes to read. Out: bytes; a map from attribute type to value. Never: an attribute
 * that claims more bytes than there are. Numbers are in the byte order of the host, which is little-endian on every machine
 * that netctl is built for (x86-64, arm64); what a protocol wants in network order says so in the name.
 */

/** Set on the type of an attribute whose value is attributes (not all families want it). */
export const NLA_F_NESTED = 0x8000;
/** Set on the type of an attribute whose number is in network order (ipset insists). */
export const NLA_F_NET_BYTEORDER = 0x4000;
const NLA_TYPE_MASK = 0x3fff;
const HEADER_BYTES = 4;
const LONGEST = 0xffff;
const LAST_ASCII = 0x7f;

/** Appends to a buffer that grows. */
export class ByteWriter {
  #bytes: Buffer;
  #length = 0;

  constructor(capacityBytes = 2048) {
    this.#bytes = Buffer.allocUnsafe(capacityBytes);
  }

  get length(): number {
    return this.#length;
  }

  /** What was written. Later writes may change it: take it when done. */
  bytes(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }

  u8(value: number): void {
    const position = this.#reserve(1);
    this.#bytes[position] = value;
  }

  u16(value: number): void {
    const position = this.#reserve(2);
    this.u16At(position, value);
  }

  u32(value: number): void {
    const position = this.#reserve(4);
    this.u32At(position, value);
  }

  u16At(position: number, value: number): void {
    const bytes = this.#bytes;
    bytes[position] = value;
    bytes[position + 1] = value >>> 8;
  }

  u32At(position: number, value: number): void {
    const bytes = this.#bytes;
    bytes[position] = value;
    bytes[position + 1] = value >>> 8;
    bytes[position + 2] = value >>> 16;
    bytes[position + 3] = value >>> 24;
  }

  raw(value: Uint8Array): void {
    const position = this.#reserve(value.length);
    // For an address, a MAC or a name with an address a loop is faster than a call.
    if (value.length > 32) this.#bytes.set(value, position);
    else for (let i = 0; i < value.length; i++) this.#bytes[position + i] = value[i]!;
  }

  zeros(count: number): void {
    const position = this.#reserve(count);
    this.#bytes.fill(0, position, position + count);
  }

  /** Messages and attributes begin at multiples of 4. */
  align(): void {
    for (let missing = -this.#length & 3; missing > 0; missing--) this.u8(0);
  }

  attribute(type: number, value: Uint8Array): void {
    this.#attributeHeader(type, value.length);
    this.raw(value);
    this.align();
  }

  attributeU8(type: number, value: number): void {
    this.#attributeHeader(type, 1);
    this.u8(value);
    this.align();
  }

  attributeU32(type: number, value: number): void {
    this.#attributeHeader(type, 4);
    this.u32(value);
  }

  attributeU32NetworkOrder(type: number, value: number): void {
    this.#attributeHeader(type, 4);
    const position = this.#reserve(4);
    const bytes = this.#bytes;
    bytes[position] = value >>> 24;
    bytes[position + 1] = value >>> 16;
    bytes[position + 2] = value >>> 8;
    bytes[position + 3] = value;
  }

  /** Zero-terminated text. */
  attributeText(type: number, value: string): void {
    const start = this.#length;
    this.#attributeHeader(type, 0);
    this.#text(value);
    this.u8(0);
    this.#setLength(start);
    this.align();
  }

  nested(type: number, write: () => void): void {
    const start = this.#length;
    this.#attributeHeader(type, 0);
    write();
    this.#setLength(start);
  }

  /** Names are ASCII, and short: a call of the library costs more than a loop. */
  #text(value: string): void {
    const position = this.#reserve(value.length);
    for (let i = 0; i < value.length; i++) {
      const code = value.charCodeAt(i);
      if (code > LAST_ASCII) {
        this.#length = position;
        this.raw(Buffer.from(value));
        return;
      }
      this.#bytes[position + i] = code;
    }
  }

  #attributeHeader(type: number, length: number): void {
    this.u16(checkedLength(HEADER_BYTES + length));
    this.u16(type);
  }

  #setLength(start: number): void {
    this.u16At(start, checkedLength(this.#length - start));
  }

  #reserve(count: number): number {
    const position = this.#length;
    const end = position + count;
    if (end > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(end, this.#bytes.length * 2));
      this.#bytes.copy(larger, 0, 0, position);
      this.#bytes = larger;
    }
    this.#length = end;
    return position;
  }
}

function checkedLength(length: number): number {
  if (length > LONGEST) throw new RangeError(`netlink: an attribute of ${length} bytes`);
  return length;
}

export type Attributes = ReadonlyMap<number, Buffer>;

/** Attributes by type, without their flag bits; of a type that repeats, the last. Stops at the first broken one. */
export function readAttributes(bytes: Buffer): Attributes {
  const attributes = new Map<number, Buffer>();
  for (const { type, value } of eachAttribute(bytes)) attributes.set(type, value);
  return attributes;
}

/**
 * Where the value of the first attribute of the type begins in the bytes from `start` to `end`, or -1; for long lists, of which nothing else
 * is read. It ends where `attributeEnd` says.
 */
export function findAttribute(bytes: Buffer, start: number, end: number, type: number): number {
  for (let at = start; at + HEADER_BYTES <= end; ) {
    const length = bytes.readUInt16LE(at);
    if (length < HEADER_BYTES || at + length > end) return -1;
    if ((bytes.readUInt16LE(at + 2) & NLA_TYPE_MASK) === type) return at + HEADER_BYTES;
    at += (length + 3) & ~3;
  }
  return -1;
}

/** @param start of a value, as findAttribute has found it */
export function attributeEnd(bytes: Buffer, start: number): number {
  return start - HEADER_BYTES + bytes.readUInt16LE(start - HEADER_BYTES);
}

/** All attributes in order, for lists in which a type repeats. */
export function* eachAttribute(bytes: Buffer): Generator<{ type: number; value: Buffer }> {
  for (let at = 0; at + HEADER_BYTES <= bytes.length; ) {
    const length = bytes.readUInt16LE(at);
    if (length < HEADER_BYTES || at + length > bytes.length) return;
    yield {
      type: bytes.readUInt16LE(at + 2) & NLA_TYPE_MASK,
      value: bytes.subarray(at + HEADER_BYTES, at + length),
    };
    at += (length + 3) & ~3;
  }
}

/** The number in an attribute, or null where it is absent or too short. */
export function readU32(value: Buffer | undefined): number | null {
  return value !== undefined && value.length >= 4 ? value.readUInt32LE(0) : null;
}

/** Text up to its NUL. */
export function readText(value: Buffer | undefined): string | null {
  if (value === undefined) return null;
  const end = value.indexOf(0);
  return value.toString('utf8', 0, end < 0 ? value.length : end);
}
