/**
 * Rules of nftables that others change: what iptables-nft, Docker, firewalld and operators do.
 *
 * In: the notifications of the kernel; the numbers of the processes that we start ourselves. Out: that something changed. Never: our
 * own programs' changes told as those of others: a program's netlink socket has the number of its process.
 */
import { hasMessage } from '../netlink/message.ts';
import { NFTABLES_GROUP, readNotifiedTable } from '../netlink/nft-list.ts';
import { asKernelErrors } from './exchange.ts';
import { NETLINK_NETFILTER, native, OWN_NETNS, RECEIVE_BYTES } from './native.ts';

/** Notifications come at once; the numbers of this many processes are more than can be on their way. */
const REMEMBERED = 256;

export class ForeignRules {
  readonly #ours = new Set<number>();

  /** A process of ours that changes rules has started. */
  ours(pid: number): void {
    this.#ours.add(pid);
    const [oldest] = this.#ours;
    if (this.#ours.size > REMEMBERED) this.#ours.delete(oldest!);
  }

  /** @param ownTable how the names of all tables of ours begin */
  watch(ownTable: string, onChange: () => void): () => void {
    const what = 'watch the rules of others';
    const socket = asKernelErrors(what, () =>
      native.openNetlink(OWN_NETNS, NETLINK_NETFILTER, RECEIVE_BYTES),
    );
    asKernelErrors(what, () => native.joinGroup(socket, NFTABLES_GROUP));
    native.onReadable(socket, (bytes, error) => {
      const isForeign =
        bytes === null
          ? error?.code === 'ENOBUFS'
          : hasMessage(bytes, (message) => {
              const table = readNotifiedTable(message);
              return table !== null && !table.startsWith(ownTable) && !this.#ours.has(message.port);
            });
      if (isForeign) onChange();
    });
    native.unref(socket);
    return () => native.close(socket);
  }
}
