/**
 * Questions to the wire on behalf of an endpoint: whether somebody has its address already, and whether its gateway is there.
 *
 * In: a link in a namespace, addresses. Out: nothing, or what was heard. Never: a question about an address as if it were ours already.
 */
import { type Clock, pause } from '../lib/clock.ts';
import { NetctlError } from '../lib/errors.ts';
import type { Linux, Netns, Packets } from '../linux/ports.ts';
import { type Claim, etherTypes, probe, question, readClaim } from '../macvlan/frames.ts';
import { type Address, familyOf } from '../model/ip.ts';
import type { Mac } from '../model/mac.ts';
import type { DuplicateDetection } from '../model/macvlan.ts';

/** Pauses after each probe, in milliseconds. The long ones are RFC 5227's PROBE_MIN to PROBE_MAX and ANNOUNCE_WAIT. */
const probePauses: Readonly<Record<DuplicateDetection, readonly number[]>> = {
  off: [],
  fast: [100, 100],
  rfc5227: [1500, 1500, 2000],
};
/** One that answers does so at once; two seconds are for a lost frame, and a router that looks for us first. */
const gatewayPauses = [100, 400, 500, 1000];

export interface Asker {
  readonly linkIndex: number;
  readonly netns: Netns;
  readonly mac: Mac;
  readonly addresses: readonly Address[];
}

export class WireQuestions {
  readonly #linux: Linux;
  readonly #clock: Clock;

  constructor(linux: Linux, clock: Clock) {
    this.#linux = linux;
    this.#clock = clock;
  }

  /** @throws DUPLICATE_ADDRESS */
  async refuseDuplicates(asker: Asker, detection: DuplicateDetection): Promise<void> {
    const { promise: conflict, reject } = Promise.withResolvers<never>();
    conflict.catch(() => undefined);
    const hear = ({ address, mac }: Claim): void => {
      if (mac === asker.mac || !asker.addresses.includes(address)) return;
      reject(
        new NetctlError('DUPLICATE_ADDRESS', `address ${address} is in use by ${mac} on the wire`, {
          address,
          mac,
        }),
      );
    };
    await this.#listening(asker, hear, async (socketOf) => {
      for (const milliseconds of probePauses[detection]) {
        for (const address of asker.addresses) socketOf(address).send(probe(address, asker.mac));
        await Promise.race([conflict, pause(this.#clock, milliseconds)]);
      }
    });
  }

  /** Those of the gateways that did not answer. */
  async silentOf(asker: Asker, gateways: readonly Address[]): Promise<Address[]> {
    const silent = new Set(gateways);
    const { promise: answered, resolve } = Promise.withResolvers<void>();
    const hear = ({ address, mac, isProbe }: Claim): void => {
      if (mac !== asker.mac && !isProbe && silent.delete(address) && silent.size === 0) resolve();
    };
    await this.#listening(asker, hear, async (socketOf) => {
      for (const milliseconds of gatewayPauses) {
        for (const gateway of silent) {
          const source = asker.addresses.find((own) => familyOf(own) === familyOf(gateway));
          if (source !== undefined) socketOf(gateway).send(question(gateway, source, asker.mac));
        }
        await Promise.race([answered, pause(this.#clock, milliseconds)]);
        if (silent.size === 0) break;
      }
    });
    return [...silent];
  }

  async #listening(
    { linkIndex, netns, addresses }: Asker,
    hear: (claim: Claim) => void,
    ask: (socketOf: (address: Address) => Packets) => Promise<void>,
  ): Promise<void> {
    const onFrame = (frame: Buffer): void => {
      const claim = readClaim(frame);
      if (claim !== null) hear(claim);
    };
    const sockets = new Map(
      [...new Set(addresses.map(familyOf))].map((family) => [
        family,
        this.#linux.openPackets(linkIndex, etherTypes[family], onFrame, netns),
      ]),
    );
    try {
      await ask((address) => sockets.get(familyOf(address))!);
    } finally {
      for (const socket of sockets.values()) socket.close();
    }
  }
}
