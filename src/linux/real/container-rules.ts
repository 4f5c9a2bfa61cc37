/**
 * Rules of nftables that somebody changes in other namespaces, told by the kernel without a socket there, which would keep them alive.
 *
 * One socket of the agent's own namespace hears every namespace that has an id in it. Of each transaction it hears one message, that there is a
 * new generation, with the number of the process; the rest is filtered out in the kernel.
 *
 * In: namespaces. Out: in which of them somebody else has changed something. Never: the agent's own transactions told; a socket number
 * believed, which a process in a container may choose.
 */
import { readAttributes } from '../netlink/attribute.ts';
import { readMessages } from '../netlink/message.ts';
import { readNetnsId, writeGetNetnsId, writeNewNetnsId } from '../netlink/netns-id.ts';
import { NFTABLES_GROUP } from '../netlink/nft-list.ts';
import { MESSAGES, messageType } from '../netlink/nftables.ts';
import { KernelError, type Netns, type RuleWatch } from '../ports.ts';
import { asKernelErrors, kernelError, RequestSocket } from './exchange.ts';
import { onlyMessages } from './message-filter.ts';
import {
  NETLINK_NETFILTER,
  NETLINK_ROUTE,
  type NetlinkSocket,
  native,
  OWN_NETNS,
  RECEIVE_BYTES,
} from './native.ts';

const EEXIST = 17;
const GENERATION_PROCESS = 2;
const GENERATION = messageType(MESSAGES.generation);
/** Behind the headers and the number of the generation. */
const PROCESS_AT = 28;

export class ContainerRules {
  /** As the kernel numbers us in these messages: in a namespace of processes, not our own number. */
  #ownProcess = process.pid;
  #ownPort = 0;

  /** Number of the socket that changes rules of the agent's own namespace: what it is said to have done, we did. */
  ours(port: number): void {
    this.#ownPort = port;
  }

  /** @param onChange hears the namespace's inode; null when notifications were lost */
  watch(onChange: (inode: number | null) => void): RuleWatch {
    const what = 'watch rules in containers';
    const inodes = new Map<number, number>();
    const listener = asKernelErrors(what, () => {
      const socket = native.openNetlink(OWN_NETNS, NETLINK_NETFILTER, RECEIVE_BYTES);
      native.attachFilter(socket, onlyMessages(GENERATION));
      native.listenEverywhere(socket);
      native.joinGroup(socket, NFTABLES_GROUP);
      return socket;
    });
    const asker = asKernelErrors(what, () => new RequestSocket(OWN_NETNS, NETLINK_ROUTE));
    this.#listen(listener, (netnsId) => {
      const inode = netnsId === null ? null : inodes.get(netnsId);
      if (inode !== undefined) onChange(inode);
    });
    return {
      add: ({ fd, identity }) => void inodes.set(idOf(asker, fd), identity.inode),
      close() {
        native.close(listener);
        asker.close();
      },
    };
  }

  /** From now on the kernel keeps back what we do. */
  #learn(process: number, socket: NetlinkSocket): void {
    this.#ownProcess = process;
    const ours = { at: PROCESS_AT, attribute: GENERATION_PROCESS, value: process };
    native.attachFilter(socket, onlyMessages(GENERATION, ours));
  }

  /** @param hear null: some were lost */
  #listen(socket: NetlinkSocket, hear: (netnsId: number | null) => void): void {
    native.onReadable(socket, (bytes, error, netnsId) => {
      if (bytes === null) {
        if (error?.code === 'ENOBUFS') hear(null);
        return;
      }
      for (const { payload, port } of readMessages(bytes)) {
        const by = readAttributes(payload.subarray(4)).get(GENERATION_PROCESS)?.readUInt32BE(0);
        if (netnsId === OWN_NETNS) {
          if (port === this.#ownPort && by !== undefined) this.#learn(by, socket);
        } else if (by !== this.#ownProcess) hear(netnsId);
      }
    });
    native.unref(socket);
  }
}

/** By which the agent's namespace knows this one. */
function idOf(asker: RequestSocket, netnsFd: Netns['fd']): number {
  for (let attempt = 1; ; attempt++) {
    const { failures, replies } = asker.exchange([netnsFd], writeGetNetnsId);
    if (failures[0] !== undefined) throw kernelError('ask for the id of a namespace', failures[0]);
    const id = replies.map(readNetnsId).find((each) => each !== null);
    if (id !== undefined && id !== null) return id;
    if (attempt === 2) throw new KernelError('ask for the id of a namespace', 'ENOENT', 'it has none');
    const made = asker.exchange([netnsFd], writeNewNetnsId);
    const failure = made.failures.find(({ errno }) => errno !== EEXIST);
    if (failure !== undefined) throw kernelError('give a namespace an id', failure);
  }
}
