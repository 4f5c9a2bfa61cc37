/**
 * The least that a change of nftables takes: its bytes, ready before, sent on an open socket, and the kernel's answer read.
 *
 * In: requests as the agent made them. Out: microseconds. Never: a change that the kernel refused.
 */
import { MessageBatch, NLMSG_ERROR, readAnswer, readMessages } from '../src/linux/netlink/message.ts';
import { splitNftRequests, writeTransaction } from '../src/linux/netlink/nftables.ts';
import type { NftRequest } from '../src/linux/nftables-port.ts';
import { NETLINK_NETFILTER, native, OWN_NETNS, RECEIVE_BYTES } from '../src/linux/real/native.ts';

export function openFloor() {
  const socket = native.openNetlink(OWN_NETNS, NETLINK_NETFILTER, RECEIVE_BYTES);
  return {
    send(requests: readonly NftRequest[]): number {
      const batch = new MessageBatch(1);
      writeTransaction(batch, splitNftRequests(requests));
      const bytes = batch.bytes();
      const start = performance.now();
      native.send(socket, bytes);
      const answer = native.receive(socket);
      const took = performance.now() - start;
      const [message] = answer === null ? [] : readMessages(answer);
      if (message?.type !== NLMSG_ERROR || readAnswer(message).errno !== 0)
        throw new Error('the kernel refused what it had taken before');
      return took * 1000;
    },
    close: () => native.close(socket),
  };
}
