/**
 * Deletes the connections of addresses, of many at once where many are asked for.
 *
 *     the namespace has none at all → nothing to do
 *     it has some                   → deletions by filter, two walks through the kernel's table for each address; a list of all for our own
 *                                     choice takes as long as four such walks
 *
 * In: addresses. Out: promises. Never: the JavaScript thread waiting while the kernel walks its table; the end of a netfilter socket, which
 * the kernel lets wait for the grace period of the last change of nftables, 10 to 20 ms in which the thread stands.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Address } from '../../model/ip.ts';
import { readCount, writeCountRequest, writeFilteredDeletes } from '../netlink/conntrack.ts';
import { type Message, MessageBatch, NLMSG_ERROR, readAnswer, readMessages } from '../netlink/message.ts';
import { KernelError } from '../ports.ts';
import { asKernelErrors, kernelError } from './exchange.ts';
import { NETLINK_NETFILTER, type NetlinkSocket, native, OWN_NETNS, RECEIVE_BYTES } from './native.ts';

const ENOENT = 2;
const EINVAL = 22;
const EOPNOTSUPP = 95;
const WHAT = 'flush connections';

interface Flush {
  readonly address: Address;
  readonly resolve: (filterWorks: boolean) => void;
  readonly reject: (error: unknown) => void;
}

export class AddressFlush {
  #socket: NetlinkSocket | null = null;
  #waiting: Flush[] = [];
  #isBusy = false;

  /** Resolves to false when there are connections and the kernel cannot delete by filter. @throws KernelError */
  flush(address: Address): Promise<boolean> {
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    this.#waiting.push({ address, resolve, reject });
    if (!this.#isBusy) void this.#work();
    return promise;
  }

  /** What is asked for while the kernel is at work goes next, all together. */
  async #work(): Promise<void> {
    this.#isBusy = true;
    // For all whose links the kernel has just told to be gone.
    await nextTurn();
    while (this.#waiting.length > 0) {
      const group = this.#waiting.splice(0);
      try {
        await this.#flushAll(group);
      } catch (error) {
        for (const { reject } of group) reject(error);
      }
    }
    this.#isBusy = false;
  }

  async #flushAll(group: readonly Flush[]): Promise<void> {
    const socket = this.#open();
    const count = countConnections(socket);
    if (count > 0) await deleteByFilter(socket, group);
    for (const { resolve } of group) resolve(true);
  }

  #open(): NetlinkSocket {
    this.#socket ??= asKernelErrors(WHAT, () =>
      native.openNetlink(OWN_NETNS, NETLINK_NETFILTER, RECEIVE_BYTES),
    );
    return this.#socket;
  }
}

/** The kernel reads a number. */
function countConnections(socket: NetlinkSocket): number {
  const batch = new MessageBatch(1);
  writeCountRequest(batch);
  asKernelErrors(WHAT, () => native.send(socket, batch.finish()));
  const counts = receiveAll(socket).map(readCount);
  // Where the kernel does not say, there may be many.
  return counts.find((count) => count !== null) ?? Number.POSITIVE_INFINITY;
}

async function deleteByFilter(socket: NetlinkSocket, group: readonly Flush[]): Promise<void> {
  const batch = new MessageBatch(1);
  const flushOf: Flush[] = [];
  for (const flush of group) {
    writeFilteredDeletes(batch, flush.address);
    while (flushOf.length < batch.count) flushOf.push(flush);
  }
  await native.sendInBackground(socket, batch.finish());
  for (const answer of answersTo(socket, batch.count)) {
    const { address, resolve, reject } = flushOf[answer.sequence - 1]!;
    const failure = readAnswer(answer);
    if (failure.errno === 0 || failure.errno === ENOENT) continue;
    // The first word counts; a promise takes no second one.
    if (failure.errno === EINVAL || failure.errno === EOPNOTSUPP) resolve(false);
    else reject(kernelError(`${WHAT} of ${address}`, failure));
  }
}

/** @param last number of the last message sent, which the kernel answers in any case */
function answersTo(socket: NetlinkSocket, last: number): Message[] {
  const answers = receiveAll(socket).filter(({ type }) => type === NLMSG_ERROR);
  if (!answers.some(({ sequence }) => sequence === last))
    throw new KernelError(WHAT, 'ENOBUFS', 'the kernel sent no answer');
  return answers;
}

function receiveAll(socket: NetlinkSocket): Message[] {
  const messages: Message[] = [];
  for (;;) {
    const bytes = asKernelErrors(WHAT, () => native.receive(socket));
    if (bytes === null) return messages;
    messages.push(...readMessages(bytes));
  }
}
