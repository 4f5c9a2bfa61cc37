/**
 * Lists from the kernel, received by the event loop in pieces, so that a long one does not stop everything else.
 *
 * In: a dump request, how to read one message. Out: all items. Never: a list that changed while it was read (it is asked for
 * again), a socket left open.
 */
import {
  type Message,
  NLM_F_DUMP_INTR,
  NLMSG_DONE,
  NLMSG_ERROR,
  readAnswer,
  readMessages,
} from '../netlink/message.ts';
import { KernelError } from '../ports.ts';
import { asKernelErrors, kernelError } from './exchange.ts';
import { NETLINK_NETFILTER, type NetlinkSocket, native, RECEIVE_BYTES } from './native.ts';

const ATTEMPTS = 20;

interface Answers<T> {
  readonly items: T[];
  readonly interrupted: boolean;
}

/**
 * @param read null for messages that are of no interest
 * @throws KernelError; EINTR when the kernel's table never stood still
 */
export async function dump<T>(
  what: string,
  netnsFd: number,
  protocol: number,
  request: Buffer,
  read: (message: Message) => T | null,
): Promise<T[]> {
  const [items] = await dumpEach(what, netnsFd, protocol, [request], read);
  return items!;
}

/** One list for each request, one after the other by the same socket. */
export async function dumpEach<T>(
  what: string,
  netnsFd: number,
  protocol: number,
  requests: readonly Buffer[],
  read: (message: Message) => T | null,
): Promise<T[][]> {
  const socket = new DumpSocket(what, netnsFd, protocol, read);
  try {
    const lists: T[][] = [];
    for (const request of requests) lists.push(await untilWhole(what, () => socket.ask(request)));
    return lists;
  } finally {
    socket.close();
  }
}

async function untilWhole<T>(what: string, ask: () => Promise<Answers<T>>): Promise<T[]> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const { items, interrupted } = await ask();
    if (!interrupted) return items;
  }
  throw new KernelError(what, 'EINTR', `the list changed in each of ${ATTEMPTS} readings`);
}

/** One request at a time; the kernel takes no second one before the first is answered. */
class DumpSocket<T> {
  readonly #what: string;
  readonly #socket: NetlinkSocket;
  readonly #isSlowToClose: boolean;
  readonly #read: (message: Message) => T | null;
  #answer: PromiseWithResolvers<Answers<T>> | null = null;
  #items: T[] = [];
  #interrupted = false;

  constructor(what: string, netnsFd: number, protocol: number, read: (message: Message) => T | null) {
    this.#what = what;
    this.#read = read;
    this.#isSlowToClose = protocol === NETLINK_NETFILTER;
    this.#socket = asKernelErrors(what, () => native.openNetlink(netnsFd, protocol, RECEIVE_BYTES));
    native.onReadable(this.#socket, (bytes, error) => {
      try {
        if (bytes === null) throw new KernelError(what, error?.code ?? 'EIO', null);
        for (const message of readMessages(bytes)) this.#take(message);
      } catch (failure) {
        this.#answer?.reject(failure);
      }
    });
  }

  ask(request: Buffer): Promise<Answers<T>> {
    const answer = Promise.withResolvers<Answers<T>>();
    this.#answer = answer;
    this.#items = [];
    this.#interrupted = false;
    asKernelErrors(this.#what, () => native.send(this.#socket, request));
    return answer.promise;
  }

  close(): void {
    if (this.#isSlowToClose) native.closeInBackground(this.#socket);
    else native.close(this.#socket);
  }

  #take(message: Message): void {
    if ((message.flags & NLM_F_DUMP_INTR) !== 0) this.#interrupted = true;
    if (message.type !== NLMSG_DONE && message.type !== NLMSG_ERROR) {
      const item = this.#read(message);
      if (item !== null) this.#items.push(item);
      return;
    }
    const answer = readAnswer(message);
    if (answer.errno === 0) this.#answer?.resolve({ items: this.#items, interrupted: this.#interrupted });
    else this.#answer?.reject(kernelError(this.#what, answer));
  }
}
