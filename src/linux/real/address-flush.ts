/**
 * Deletes the connections of addresses, of many at once where many are asked for.
 *
 *     the namespace has none at all → nothing to do
 *     few addresses                 → deletions by filter, two walks through the kernel's table for each
 *     more, or a kernel without it  → one list of all connections, of which those of the addresses are deleted one by one
 *
 * In: addresses. Out: promises. Never: the JavaScript thread waiting while the kernel walks its table; the end of a netfilter socket, which
 * the kernel lets wait for the grace period of the last change of nftables, 10 to 20 ms in which the thread stands.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Address } from '../../model/ip.ts';
import {
  type Connection,
  ConnectionPicker,
  connectionDump,
  isListCheaper,
  readCount,
  writeCountRequest,
  writeDelete,
  writeFilteredDeletes,
} from '../netlink/conntrack.ts';
import {
  type Message,
  MessageBatch,
  NLMSG_DONE,
  NLMSG_ERROR,
  readAnswer,
  readMessages,
} from '../netlink/message.ts';
import { KernelError } from '../ports.ts';
import { encode, kernelError } from './exchange.ts';
import {
  isSystemError,
  NETLINK_NETFILTER,
  type NetlinkSocket,
  native,
  OWN_NETNS,
  RECEIVE_BYTES,
} from './native.ts';

const ENOENT = 2;
const EINVAL = 22;
const EOPNOTSUPP = 95;
const WHAT = 'flush connections';
const BATCH_BYTES = 64 * 1024;

interface Flush {
  readonly addresses: readonly Address[];
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class AddressFlush {
  #knowsFilter: boolean;
  #socket: NetlinkSocket | null = null;
  #waiting: Flush[] = [];
  #isBusy = false;

  /** @param knowsFilter false: as on a kernel before 6.8, which cannot delete by filter */
  constructor(knowsFilter: boolean) {
    this.#knowsFilter = knowsFilter;
  }

  /** @throws KernelError */
  flush(addresses: readonly Address[]): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.push({ addresses, resolve, reject });
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
        await this.#flushAll(new Set(group.flatMap(({ addresses }) => addresses)));
        for (const { resolve } of group) resolve();
      } catch (error) {
        this.#forgetSocket();
        const failure = isSystemError(error) ? new KernelError(WHAT, error.code, null) : error;
        for (const { reject } of group) reject(failure);
      }
    }
    this.#isBusy = false;
  }

  async #flushAll(addresses: ReadonlySet<Address>): Promise<void> {
    if (addresses.size === 0) return;
    this.#socket ??= native.openNetlink(OWN_NETNS, NETLINK_NETFILTER, RECEIVE_BYTES);
    const connections = countConnections(this.#socket);
    if (connections === 0) return;
    if (this.#knowsFilter && !isListCheaper(addresses.size, connections)) {
      this.#knowsFilter = await deleteByFilter(this.#socket, addresses);
      if (this.#knowsFilter) return;
    }
    await deleteEach(this.#socket, await list(this.#socket, new ConnectionPicker(addresses)));
  }

  /** Half of a list may wait in it, or half an answer. */
  #forgetSocket(): void {
    if (this.#socket !== null) native.closeInBackground(this.#socket);
    this.#socket = null;
  }
}

/** The kernel reads a number. */
function countConnections(socket: NetlinkSocket): number {
  const batch = new MessageBatch(1);
  writeCountRequest(batch);
  native.send(socket, batch.finish());
  const counts = receiveAll(socket).map(readCount);
  // Where the kernel does not say, there may be many.
  return counts.find((count) => count !== null) ?? Number.MAX_SAFE_INTEGER;
}

/** False where the kernel does not know such a filter. */
async function deleteByFilter(socket: NetlinkSocket, addresses: Iterable<Address>): Promise<boolean> {
  const batch = new MessageBatch(1);
  for (const address of addresses) writeFilteredDeletes(batch, address);
  const refusals = await refusalsOf(socket, batch);
  if (refusals.some(({ errno }) => errno === EINVAL || errno === EOPNOTSUPP)) return false;
  for (const refusal of refusals) throw kernelError(WHAT, refusal);
  return true;
}

/** One piece of the list after the other, and others in between. */
async function list(socket: NetlinkSocket, picker: ConnectionPicker): Promise<Connection[]> {
  await native.sendInBackground(socket, connectionDump(null));
  const picked: Connection[] = [];
  for (;;) {
    const bytes = await native.receiveInBackground(socket);
    if (bytes === null) throw new KernelError(WHAT, 'ENOBUFS', 'the kernel ended no list');
    for (const message of readMessages(bytes)) {
      if (message.type === NLMSG_DONE || message.type === NLMSG_ERROR) {
        const answer = readAnswer(message);
        if (answer.errno !== 0) throw kernelError(WHAT, answer);
        return picked;
      }
      const connection = picker.pick(message);
      if (connection !== null) picked.push(connection);
    }
  }
}

async function deleteEach(socket: NetlinkSocket, connections: readonly Connection[]): Promise<void> {
  for (let first = 0; first < connections.length; ) {
    const batch = new MessageBatch(1);
    first = encode(batch, connections, writeDelete, first, BATCH_BYTES).next;
    for (const refusal of await refusalsOf(socket, batch)) throw kernelError(WHAT, refusal);
  }
}

/** What the kernel says no to, but for what has ended by itself. */
async function refusalsOf(
  socket: NetlinkSocket,
  batch: MessageBatch,
): Promise<ReturnType<typeof readAnswer>[]> {
  await native.sendInBackground(socket, batch.finish());
  const answers = receiveAll(socket).filter(({ type }) => type === NLMSG_ERROR);
  // The last message is answered in any case.
  if (!answers.some(({ sequence }) => sequence === batch.count))
    throw new KernelError(WHAT, 'ENOBUFS', 'the kernel sent no answer');
  return answers.map(readAnswer).filter(({ errno }) => errno !== 0 && errno !== ENOENT);
}

function receiveAll(socket: NetlinkSocket): Message[] {
  const messages: Message[] = [];
  for (;;) {
    const bytes = native.receive(socket);
    if (bytes === null) return messages;
    messages.push(...readMessages(bytes));
  }
}
