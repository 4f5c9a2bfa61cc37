/**
 * The port Conntrack over nfnetlink, in the agent's namespace or another one.
 *
 * In: an address. Out: no tracked connection has it any more. Never: the JavaScript thread waiting while the kernel walks its
 * table, another address's connections.
 */
import { type Address, type Family, familyOf } from '../../model/ip.ts';
import {
  type Connection,
  connectionDump,
  connectionOnWire,
  hasAddress,
  readConnection,
  trackedConnection,
  writeDelete,
  writeFilteredDeletes,
} from '../netlink/conntrack.ts';
import { type Message, MessageBatch, NLMSG_ERROR, readAnswer, readMessages } from '../netlink/message.ts';
import { type Conntrack, KernelError } from '../ports.ts';
import { dump } from './dump.ts';
import { asKernelErrors, kernelError, RequestSocket } from './exchange.ts';
import { NETLINK_NETFILTER, type NetlinkSocket, native, OWN_NETNS, RECEIVE_BYTES } from './native.ts';

const ENOENT = 2;
const EINVAL = 22;
const EOPNOTSUPP = 95;

/** @param useFilter false: as on a kernel before 6.8, which cannot delete by filter */
export function createConntrack({ useFilter }: { useFilter: boolean } = { useFilter: true }): Conntrack {
  let filterWorks = useFilter;
  const filtered = new FilteredFlush();
  return {
    async flushAddress(address) {
      if (filterWorks) filterWorks = await filtered.flush(address);
      if (!filterWorks)
        await deleteChosen(`flush connections of ${address}`, familyOf(address), (connection) =>
          hasAddress(connection, address),
        );
    },
    flushWhere: (family, isToGo) =>
      deleteChosen('flush connections', family, (connection) => {
        const tracked = trackedConnection(connection);
        return tracked !== null && isToGo(tracked);
      }),
  };
}

/** Of the namespace with the descriptor, which stays open. */
export function conntrackIn(netnsFd: number): Pick<Conntrack, 'flushWhere'> {
  return {
    flushWhere: (family, isToGo) => {
      const isChosen = (connection: Connection): boolean => {
        const seen = connectionOnWire(connection);
        return seen !== null && isToGo(seen);
      };
      return deleteChosen('flush connections in a container', family, isChosen, netnsFd);
    },
  };
}

interface Flush {
  readonly address: Address;
  readonly resolve: (filterWorks: boolean) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * One socket for all, never closed: the kernel lets the end of a netfilter socket wait for the grace period of the last change of
 * nftables, 10 to 20 ms in which the thread stands. What is asked for while the kernel is at work goes next, all together.
 */
class FilteredFlush {
  #socket: NetlinkSocket | null = null;
  #waiting: Flush[] = [];
  #isBusy = false;

  /** Resolves to false when the kernel has no such filter. */
  flush(address: Address): Promise<boolean> {
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    this.#waiting.push({ address, resolve, reject });
    if (!this.#isBusy) void this.#work();
    return promise;
  }

  async #work(): Promise<void> {
    this.#isBusy = true;
    while (this.#waiting.length > 0) {
      const group = this.#waiting.splice(0);
      try {
        await this.#send(group);
      } catch (error) {
        for (const { reject } of group) reject(error);
      }
    }
    this.#isBusy = false;
  }

  async #send(group: readonly Flush[]): Promise<void> {
    const what = 'flush connections';
    this.#socket ??= asKernelErrors(what, () =>
      native.openNetlink(OWN_NETNS, NETLINK_NETFILTER, RECEIVE_BYTES),
    );
    const socket = this.#socket;
    const batch = new MessageBatch(1);
    const flushOf: Flush[] = [];
    for (const flush of group) {
      writeFilteredDeletes(batch, flush.address);
      while (flushOf.length < batch.count) flushOf.push(flush);
    }
    await native.sendInBackground(socket, batch.finish());
    const answers = receiveAll(() => native.receive(socket)).filter(({ type }) => type === NLMSG_ERROR);
    if (!answers.some(({ sequence }) => sequence === batch.count))
      throw new KernelError(what, 'ENOBUFS', 'the kernel sent no answer');
    for (const answer of answers) {
      const { address, resolve, reject } = flushOf[answer.sequence - 1]!;
      const failure = readAnswer(answer);
      if (failure.errno === 0 || failure.errno === ENOENT) continue;
      // The first word counts; a promise takes no second one.
      if (failure.errno === EINVAL || failure.errno === EOPNOTSUPP) resolve(false);
      else reject(kernelError(`flush connections of ${address}`, failure));
    }
    for (const { resolve } of group) resolve(true);
  }
}

/** Returns how many were deleted. */
async function deleteChosen(
  what: string,
  family: Family,
  isToGo: (connection: Connection) => boolean,
  netnsFd = OWN_NETNS,
): Promise<number> {
  const connections = await dump(what, netnsFd, NETLINK_NETFILTER, connectionDump(family), (message) => {
    const connection = readConnection(message);
    return connection !== null && isToGo(connection) ? connection : null;
  });
  const socket = asKernelErrors(what, () => new RequestSocket(netnsFd, NETLINK_NETFILTER));
  try {
    const { failures } = socket.exchange(connections, writeDelete);
    const failure = failures.find(({ errno }) => errno !== ENOENT); // ended by itself meanwhile
    if (failure !== undefined) throw kernelError(what, failure);
    return connections.length;
  } finally {
    socket.close();
  }
}

function receiveAll(receive: () => Buffer | null): Message[] {
  const messages: Message[] = [];
  for (let bytes = receive(); bytes !== null; bytes = receive()) messages.push(...readMessages(bytes));
  return messages;
}
