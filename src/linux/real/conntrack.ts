/**
 * The port Conntrack over nfnetlink, in the agent's namespace or another one.
 *
 * In: addresses. Out: they have an end of no tracked connection any more. Never: the JavaScript thread waiting while the kernel walks its
 * table, another address's connections.
 */
import type { Family } from '../../model/ip.ts';
import {
  type Connection,
  connectionDump,
  connectionOnWire,
  readConnection,
  trackedConnection,
  writeDelete,
} from '../netlink/conntrack.ts';
import type { Conntrack } from '../ports.ts';
import { AddressFlush } from './address-flush.ts';
import { dump } from './dump.ts';
import { asKernelErrors, kernelError, RequestSocket } from './exchange.ts';
import { NETLINK_NETFILTER, OWN_NETNS } from './native.ts';

const ENOENT = 2;

/** @param useFilter false: as on a kernel before 6.8, which cannot delete by filter */
export function createConntrack({ useFilter }: { useFilter: boolean } = { useFilter: true }): Conntrack {
  const flush = new AddressFlush(useFilter);
  return {
    flushAddresses: (addresses) => flush.flush([...addresses]),
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
