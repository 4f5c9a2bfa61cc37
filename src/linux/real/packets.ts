/**
 * The port's packet sockets.
 *
 * In: a link, a protocol, frames. Out: frames as they arrive. Never: the process kept alive by a socket that only listens.
 */
import type { Netns, Packets } from '../ports.ts';
import { asKernelErrors } from './exchange.ts';
import { native, OWN_NETNS } from './native.ts';

export function openPackets(
  linkIndex: number,
  protocol: number,
  onFrame: ((frame: Buffer) => void) | null,
  netns?: Netns,
): Packets {
  const socket = asKernelErrors('open a packet socket', () =>
    native.openPacket(netns?.fd ?? OWN_NETNS, linkIndex, protocol),
  );
  // An error is that of the link (it went down): who listens is told of links elsewhere, and goes on when it is up again.
  if (onFrame !== null) {
    native.onReadable(socket, (bytes) => {
      if (bytes !== null) onFrame(bytes);
    });
    native.unref(socket);
  }
  return {
    send: (frame) => asKernelErrors('send a frame', () => native.send(socket, frame)),
    close: () => native.closeInBackground(socket),
  };
}
