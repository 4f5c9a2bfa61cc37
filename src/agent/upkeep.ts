/**
 * Keeps links and routes of this node's endpoints right between requests: what is missing is made anew, what nobody knows is
 * removed, what has lost its address gives way.
 *
 * In: the endpoints as the store has them, the kernel's links. Out: repairs through Attachments and the wirings; what could not
 * be repaired or is held back, for the status. Never: an endpoint touched that a request is working on; most of a host's links
 * removed because the store looks empty, unless an operator said so.
 */
import { openLoopback } from '../dataplane/published-host.ts';
import type { RateLimiter } from '../dataplane/rate-limits.ts';
import { WireWatch } from '../dataplane/wire-watch.ts';
import type { Wirings } from '../dataplane/wirings.ts';
import type { AddressBook } from '../ipam/address-book.ts';
import type { Ipam } from '../ipam/ipam.ts';
import { lostEndpoints } from '../ipam/lost.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import { asNetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import type { LinkEvent, Linux } from '../linux/ports.ts';
import { shimPrefix } from '../macvlan/shim-plan.ts';
import { queueInterfaceName, queueInterfacePrefix } from '../model/attachment.ts';
import type { Address, Cidr } from '../model/ip.ts';
import { addressKey } from '../model/keys.ts';
import type { Endpoint } from '../model/records.ts';
import type { Attachments } from './attach.ts';
import type { EndpointTable } from './endpoint-table.ts';
import { judgeDeletion } from './mass-deletion-guard.ts';

export interface UpkeepParts {
  readonly node: string;
  readonly book: AddressBook;
  readonly endpoints: EndpointTable;
  readonly attachments: Attachments;
  readonly wirings: Wirings;
  readonly limiter: RateLimiter;
  readonly ipam: Ipam;
  readonly linux: Linux;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly confirmMassDeletion: boolean;
  /** True for a record that is there and cannot be read. */
  isBroken(key: string): boolean;
}

/** A namespace that ends takes its link first and is gone a moment later. */
const repairDelayMilliseconds = 2000;

export class Upkeep {
  readonly #parts: UpkeepParts;
  readonly #wires: WireWatch;
  #missing = new Map<string, string>();
  #unknown: readonly string[] = [];
  #lost: readonly string[] = [];
  #scheduled: Timer | null = null;
  #stopped = false;

  constructor(parts: UpkeepParts) {
    this.#parts = parts;
    const { endpoints, ipam, node, clock } = parts;
    const holderOf = (address: Address): Endpoint | null => {
      const id = endpoints.userOf(address);
      const holder = id === undefined ? undefined : endpoints.get(id)?.value;
      const isTold = parts.book.address(address)?.value.endpoint === id || holder?.foreignAddresses === true;
      return holder?.kind === 'macvlan' && isTold ? holder : null;
    };
    this.#wires = new WireWatch({
      ...parts,
      wiring: parts.wirings.macvlan,
      endpoints: () => [...endpoints.all()].map(([, { value }]) => value),
      holderOf,
      report: (address, mac) => ipam.quarantine({ address, mac, node, seenAt: new Date(clock.now()) }),
    });
  }

  /** Endpoints that could not be repaired, with the reason. */
  get missing(): ReadonlyMap<string, string> {
    return this.#missing;
  }

  /** Links that the store does not know, or whose addresses it does not know, and that are held all the same. */
  get held(): readonly string[] {
    return [...this.#unknown, ...this.#lost];
  }

  stop(): void {
    this.#stopped = true;
    this.#wires.close();
    this.#scheduled?.cancel();
  }

  /** Listens where macvlan endpoints are. To be called often: it does nothing while that has not changed. */
  watchWires(): void {
    this.#wires.refresh();
  }

  async run(): Promise<void> {
    await this.#removeUnknownLinks();
    await this.#repair();
  }

  /** Soon, once, whatever happens until then. */
  schedule(): void {
    if (this.#scheduled !== null || this.#stopped) return;
    this.#scheduled = this.#parts.clock.setTimer(repairDelayMilliseconds, () => {
      this.#scheduled = null;
      this.#repair().catch((error: unknown) => this.#report('links', error));
    });
  }

  /** A link of ours that vanished without us: its namespace ended (a DEL follows), or somebody removed it. */
  onLinkEvent(event: LinkEvent): void {
    const { endpoints, attachments } = this.#parts;
    if (this.#wires.onLinkEvent(event)) this.schedule();
    if (event.kind === 'changed') return;
    const isOurs =
      event.kind !== 'gone' ||
      endpoints.hasLink(event.name) ||
      [queueInterfacePrefix, shimPrefix].some((prefix) => event.name.startsWith(prefix));
    if (isOurs && !(event.kind === 'gone' && attachments.isBusyLink(event.name))) this.schedule();
  }

  /** Links with our name that no endpoint has: left by a crash, or a sign that the store is not the one it was. */
  async #removeUnknownLinks(): Promise<void> {
    const { endpoints, attachments, wirings, linux, logger, confirmMassDeletion } = this.#parts;
    const links = await wirings.routed.links();
    const unknown = [...links.keys()].filter(
      (name) => !endpoints.hasLink(name) && !attachments.isBusyLink(name),
    );
    const { remove, held } = judgeDeletion(links.size, unknown, confirmMassDeletion);
    this.#unknown = held;
    if (held.length > 0) logger.error({ links: held }, 'held back: the store knows none of these links');
    for (const name of remove) {
      logger.warn({ link: name }, 'removing a link that no endpoint has');
      await linux.deleteLink(links.get(name)?.index ?? 0);
    }
    await this.#removeUnknownQueues();
    const tidied = await wirings.macvlan.tidy([...endpoints.all()].map(([, { value }]) => value));
    if (tidied.length > 0) logger.warn({ removed: tidied }, 'removed what no endpoint has on a parent');
  }

  /** Whose endpoint's link went without them; they hold nothing up but themselves. */
  async #removeUnknownQueues(): Promise<void> {
    const { endpoints, wirings, limiter, linux, attachments, logger } = this.#parts;
    // Interfaces of other plugins have names of their own.
    const known = [...endpoints.all()].map(([, { value }]) => value.hostInterface);
    const links = [...(await wirings.routed.links()).keys(), ...known];
    const used = new Set(links.map(queueInterfaceName));
    for (const [name, { index }] of await limiter.queues()) {
      if (used.has(name) || attachments.isBusyQueue(name)) continue;
      logger.warn({ link: name }, 'removing a queue interface that no endpoint has');
      await linux.deleteLink(index);
    }
  }

  /** Endpoints without a link get it anew where their namespace lives, and are released where it does not. */
  async #repair(): Promise<void> {
    const { endpoints, attachments, wirings, logger } = this.#parts;
    await this.#giveWay();
    const links = await wirings.routed.links();
    this.#missing = new Map();
    for (const [id, { value }] of [...endpoints.all()]) {
      // Of the other kinds, the host has no link that would tell.
      const hasLink = value.kind === 'routed' && links.has(value.hostInterface);
      if (!hasLink && !attachments.isBusy(id)) await this.#remake(id, value.containerId);
    }
    const changed = await wirings.routed.reconcileRoutes(
      this.#settled(),
      await wirings.routed.links(),
      this.#ownBlocks(),
    );
    if (changed.length > 0) logger.warn({ changed }, 'repaired links and routes');
    this.#openLoopbacks(links);
    await this.#repairLimits();
  }

  #openLoopbacks(links: ReadonlyMap<string, unknown>): void {
    try {
      for (const endpoint of this.#settled())
        if (links.has(endpoint.hostInterface)) openLoopback(this.#parts.linux, endpoint);
    } catch (error) {
      this.#report('published ports', error);
    }
  }

  async #repairLimits(): Promise<void> {
    const { endpoints, attachments, limiter, logger } = this.#parts;
    const settled = [...endpoints.all()].filter(([id]) => !attachments.isBusy(id));
    for (const id of await limiter.wrong(settled.map(([id, { value }]) => [id, value] as const))) {
      try {
        await attachments.limit(id);
        logger.warn({ endpoint: id }, 'repaired rate limits');
      } catch (error) {
        this.#missing.set(id, asNetctlError(error).message);
        this.#report('rate limits', error);
      }
    }
  }

  /** An address that is another's by now must not be answered for here; one that has just vanished needs proof, if it is many. */
  async #giveWay(): Promise<void> {
    const { book, endpoints, attachments, logger, confirmMassDeletion } = this.#parts;
    const lost = lostEndpoints(book, endpoints.all()).filter(
      ({ id, address }) => !attachments.isBusy(id) && !this.#parts.isBroken(addressKey(address)),
    );
    const vanished = lost.filter(({ taken }) => !taken).map(({ id }) => id);
    const held = new Set(judgeDeletion(endpoints.size, vanished, confirmMassDeletion).held);
    this.#lost = [...held].flatMap((id) => endpoints.get(id)?.value.hostInterface ?? []);
    if (held.size > 0) logger.error({ endpoints: [...held] }, 'held back: the addresses of these are gone');
    for (const { id, reason } of lost) {
      const endpoint = endpoints.get(id)?.value;
      if (held.has(id) || endpoint === undefined) continue;
      logger.warn(
        { endpoint: id, containerId: endpoint.containerId, reason },
        'endpoint gives way: torn down',
      );
      await attachments.detach(endpoint).catch((error: unknown) => this.#report('giving way', error));
    }
  }

  async #remake(id: string, containerId: string): Promise<void> {
    try {
      const outcome = await this.#parts.attachments.repair(id);
      if (outcome !== 'stands')
        this.#parts.logger.warn({ endpoint: id, containerId, outcome }, 'an endpoint had no interface');
    } catch (error) {
      this.#missing.set(id, asNetctlError(error).message);
      this.#report('endpoint', error);
    }
  }

  *#settled() {
    const { endpoints, attachments } = this.#parts;
    for (const [id, { value }] of endpoints.all()) if (!attachments.isBusy(id)) yield value;
  }

  *#ownBlocks(): Generator<Cidr> {
    const { book, node } = this.#parts;
    for (const [block, { value }] of book.blocks()) if (value.node === node) yield block;
  }

  #report(what: string, error: unknown): void {
    this.#parts.logger.error({ error: asNetctlError(error).message }, `${what}: failed, will be tried again`);
  }
}
