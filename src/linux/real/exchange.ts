/**
 * Requests and answers on one netlink socket, synchronously: the kernel has answered when send returns.
 *
 * In: items and how to write each as messages. Out: the messages that failed, and what the kernel sent back. Never: an
 * answer taken for that of another request (numbers are matched), a wait.
 */
import { errnoName } from '../netlink/errno.ts';
import { type Message, MessageBatch, NLMSG_ERROR, readAnswer, readMessages } from '../netlink/message.ts';
import { KernelError } from '../ports.ts';
import { isSystemError, type NetlinkSocket, native, RECEIVE_BYTES } from './native.ts';

/** Below the default send buffer (208 KiB); what is longer goes in several sends. */
const BATCH_BYTES = 64 * 1024;
const LAST_SEQUENCE = 2 ** 31;

export interface Failure {
  /** Number of the item whose message failed. */
  readonly item: number;
  readonly errno: number;
  readonly text: string | null;
  readonly message: Message;
}

export class RequestSocket {
  readonly #socket: NetlinkSocket;
  #nextSequence = 1;

  constructor(netnsFd: number, protocol: number) {
    this.#socket = native.openNetlink(netnsFd, protocol, RECEIVE_BYTES);
  }

  /** @returns failures in the order of the items, and all messages that were not about success or failure */
  exchange<T>(
    items: readonly T[],
    write: (batch: MessageBatch, item: T) => void,
  ): { failures: Failure[]; replies: Message[] } {
    const failures: Failure[] = [];
    const replies: Message[] = [];
    for (let first = 0; first < items.length; ) {
      const batch = this.#newBatch();
      const { itemOf, next } = encode(batch, items, write, first, BATCH_BYTES);
      first = next;
      this.#nextSequence += batch.count;
      if (batch.count === 0) continue;
      this.#send(batch, itemOf, failures, replies);
    }
    return { failures, replies };
  }

  /**
   * The same, in one send on another thread while this one goes on: what it gives back is to be called once, before anything else is asked
   * here, and waits for the end.
   */
  begin<T>(
    items: readonly T[],
    write: (batch: MessageBatch, item: T) => void,
  ): () => { failures: Failure[]; replies: Message[] } {
    const batch = this.#newBatch();
    const { itemOf } = encode(batch, items, write);
    this.#nextSequence += batch.count;
    asKernelErrors('send to the kernel', () => native.beginSend(this.#socket, batch.finish()));
    return () => {
      const failures: Failure[] = [];
      const replies: Message[] = [];
      asKernelErrors('send to the kernel', () => native.finishSend(this.#socket));
      this.#readAnswers(batch, itemOf, failures, replies);
      return { failures, replies };
    };
  }

  /** A new descriptor of the namespace that the socket lives in: the caller closes it. */
  netnsFd(): number {
    return native.netnsOf(this.#socket);
  }

  close(): void {
    native.close(this.#socket);
  }

  #newBatch(): MessageBatch {
    if (this.#nextSequence > LAST_SEQUENCE) this.#nextSequence = 1;
    return new MessageBatch(this.#nextSequence);
  }

  #send(batch: MessageBatch, itemOf: readonly number[], failures: Failure[], replies: Message[]): void {
    asKernelErrors('send to the kernel', () => native.send(this.#socket, batch.finish()));
    this.#readAnswers(batch, itemOf, failures, replies);
  }

  #readAnswers(
    batch: MessageBatch,
    itemOf: readonly number[],
    failures: Failure[],
    replies: Message[],
  ): void {
    const last = batch.firstSequence + batch.count - 1;
    for (;;) {
      const bytes = asKernelErrors('receive from the kernel', () => native.receive(this.#socket));
      if (bytes === null) throw new KernelError('netlink', 'ENOBUFS', 'the kernel sent no answer');
      for (const message of readMessages(bytes)) {
        const item = itemOf[message.sequence - batch.firstSequence];
        if (item === undefined) continue; // left over from a batch whose reading an error ended
        if (message.type !== NLMSG_ERROR) {
          replies.push(message);
          continue;
        }
        const failure = failureIn(message, item);
        if (failure !== null) failures.push(failure);
        if (message.sequence === last) return;
      }
    }
  }
}

/** Writes items from the given one on until there are as many bytes: which item each message is of, and the first that is not written. */
export function encode<T>(
  batch: MessageBatch,
  items: readonly T[],
  write: (batch: MessageBatch, item: T) => void,
  first = 0,
  mostBytes = Number.POSITIVE_INFINITY,
): { itemOf: number[]; next: number } {
  const itemOf: number[] = [];
  let next = first;
  while (next < items.length && batch.lengthBytes < mostBytes) {
    write(batch, items[next]!);
    while (itemOf.length < batch.count) itemOf.push(next);
    next++;
  }
  return { itemOf, next };
}

/** What an answer says of a message of the item; null when that was carried out. */
export function failureIn(message: Message, item: number): Failure | null {
  const { errno, text } = readAnswer(message);
  return errno === 0 ? null : { item, errno, text, message };
}

/** Runs a call of the addon; what the system says no to becomes a KernelError. */
export function asKernelErrors<T>(what: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw isSystemError(error) ? new KernelError(what, error.code, null) : error;
  }
}

export function kernelError(
  what: string,
  failure: { errno: number; text: string | null },
  position = 0,
): KernelError {
  return new KernelError(what, errnoName(failure.errno), failure.text, position);
}
