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
import { native, RECEIVE_BYTES } from './native.ts';

const ATTEMPTS = 20;

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
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const { items, interrupted } = await dumpOnce(what, netnsFd, protocol, request, read);
    if (!interrupted) return items;
  }
  throw new KernelError(what, 'EINTR', `the list changed in each of ${ATTEMPTS} readings`);
}

function dumpOnce<T>(
  what: string,
  netnsFd: number,
  protocol: number,
  request: Buffer,
  read: (message: Message) => T | null,
): Promise<{ items: T[]; interrupted: boolean }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ items: T[]; interrupted: boolean }>();
  const socket = asKernelErrors(what, () => native.openNetlink(netnsFd, protocol, RECEIVE_BYTES));
  const items: T[] = [];
  let interrupted = false;

  const take = (message: Message): boolean => {
    if ((message.flags & NLM_F_DUMP_INTR) !== 0) interrupted = true;
    if (message.type !== NLMSG_DONE && message.type !== NLMSG_ERROR) {
      const item = read(message);
      if (item !== null) items.push(item);
      return false;
    }
    const answer = readAnswer(message);
    if (answer.errno === 0) resolve({ items, interrupted });
    else reject(kernelError(what, answer));
    return true;
  };

  native.onReadable(socket, (bytes, error) => {
    try {
      if (bytes === null) throw new KernelError(what, error?.code ?? 'EIO', null);
      if (readMessages(bytes).some(take)) native.close(socket);
    } catch (failure) {
      native.close(socket);
      reject(failure);
    }
  });
  try {
    asKernelErrors(what, () => native.send(socket, request));
  } catch (failure) {
    native.close(socket);
    reject(failure);
  }
  return promise;
}
