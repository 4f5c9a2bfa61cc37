/**
 * Netlink messages: header, several of them in one send, and the answers (RFC 3549; linux/netlink.h).
 *
 * In: message types, flags and bodies; received bytes. Out: bytes to send; messages, and errors with the kernel's own words.
 * Never: more than the last message of a batch asking for an acknowledgement (errors come for each without asking).
 */
import { ByteWriter, readAttributes, readText } from './attribute.ts';

export const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
/** The kernel's tables changed while they were read: what was read may not fit together. */
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_DUMP = 0x300;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
/** In an answer: the request is not echoed, only its header. */
const NLM_F_CAPPED = 0x100;
/** In an answer: attributes follow, among them the text. */
const NLM_F_ACK_TLVS = 0x200;

export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
const NLMSGERR_ATTR_MSG = 1;
const HEADER_BYTES = 16;

export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  /** Of an answer or notification: the socket whose request it is about. */
  readonly port: number;
  readonly payload: Buffer;
}

/** Several messages in one buffer, so that one system call carries them all. They are numbered from `firstSequence`. */
export class MessageBatch {
  readonly firstSequence: number;
  readonly #writer = new ByteWriter();
  #last = -1;
  #count = 0;

  constructor(firstSequence: number) {
    this.firstSequence = firstSequence;
  }

  /** Messages so far. */
  get count(): number {
    return this.#count;
  }

  get lengthBytes(): number {
    return this.#writer.length;
  }

  add(type: number, flags: number, body: (writer: ByteWriter) => void): void {
    const writer = this.#writer;
    const start = writer.length;
    this.#last = start;
    writer.u32(0);
    writer.u16(type);
    writer.u16(flags | NLM_F_REQUEST);
    writer.u32(this.firstSequence + this.#count++);
    writer.u32(0);
    body(writer);
    writer.u32At(start, writer.length - start);
    writer.align();
  }

  /** The bytes, the last message asking for an acknowledgement. */
  finish(): Buffer {
    const bytes = this.#writer.bytes();
    if (this.#last >= 0) bytes.writeUInt16LE(bytes.readUInt16LE(this.#last + 6) | NLM_F_ACK, this.#last + 6);
    return bytes;
  }

  /** The bytes as they are: for requests that are answered by something else than an acknowledgement. */
  bytes(): Buffer {
    return this.#writer.bytes();
  }
}

/** One request that is answered by a list (NLM_F_DUMP). */
export function dumpRequest(type: number, body: (writer: ByteWriter) => void): Buffer {
  const batch = new MessageBatch(1);
  batch.add(type, NLM_F_DUMP, body);
  return batch.bytes();
}

/** All messages in what one receive returned. @throws Error when the bytes are not netlink messages */
export function readMessages(bytes: Buffer): Message[] {
  return [...eachMessage(bytes)];
}

/** Whether one of them is of a kind; the rest is not read then. @throws as readMessages */
export function hasMessage(bytes: Buffer, isOfKind: (message: Message) => boolean): boolean {
  for (const message of eachMessage(bytes)) if (isOfKind(message)) return true;
  return false;
}

function* eachMessage(bytes: Buffer): Generator<Message> {
  for (let at = 0; at < bytes.length; ) {
    const length = at + HEADER_BYTES <= bytes.length ? bytes.readUInt32LE(at) : 0;
    if (length < HEADER_BYTES || at + length > bytes.length) {
      throw new Error(`netlink: a message of ${length} bytes where ${bytes.length - at} are left`);
    }
    yield {
      type: bytes.readUInt16LE(at + 4),
      flags: bytes.readUInt16LE(at + 6),
      sequence: bytes.readUInt32LE(at + 8),
      port: bytes.readUInt32LE(at + 12),
      payload: bytes.subarray(at + HEADER_BYTES, at + length),
    };
    at += (length + 3) & ~3;
  }
}

export interface Answer {
  /** Positive errno; 0 is an acknowledgement. */
  readonly errno: number;
  /** The kernel's words (NETLINK_EXT_ACK), which many errors do not have. */
  readonly text: string | null;
}

/** Reads NLMSG_ERROR, and NLMSG_DONE, which carries the error that ended a dump. */
export function readAnswer(message: Message): Answer {
  const { payload } = message;
  // Minus nought would be another number to assert.deepEqual.
  const errno = payload.length >= 4 ? Math.abs(payload.readInt32LE(0)) : 0;
  return { errno, text: extendedText(message) };
}

function extendedText({ type, flags, payload }: Message): string | null {
  if ((flags & NLM_F_ACK_TLVS) === 0) return null;
  let start = 4;
  if (type === NLMSG_ERROR) {
    if (payload.length < 4 + HEADER_BYTES) return null;
    start += flags & NLM_F_CAPPED ? HEADER_BYTES : (payload.readUInt32LE(4) + 3) & ~3;
  }
  return readText(readAttributes(payload.subarray(start)).get(NLMSGERR_ATTR_MSG));
}
