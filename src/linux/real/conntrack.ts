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
import { NETLINK_NETFILTER, native, OWN_NETNS, RECEIVE_BYTES } from './native.ts';

const ENOENT = 2;
const EINVAL = 22;
const EOPNOTSUPP = 95;

/** @param useFilter false: as on a kernel before 6.8, which cannot delete by filter */
export function createConntrack({ useFilter }: { useFilter: boolean } = { useFilter: true }): Conntrack {
  let filterWorks = useFilter;
  return {
    async flushAddress(address) {
      if (filterWorks) filterWorks = await deleteByFilter(address);
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

/** False when the kernel has no such filter. */
async function deleteByFilter(address: Address): Promise<boolean> {
  const what = `flush connections of ${address}`;
  const socket = asKernelErrors(what, () => native.openNetlink(OWN_NETNS, NETLINK_NETFILTER, RECEIVE_BYTES));
  try {
    const batch = new MessageBatch(1);
    writeFilteredDeletes(batch, address);
    await native.sendInBackground(socket, batch.finish());
    const answers = receiveAll(() => native.receive(socket)).filter(
      (message) => message.type === NLMSG_ERROR,
    );
    if (answers.length === 0) throw new KernelError(what, 'ENOBUFS', 'the kernel sent no answer');
    const failure = answers.map(readAnswer).find(({ errno }) => errno !== 0 && errno !== ENOENT);
    if (failure === undefined) return true;
    if (failure.errno === EINVAL || failure.errno === EOPNOTSUPP) return false;
    throw kernelError(what, failure);
  } finally {
    // The endpoint's rules may have gone a moment ago.
    native.closeInBackground(socket);
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
