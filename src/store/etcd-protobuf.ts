/**
 * Protocol buffers (proto3) for the few messages that the etcd adapter exchanges.
 *
 * In: a schema (field names with their numbers and types), a message or its bytes. Out: bytes, or a message with every field,
 * absent ones as proto3's defaults. Never: an integer that lost digits, a read beyond the end, an unknown field as an error
 * (newer servers send more). Wire format: protobuf.dev/programming-guides/encoding.
 */

interface Scalars {
  readonly bytes: Buffer;
  readonly string: string;
  readonly bool: boolean;
  /** int64 or an enumeration, of safe size and not negative: revisions, limits. */
  readonly number: number;
  /** uint64: identifiers, which use all bits. */
  readonly id: bigint;
}

type Field = { readonly number: number; readonly repeated?: true } & (
  | { readonly type: keyof Scalars }
  | { readonly message: Schema }
);

export interface Schema {
  readonly [name: string]: Field;
}

type One<F extends Field> = F extends { readonly type: infer T extends keyof Scalars }
  ? Scalars[T]
  : F extends { readonly message: infer S extends Schema }
    ? Message<S>
    : never;

/** As decoded: a message within a message is null where it was not sent. */
export type Message<S extends Schema> = {
  readonly [N in keyof S]: S[N] extends { readonly repeated: true }
    ? readonly One<S[N]>[]
    : S[N] extends { readonly message: Schema }
      ? One<S[N]> | null
      : One<S[N]>;
};

type OneGiven<F extends Field> = F extends { readonly message: infer S extends Schema } ? Given<S> : One<F>;

/** As encoded: what is left out is not sent. */
export type Given<S extends Schema> = {
  readonly [N in keyof S]?: S[N] extends { readonly repeated: true }
    ? readonly OneGiven<S[N]>[]
    : OneGiven<S[N]>;
};

const emptyScalars: Scalars = { bytes: Buffer.alloc(0), string: '', bool: false, number: 0, id: 0n };

const wireVarint = 0;
const wireFixed64 = 1;
const wireLengthDelimited = 2;
const wireFixed32 = 5;

export function encodeMessage<S extends Schema>(schema: S, message: Given<S>): Buffer {
  const parts: Buffer[] = [];
  for (const name in message) {
    const field = schema[name];
    const value = message[name];
    if (field === undefined) throw new RangeError(`protobuf: no field is called ${name}`);
    if (value === undefined) continue;
    for (const one of field.repeated ? (value as readonly unknown[]) : [value]) pushField(parts, field, one);
  }
  return Buffer.concat(parts);
}

/** @throws RangeError for bytes that are no such message */
export function decodeMessage<S extends Schema>(schema: S, bytes: Buffer): Message<S> {
  const message = emptyMessage(schema);
  const reader = new Reader(bytes);
  while (!reader.atEnd()) {
    const tag = reader.small();
    const [number, wire] = [Math.floor(tag / 8), tag % 8];
    const name = fieldName(schema, number);
    if (name === undefined) {
      reader.skip(wire);
      continue;
    }
    const field = schema[name]!;
    if (wire !== wireTypeOf(field)) throw new RangeError(`protobuf: field ${name} has wire type ${wire}`);
    const value = readField(reader, field);
    if (field.repeated) (message[name] as unknown[]).push(value);
    else message[name] = value;
  }
  return message as Message<S>;
}

function pushField(parts: Buffer[], field: Field, value: unknown): void {
  parts.push(encodeNumber(field.number * 8 + wireTypeOf(field)));
  if ('message' in field) {
    pushBytes(parts, encodeMessage(field.message, value as Given<Schema>));
    return;
  }
  switch (field.type) {
    case 'bytes':
      pushBytes(parts, value as Buffer);
      return;
    case 'string':
      pushBytes(parts, Buffer.from(value as string));
      return;
    case 'bool':
      parts.push(encodeNumber(value ? 1 : 0));
      return;
    case 'number':
      if (!Number.isSafeInteger(value) || (value as number) < 0)
        throw new RangeError(`protobuf: ${value} is not a whole number from 0 to 2^53 - 1`);
      parts.push(encodeNumber(value as number));
      return;
    case 'id':
      parts.push(encodeVarint(value as bigint));
  }
}

function pushBytes(parts: Buffer[], bytes: Buffer): void {
  parts.push(encodeNumber(bytes.length), bytes);
}

/** Tags, lengths and most revisions are small: no arithmetic of large integers for them. */
function encodeNumber(value: number): Buffer {
  if (value >= 2 ** 31) return encodeVarint(BigInt(value));
  if (value < 0x80) return oneByte[value]!;
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  bytes.push(rest);
  return Buffer.from(bytes);
}

const oneByte: readonly Buffer[] = Array.from({ length: 0x80 }, (_, byte) => Buffer.of(byte));

function encodeVarint(value: bigint): Buffer {
  if (value < 0x80n) return Buffer.of(Number(value));
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80n; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
  bytes.push(Number(rest));
  return Buffer.from(bytes);
}

function readField(reader: Reader, field: Field): unknown {
  if ('message' in field) return decodeMessage(field.message, reader.bytes());
  switch (field.type) {
    case 'bytes':
      return reader.bytes();
    case 'string':
      return reader.bytes().toString();
    case 'bool':
      return reader.varint() !== 0n;
    case 'number':
      return reader.number();
    case 'id':
      return reader.varint();
  }
}

function wireTypeOf(field: Field): number {
  const lengthDelimited = 'message' in field || field.type === 'bytes' || field.type === 'string';
  return lengthDelimited ? wireLengthDelimited : wireVarint;
}

/** A search: messages have few fields, and a page of a list has thousands of messages. */
function fieldName(schema: Schema, number: number): string | undefined {
  for (const name in schema) if (schema[name]!.number === number) return name;
  return undefined;
}

function emptyMessage(schema: Schema): Record<string, unknown> {
  const message: Record<string, unknown> = {};
  for (const name in schema) message[name] = emptyField(schema[name]!);
  return message;
}

function emptyField(field: Field): unknown {
  if (field.repeated) return [];
  if ('message' in field) return null;
  return emptyScalars[field.type];
}

class Reader {
  readonly #buffer: Buffer;
  #at = 0;

  constructor(buffer: Buffer) {
    this.#buffer = buffer;
  }

  atEnd(): boolean {
    return this.#at === this.#buffer.length;
  }

  /** A tag or a length. */
  small(): number {
    return this.#fourBytes() ?? Number(this.varint());
  }

  /** An int64. */
  number(): number {
    const small = this.#fourBytes();
    if (small !== null) return small;
    const number = Number(BigInt.asIntN(64, this.varint()));
    if (!Number.isSafeInteger(number)) throw new RangeError('protobuf: a number is too large to be exact');
    return number;
  }

  /** A varint of at most four bytes, or null: then nothing was read. */
  #fourBytes(): number | null {
    let value = 0;
    for (let index = 0; index < 4; index++) {
      const byte = this.#buffer[this.#at + index];
      if (byte === undefined) return null;
      value |= (byte & 0x7f) << (7 * index);
      if (byte < 0x80) {
        this.#at += index + 1;
        return value;
      }
    }
    return null;
  }

  varint(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#buffer[this.#at];
      if (byte === undefined) break;
      this.#at += 1;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw new RangeError('protobuf: a number has no end');
  }

  /** Shares memory with the message, which nobody writes to. */
  bytes(): Buffer {
    return this.#take(this.small());
  }

  skip(wire: number): void {
    if (wire === wireVarint) this.varint();
    else if (wire === wireLengthDelimited) this.bytes();
    else if (wire === wireFixed64) this.#take(8);
    else if (wire === wireFixed32) this.#take(4);
    else throw new RangeError(`protobuf: wire type ${wire} is not known`);
  }

  #take(length: number): Buffer {
    const end = this.#at + length;
    if (end > this.#buffer.length) throw new RangeError('protobuf: a field goes beyond the end');
    const bytes = this.#buffer.subarray(this.#at, end);
    this.#at = end;
    return bytes;
  }
}
