/**
 * Notifications about links of the agent's namespace.
 *
 * In: RTM_NEWLINK and RTM_DELLINK of the multicast group. Out: LinkEvents. Never: silence about a notification that was lost,
 * an event loop kept alive just by listening, or woken by changes that nobody asks for.
 */
import { RTM_DELLINK, RTM_NEWLINK, RTNLGRP_LINK, readLink } from '../netlink/link.ts';
import { readMessages } from '../netlink/message.ts';
import type { LinkEvent } from '../ports.ts';
import { asKernelErrors } from './exchange.ts';
import { exceptLinks } from './message-filter.ts';
import { NETLINK_ROUTE, native, OWN_NETNS, RECEIVE_BYTES } from './native.ts';

/**
 * @param quietFrom as in ports.ts: a multiple of 2^24
 * @param receiveBytes how much the kernel keeps for us before it drops notifications
 */
export function watchLinks(
  onEvent: (event: LinkEvent) => void,
  quietFrom?: number,
  receiveBytes = RECEIVE_BYTES,
): () => void {
  const socket = asKernelErrors('watch links', () => {
    const opened = native.openNetlink(OWN_NETNS, NETLINK_ROUTE, receiveBytes);
    if (quietFrom !== undefined) native.attachFilter(opened, exceptLinks(RTM_NEWLINK, quietFrom));
    native.joinGroup(opened, RTNLGRP_LINK);
    return opened;
  });
  native.onReadable(socket, (bytes) => {
    if (bytes === null) return onEvent({ kind: 'lost' });
    for (const message of readMessages(bytes)) {
      const link = message.type === RTM_NEWLINK || message.type === RTM_DELLINK ? readLink(message) : null;
      if (link === null) continue;
      if (message.type === RTM_NEWLINK) onEvent({ kind: 'changed', link });
      else onEvent({ kind: 'gone', index: link.index, name: link.name });
    }
  });
  native.unref(socket);
  return () => native.close(socket);
}
