/**
 * Tells a wire who has an address now.
 *
 * In: an endpoint, its link. Out: gratuitous ARP and unsolicited neighbour advertisements. Never: a wait for them; a descriptor kept once
 * the last is out.
 */
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Linux, Netns } from '../linux/ports.ts';
import { announcement, etherTypes } from '../macvlan/frames.ts';
import { familyOf } from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';

/** Milliseconds after the first announcement: a frame may be lost, a neighbour busy. */
const repeatedAnnouncements = [1000, 2000];

export interface AnnounceParts {
  readonly linux: Linux;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Says that the endpoint's addresses are at its MAC: now, and twice more within two seconds. */
export function announceOnWire(
  { linux, clock, logger }: AnnounceParts,
  endpoint: Endpoint,
  linkIndex: number,
  netns: Netns,
): void {
  for (const family of [4, 6] as const) {
    const frames = endpoint.addresses
      .filter((address) => familyOf(address) === family)
      .flatMap((address) => announcement(address, endpoint.mac));
    if (frames.length === 0) continue;
    const packets = linux.openPackets(linkIndex, etherTypes[family], null, netns);
    const send = (): void => {
      try {
        for (const frame of frames) packets.send(frame);
      } catch (error) {
        const { containerId } = endpoint;
        logger.debug({ containerId, error: String(error) }, 'an announcement was not sent');
      }
    };
    send();
    repeatedAnnouncements.forEach((delay, at) => {
      clock.setTimer(delay, () => {
        send();
        if (at === repeatedAnnouncements.length - 1) packets.close();
      });
    });
  }
}
