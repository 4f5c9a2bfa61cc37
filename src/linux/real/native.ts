/**
 * The addon (native/addon/) with types: netlink sockets, sysctls of a namespace, peer credentials, datagrams.
 *
 * In: descriptors, bytes. Out: bytes; errors with `code`, `errno`, `syscall`. Never: knowledge of what the bytes mean.
 */
import { createRequire } from 'node:module';

/** Set by the bundler, where the addon lies beside the bundle. */
declare const NATIVE_ADDON_URL: string | undefined;

export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;
/** The calling thread's own namespace, where a function takes a namespace's descriptor. */
export const OWN_NETNS = -1;

/** An open netlink socket; only the functions below know what is in it. */
export type NetlinkSocket = { readonly __netlinkSocket: unique symbol };

/** What the kernel or libuv said no to. */
export interface SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
}

export interface Native {
  openNetlink(netnsFd: number, protocol: number, receiveBytes: number): NetlinkSocket;
  /** Frames of one protocol (a number of linux/if_ether.h) on one link; `send`, `receive`, `onReadable` and `close` work on it. */
  openPacket(netnsFd: number, linkIndex: number, protocol: number): NetlinkSocket;
  close(socket: NetlinkSocket): void;
  /**
   * The same off the JavaScript thread, for what the kernel takes 10 to 20 ms to close: packet sockets; and those of netfilter, 50 ms
   * later, since until the kernel has cleared away what a transaction has deleted in the namespace, nobody else changes rules there
   * while one is being closed.
   */
  closeInBackground(socket: NetlinkSocket): void;
  joinGroup(socket: NetlinkSocket, group: number): void;
  leaveGroup(socket: NetlinkSocket, group: number): void;
  /** From now on it hears its groups in other namespaces, too, that its own has an id for; it keeps none of them alive. */
  listenEverywhere(socket: NetlinkSocket): void;
  /** @param program classic BPF: instructions of 8 bytes */
  attachFilter(socket: NetlinkSocket, program: Uint8Array): void;
  /** A new descriptor of the socket's namespace: the caller closes it. */
  netnsOf(socket: NetlinkSocket): number;
  send(socket: NetlinkSocket, message: Uint8Array): void;
  /** Like send, on another thread: for requests that the kernel takes long over. */
  sendInBackground(socket: NetlinkSocket, message: Uint8Array): Promise<void>;
  /** On a thread that stands by: one at a time (EBUSY), up to 4096 bytes; `finishSend` waits for the end. */
  beginSend(socket: NetlinkSocket, message: Uint8Array): void;
  finishSend(socket: NetlinkSocket): void;
  /**
   * Requests of rtnetlink on another thread, each part in its namespace (OWN_NETNS or a descriptor that stays open until then); what follows
   * a refused part of its chain is not sent. @param parts three 32-bit integers for each: chain, counted from 0, namespace, length
   * @returns two for each, errno (-1: not sent) and length of the answers, before the answers
   */
  runChains(parts: Uint8Array, bytes: Uint8Array): Promise<Buffer>;
  /** What waits, or null. @throws SystemError ENOBUFS once after an overflow; the socket stays usable */
  receive(socket: NetlinkSocket): Buffer | null;
  /** Like receive, on another thread, some 256 KiB at once: for lists, which the kernel makes while they are received. */
  receiveInBackground(socket: NetlinkSocket): Promise<Buffer | null>;
  /**
   * From now on the event loop receives: (bytes, null), or (null, error), ENOBUFS being an overflow. `netnsId`: of the namespace that it is
   * about, OWN_NETNS for the socket's own.
   */
  onReadable(
    socket: NetlinkSocket,
    callback: (bytes: Buffer | null, error: SystemError | null, netnsId: number) => void,
  ): void;
  ref(socket: NetlinkSocket): void;
  unref(socket: NetlinkSocket): void;
  /** @param path absolute, below /proc/sys/ */
  readSysctl(netnsFd: number, path: string): Buffer;
  writeSysctl(netnsFd: number, path: string, value: Uint8Array): void;
  isNetworkNamespace(fd: number): boolean;
  peerCredentials(fd: number): { pid: number; uid: number; gid: number };
  /** @param packet of IPv4 or IPv6, whole: out it goes from the namespace as it is */
  sendPacket(netnsFd: number, packet: Uint8Array): void;
  /** @param path of a unix datagram socket; `@name` is an abstract one */
  sendDatagram(path: string, datagram: Uint8Array): void;
}

const path = typeof NATIVE_ADDON_URL === 'string' ? NATIVE_ADDON_URL : '../../../dist/lib/netctl.node';

export const native: Native = createRequire(import.meta.url)(path);

/** Room for the answers to some ten thousand requests, or as many notifications. */
export const RECEIVE_BYTES = 8 * 1024 * 1024;

export function isSystemError(thrown: unknown): thrown is SystemError {
  return thrown instanceof Error && 'syscall' in thrown && 'errno' in thrown;
}
