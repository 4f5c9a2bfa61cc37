/**
 * Notifications about links of the agent's namespace.
 *
 * In: RTM_NEWLINK and RTM_DELLINK of the multicast group. Out: LinkEvents. Never: silence about a notification that was lost,
 * an event loop kept alive just by listening.
 */
import { RTM_DELLINK, RTM_NEWLINK, RTNLGRP_LINK, readLink } from '../netlink/link.ts';
import { readMessages } from '../netlink/message.ts';
import type { LinkEvent } from '../ports.ts';
import { asKernelErrors } from './exchange.ts';
import { NETLINK_ROUTE, native, OWN_NETNS, RECEIVE_BYTES } from './native.ts';

/** @param receiveBytes how much the kernel keeps for us before it drops notifications */
export function watchLinks(onEvent: (event: LinkEvent) => void, receiveBytes = RECEIVE_BYTES): () => void {
  const socket = asKernelErrors('watch links', () => {
    const opened = native.openNetlink(OWN_NETNS, NETLINK_ROUTE, receiveBytes);
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

/**
 * A socket filter that lets only RTM_DELLINK through, so that nothing else wakes the process. The filter's half-words are in
 * network order, the message's type in the host's: hence the swapped constant.
 */
export function onlyDeletions(): Buffer {
  const program = Buffer.alloc(4 * 8);
  const instructions = [
    { code: 0x28, ifTrue: 0, ifFalse: 0, k: 4 }, // load the half-word at 4: nlmsg_type
    { code: 0x15, ifTrue: 0, ifFalse: 1, k: RTM_DELLINK << 8 }, // equal?
    { code: 0x06, ifTrue: 0, ifFalse: 0, k: 0xffffffff }, // take all of it
    { code: 0x06, ifTrue: 0, ifFalse: 0, k: 0 }, // drop
  ];
  for (const [i, { code, ifTrue, ifFalse, k }] of instructions.entries()) {
    program.writeUInt16LE(code, i * 8);
    program.writeUInt8(ifTrue, i * 8 + 2);
    program.writeUInt8(ifFalse, i * 8 + 3);
    program.writeUInt32LE(k, i * 8 + 4);
  }
  return program;
}
