/**
 * Watches the wires that macvlan endpoints sit on: hears when somebody else claims one of their addresses, and tells the wire again
 * where they are when it comes back.
 *
 * In: this host's macvlan endpoints, events of links. Out: announcements, reports of conflicts. Never: a conflict reported of an
 * address that has just moved away (the claim must outlast what we knew), more than one defence of an address in ten seconds
 * (RFC 5227, 2.4).
 */
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { LinkEvent, LinkInfo, Linux, Packets, Routing } from '../linux/ports.ts';
import { allTypes, readClaim } from '../macvlan/frames.ts';
import type { Address } from '../model/ip.ts';
import type { Mac } from '../model/mac.ts';
import type { Endpoint } from '../model/records.ts';
import { parentName } from './macvlan-parents.ts';
import { type MacvlanWiring, macvlanOf } from './macvlan-wiring.ts';
import { reopen } from './reopen.ts';

export interface WireWatchParts {
  readonly linux: Linux;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly wiring: MacvlanWiring;
  /** Those of this host, of any kind. */
  endpoints(): Iterable<Endpoint>;
  /** This host's macvlan endpoint that has the address, by its record too. */
  holderOf(address: Address): Endpoint | null;
  /** Somebody else claims an address that is ours. */
  report(address: Address, mac: Mac): Promise<unknown>;
}

interface Wire {
  readonly index: number;
  readonly socket: Packets;
  running: boolean;
}

/** A move of the address reaches us by then. */
const doubtMilliseconds = 1000;
const defenceMilliseconds = 10_000;

export class WireWatch {
  readonly #parts: WireWatchParts;
  readonly #host: Routing;
  readonly #wires = new Map<string, Wire>();
  /** Addresses whose claim is being looked at, or was a moment ago. */
  readonly #claimed = new Set<Address>();
  #closed = false;

  constructor(parts: WireWatchParts) {
    this.#parts = parts;
    this.#host = parts.linux.openRouting();
  }

  /** Listens on the wires that there are endpoints on, and on no others. */
  refresh(): void {
    if (this.#closed) return;
    const names = this.#names();
    for (const name of this.#wires.keys()) if (!names.has(name)) this.#leave(name);
    for (const name of names) if (!this.#wires.has(name)) this.#join(name, this.#host.link({ name }));
  }

  /** @returns whether a wire has come or gone, so that links on it are to be looked at */
  onLinkEvent(event: LinkEvent): boolean {
    if (event.kind === 'lost') return false;
    const name = event.kind === 'gone' ? event.name : event.link.name;
    const wire = this.#wires.get(name);
    if (event.kind === 'gone') {
      if (wire?.index === event.index) this.#leave(name);
      return wire?.index === event.index;
    }
    if (wire === undefined || wire.index !== event.link.index) {
      if (!this.#names().has(name)) return false;
      this.#leave(name);
      this.#join(name, event.link);
      return true;
    }
    const isBack = event.link.running && !wire.running;
    wire.running = event.link.running;
    if (isBack) this.#announceAll(name);
    return isBack;
  }

  close(): void {
    this.#closed = true;
    for (const name of [...this.#wires.keys()]) this.#leave(name);
    this.#host.close();
  }

  #names(): Set<string> {
    return new Set([...this.#on()].map((endpoint) => parentName(macvlanOf(endpoint))));
  }

  *#on(name?: string): Generator<Endpoint> {
    for (const endpoint of this.#parts.endpoints())
      if (endpoint.macvlan !== null && (name === undefined || parentName(endpoint.macvlan) === name))
        yield endpoint;
  }

  #join(name: string, link: LinkInfo | null): void {
    if (link === null) return;
    const hear = (frame: Buffer): void => this.#hear(frame);
    try {
      const socket = this.#parts.linux.openPackets(link.index, allTypes, hear);
      this.#wires.set(name, { index: link.index, socket, running: link.running });
    } catch (error) {
      // It has gone in between; what comes back is told.
      this.#parts.logger.debug({ parent: name, error: String(error) }, 'cannot listen on a wire');
    }
  }

  #leave(name: string): void {
    this.#wires.get(name)?.socket.close();
    this.#wires.delete(name);
  }

  /** What siblings send does not come here: the kernel hands it to them directly. */
  #hear(frame: Buffer): void {
    const claim = readClaim(frame);
    if (claim === null || claim.isProbe || this.#claimed.has(claim.address)) return;
    const { address, mac } = claim;
    const isForeign = (): boolean => {
      const holder = this.#parts.holderOf(address);
      return holder !== null && holder.mac !== mac;
    };
    if (!isForeign()) return;
    this.#claimed.add(address);
    this.#parts.clock.setTimer(doubtMilliseconds, () => {
      if (this.#closed || !isForeign()) return void this.#claimed.delete(address);
      this.#parts.clock.setTimer(defenceMilliseconds, () => void this.#claimed.delete(address));
      this.#contest(address, mac);
    });
  }

  #contest(address: Address, mac: Mac): void {
    const holder = this.#parts.holderOf(address);
    if (holder === null) return;
    const { containerId, mac: own } = holder;
    this.#parts.logger.error({ address, mac, own, containerId }, 'somebody else claims the address');
    this.#announce(holder);
    this.#parts.report(address, mac).catch((error: unknown) => {
      this.#parts.logger.warn({ address, error: String(error) }, 'the conflict is not in the store');
    });
  }

  #announceAll(name: string): void {
    this.#parts.logger.info({ parent: name }, 'the wire is back: announcing the addresses on it');
    for (const endpoint of this.#on(name)) this.#announce(endpoint);
  }

  #announce(endpoint: Endpoint): void {
    const { linux, wiring, logger } = this.#parts;
    const netns = reopen(linux, endpoint);
    if (netns === null) return;
    const container = linux.openRouting(netns);
    try {
      const link = container.link({ name: endpoint.interface });
      if (link?.up === true) wiring.announce(endpoint, link.index, netns);
    } catch (error) {
      logger.debug({ containerId: endpoint.containerId, error: String(error) }, 'cannot announce');
    } finally {
      container.close();
      netns.close();
    }
  }
}
