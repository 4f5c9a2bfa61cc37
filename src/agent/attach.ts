/**
 * Movement 1 of DESIGN.md: a request goes straight down. Attach: check → plan → one transaction → policy → kernel → answer, each
 * step with its own undo. Detach: policy → kernel → one transaction.
 *
 * In: requests from the protocol fronts. Out: attachments, or an error after everything was undone. Never: two requests for one
 * endpoint at once, a container's interface up before its policy is in the kernel, an address released before its link is
 * gone (or, where that takes the link, before nothing can use it).
 */

import { isDeepStrictEqual } from 'node:util';
import { ContainerNetns } from '../dataplane/container-netns.ts';
import { inspectLoopback } from '../dataplane/published-host.ts';
import { reopen } from '../dataplane/reopen.ts';
import { willCool } from '../ipam/release.ts';
import { asNetctlError, NetctlError } from '../lib/errors.ts';
import { KeyedQueue } from '../lib/keyed-queue.ts';
import { UndoStack } from '../lib/undo.ts';
import type { Netns } from '../linux/ports.ts';
import {
  type Attacher,
  type Attachment,
  type AttachmentId,
  type AttachRequest,
  type AttachWish,
  endpointId,
  hostInterfaceName,
  queueInterfaceName,
} from '../model/attachment.ts';
import type { Address } from '../model/ip.ts';
import type { Mac } from '../model/mac.ts';
import type { Endpoint } from '../model/records.ts';
import { type BuilderParts, EndpointBuilder } from './endpoint-builder.ts';
import { attachmentOf } from './endpoint-record.ts';
import { Expiry } from './expiry.ts';
import { LateFlush, type LateFlushParts } from './late-flush.ts';
import { type NotReady, notReady } from './readiness.ts';
import { Registrations } from './registrations.ts';

export interface AttachParts extends BuilderParts {
  readonly clock: LateFlushParts['clock'];
}
type Accept = (attachment: Attachment) => void;

export class Attachments implements Attacher {
  readonly #parts: AttachParts;
  readonly #registrations: Registrations;
  readonly #builder: EndpointBuilder;
  readonly #netns: ContainerNetns;
  readonly #queue = new KeyedQueue();
  readonly #lateFlush: LateFlush;
  readonly #expiry: Expiry;
  #limited: Promise<unknown> = Promise.resolve();

  constructor(parts: AttachParts) {
    this.#parts = parts;
    this.#registrations = new Registrations(parts);
    this.#netns = new ContainerNetns(parts.linux);
    this.#builder = new EndpointBuilder(parts, this.#registrations);
    this.#lateFlush = new LateFlush({ ...parts, conntrack: parts.linux.conntrack });
    this.#expiry = new Expiry(parts, this.#lateFlush);
  }

  attach(request: AttachRequest, accept: Accept = () => undefined): Promise<Attachment> {
    const id = endpointId(request);
    return this.#queue.run(id, () => this.#attach(id, request, accept));
  }

  detach(request: AttachmentId, before?: Date, tell?: () => Promise<void>): Promise<void> {
    const id = endpointId(request);
    return this.#queue.run(id, async () => {
      const endpoint = this.#parts.endpoints.get(id)?.value;
      if (before !== undefined && endpoint !== undefined && Date.parse(endpoint.createdAt) > before.getTime())
        return;
      await this.#detach(id, endpoint);
      if (!endpoint?.delegate) await tell?.();
    });
  }

  async check(
    request: AttachmentId,
    expected: { addresses: readonly Address[]; netnsOpen: string },
  ): Promise<void> {
    const id = endpointId(request);
    const endpoint = this.#parts.endpoints.get(id)?.value;
    if (endpoint === undefined)
      throw new NetctlError('NOT_FOUND', `no endpoint of ${request.containerId} on ${request.network}`);
    const netns = this.#parts.linux.openNetns(expected.netnsOpen);
    try {
      const problems = await this.#parts.wirings[endpoint.kind].inspect(endpoint, netns);
      problems.push(...(await this.#parts.limiter.inspect(endpoint, netns)));
      if (problems.length === 0) problems.push(...inspectLoopback(this.#parts.linux, endpoint));
      for (const address of endpoint.addresses) {
        if (!expected.addresses.includes(address)) problems.push(`address ${address} is not in prevResult`);
      }
      for (const what of await this.#parts.policy.resyncOf(endpoint))
        problems.push(`others had changed the policy (it is repaired now): ${what}`);
      if (problems.length > 0)
        throw new NetctlError('CONFLICT', problems.join('; '), { endpoint: id, problems });
    } finally {
      netns.close();
    }
  }

  async collect(network: string, valid: readonly Omit<AttachmentId, 'network'>[]): Promise<void> {
    const keep = new Set(valid.map((attachment) => endpointId({ ...attachment, network })));
    const stale = this.#parts.endpoints
      .ofNetwork(network)
      // What an operator has attached, and what Docker has, is on no list of a runtime's.
      .filter(([id, { attachedBy, kind }]) => attachedBy === 'runtime' && kind !== 'handed' && !keep.has(id));
    const results = await Promise.allSettled(stale.map(([, endpoint]) => this.detach(endpoint)));
    const failed = results
      .filter((result) => result.status === 'rejected')
      .map((result) => asNetctlError(result.reason).message);
    if (failed.length > 0)
      throw new NetctlError(
        'TRY_AGAIN',
        `${failed.length} of ${stale.length} not collected: ${failed.join('; ')}`,
      );
  }

  notReady(wanted: AttachWish): NotReady | null {
    return notReady(this.#parts, this.#registrations, wanted);
  }

  /** null where there is no such endpoint. */
  addressesOf(id: AttachmentId): readonly Address[] | null {
    return this.#parts.endpoints.get(endpointId(id))?.value.addresses ?? null;
  }

  /** Puts an endpoint of the store right in the kernel: makes its link anew where its namespace lives, else releases it. */
  repair(id: string): Promise<'stands' | 'remade' | 'released'> {
    return this.#queue.run(id, () => this.#repair(id));
  }

  /** Rate limits and ports that changed and are on their way to the kernel. */
  get limited(): Promise<unknown> {
    return this.#limited;
  }

  /** A changed record may say other rate limits or ports. */
  noticeChange(id: string, before: Endpoint | null, now: Endpoint | null): void {
    if (before === null || now === null) return;
    const isSame = (field: 'rateLimits' | 'portMappings') => isDeepStrictEqual(before[field], now[field]);
    const limited = Promise.all([
      isSame('rateLimits') ? undefined : this.limit(id),
      isSame('portMappings') ? undefined : this.#queue.run(id, () => this.#publishAgain(id)),
    ]);
    limited.catch((error: unknown) =>
      this.#parts.logger.error(
        { endpoint: id, error: asNetctlError(error).message },
        'rate limits and ports: failed',
      ),
    );
    this.#limited = Promise.all([this.#limited.catch(() => undefined), limited]);
    this.#limited.catch(() => undefined);
  }

  /** Brings the rate limits to what the record says. @throws LINK */
  limit(id: string): Promise<void> {
    return this.#queue.run(id, async () => {
      const endpoint = this.#parts.endpoints.get(id)?.value;
      const netns = endpoint === undefined ? null : this.#reopen(endpoint);
      if (endpoint === undefined || netns === null) return;
      try {
        await this.#parts.limiter.apply(endpoint, netns);
      } finally {
        netns.close();
      }
    });
  }

  /** Takes away what the kernel has of an endpoint whose record is gone. */
  tearDown(id: string, endpoint: Endpoint): Promise<void> {
    return this.#queue.run(id, async () => {
      if (this.#parts.endpoints.get(id) !== undefined) return;
      await this.#builder.unmake(endpoint);
      await this.#parts.linux.conntrack.flushAddresses(endpoint.addresses);
    });
  }

  /** How many endpoints there are for which requests run. */
  get running(): number {
    return this.#queue.size;
  }

  /** True while a request for the endpoint runs: what it has in the kernel is not for others to judge. */
  isBusy(id: string): boolean {
    return this.#queue.has(id);
  }

  isBusyLink(hostInterface: string): boolean {
    return [...this.#queue.keys()].some((id) => hostInterfaceName(id) === hostInterface);
  }

  isBusyQueue(name: string): boolean {
    return [...this.#queue.keys()].some((id) => queueInterfaceName(hostInterfaceName(id)) === name);
  }

  /** Frees what is over; what cannot be freed now waits. */
  expire(): Promise<void> {
    return this.#expiry.run();
  }

  /** Connections of released addresses: the agent before this one may have died between its answer to DEL and their flush. */
  flushCooling(): Promise<void> {
    const { ipam, node, linux } = this.#parts;
    return linux.conntrack.flushAddresses(ipam.book.cooling(node));
  }

  /** Resolves when no request runs and no connection is left to be deleted: those that could not be, the next start has to. */
  async idle(): Promise<void> {
    await this.#queue.idle();
    await this.#lateFlush.settle();
  }

  async #attach(id: string, request: AttachRequest, accept: Accept): Promise<Attachment> {
    const { book } = this.#parts.ipam;
    const netns = this.#netns.open(request);
    try {
      const known = this.#parts.endpoints.get(id)?.value;
      if (known !== undefined && (await this.#works(known, netns))) {
        const attachment = attachmentOf(known, book);
        accept(attachment);
        return attachment;
      }
      if (known !== undefined) await this.#detach(id, known);
      const endpoint = await this.#attachTo(id, request, netns, accept);
      this.#log(id, endpoint, 'attached');
      return attachmentOf(endpoint, book);
    } finally {
      netns.close();
    }
  }

  /** Not so when an agent died in the middle of making it: then the link may stand without what belongs to it. */
  async #works(endpoint: Endpoint, netns: Netns): Promise<boolean> {
    const wiring = this.#parts.wirings[endpoint.kind];
    if (endpoint.addresses.length === 0) return false;
    return wiring.stands(endpoint, netns) && (await wiring.inspect(endpoint, netns)).length === 0;
  }

  /** An address that somebody else on the wire has is put into quarantine, and another one tried, unless it was asked for. */
  async #attachTo(id: string, request: AttachRequest, netns: Netns, accept: Accept): Promise<Endpoint> {
    const skip: Address[] = [];
    for (;;) {
      try {
        return await this.#tryAttach(id, request, netns, skip, accept);
      } catch (error) {
        if (!(error instanceof NetctlError) || error.code !== 'DUPLICATE_ADDRESS') throw error;
        const { address, mac } = error.details as { address: Address; mac: Mac };
        this.#parts.logger.warn({ endpoint: id, address, mac }, 'the address is in use on the wire');
        const { ipam, node, now } = this.#parts;
        await ipam.quarantine({ address, mac, node, seenAt: now() });
        if (skip.push(address) === mostDuplicates || request.addresses.includes(address)) throw error;
      }
    }
  }

  async #tryAttach(
    id: string,
    request: AttachRequest,
    netns: Netns,
    skip: readonly Address[],
    accept: Accept,
  ): Promise<Endpoint> {
    const undo = new UndoStack();
    try {
      const endpoint = await this.#builder.enter(id, request, netns, skip, undo);
      await this.#lateFlush.before(endpoint.addresses);
      await this.#builder.wire(endpoint, netns);
      if (endpoint.kind === 'macvlan') await this.#parts.wirings.macvlan.checkGateway(endpoint, netns);
      // The disk was at work meanwhile.
      await this.#parts.ipam.flushed();
      accept(attachmentOf(endpoint, this.#parts.ipam.book));
      undo.forget();
      return endpoint;
    } catch (error) {
      for (const failure of await undo.run()) {
        this.#parts.logger.error(
          { endpoint: id, step: failure.what, error: String(failure.error) },
          'could not undo a step of a failed attach',
        );
      }
      throw error;
    }
  }

  async #publishAgain(id: string): Promise<void> {
    const endpoint = this.#parts.endpoints.get(id)?.value;
    if (endpoint === undefined) return;
    await this.#parts.policy.flush();
    await this.#builder.publish(endpoint);
  }

  async #detach(id: string, endpoint: Endpoint | undefined): Promise<void> {
    const { wirings, linux } = this.#parts;
    if (endpoint === undefined) {
      await wirings.routed.remove(hostInterfaceName(id));
      return;
    }
    await this.#builder.takeDown(endpoint);
    this.#tidy(id, endpoint);
    if (this.#canFlushLater(id, endpoint)) this.#lateFlush.add(endpoint.addresses);
    else await linux.conntrack.flushAddresses(endpoint.addresses);
    await this.#registrations.leave(id, endpoint, true);
    this.#log(id, endpoint, 'detached');
  }

  /** Where nobody gets the addresses for a while; and the next start knows them, should the agent be killed. */
  #canFlushLater(id: string, { addresses, portMappings }: Endpoint): boolean {
    const { book } = this.#parts.ipam;
    return portMappings.length === 0 && addresses.every((address) => willCool(book, id, address));
  }

  /** Where the container lives on, nothing of the endpoint stays in it. */
  #tidy(id: string, endpoint: Endpoint): void {
    const { endpoints, wirings, logger } = this.#parts;
    const livesOn = endpoint.attachedBy === 'operator' || endpoints.inNetns(endpoint.netns).length > 1;
    const { kind } = endpoint;
    const netns = (kind === 'routed' || kind === 'macvlan') && livesOn ? this.#reopen(endpoint) : null;
    try {
      if (netns !== null) wirings[kind === 'macvlan' ? kind : 'routed'].endBeside(endpoint, netns);
    } catch (error) {
      logger.warn(
        { endpoint: id, error: String(error) },
        'rules of a detached endpoint stay in its container',
      );
    } finally {
      netns?.close();
    }
  }

  /** After the answer, which does not wait for it. */
  #log(id: string, endpoint: Endpoint, message: string): void {
    const { network, containerId, interface: name, addresses, profiles } = endpoint;
    const fields = { endpoint: id, network, containerId, interface: name, addresses, profiles };
    setImmediate(() => this.#parts.logger.info(fields, message));
  }

  async #repair(id: string): Promise<'stands' | 'remade' | 'released'> {
    const endpoint = this.#parts.endpoints.get(id)?.value;
    if (endpoint === undefined) return 'released';
    // Without an address: an agent before this one died while it was asked for, and its caller has had no answer.
    const netns = endpoint.addresses.length === 0 ? null : this.#reopen(endpoint);
    if (netns === null) {
      await this.#detach(id, endpoint);
      return 'released';
    }
    let isUnmade = false;
    try {
      if (this.#parts.wirings[endpoint.kind].stands(endpoint, netns)) {
        if (endpoint.kind === 'macvlan') await this.#mend(id, endpoint, netns);
        return 'stands';
      }
      // What its engine had moved, only the engine can make anew, by asking again.
      if (endpoint.kind === 'handed') {
        await this.#detach(id, endpoint);
        return 'released';
      }
      await this.#builder.unmake(endpoint);
      isUnmade = true;
      await this.#builder.wire(endpoint, netns);
      return 'remade';
    } catch (error) {
      if (isUnmade) await this.#builder.unmake(endpoint).catch(() => undefined);
      throw error;
    } finally {
      netns.close();
    }
  }

  /** What leads beside the link, others may have changed. */
  async #mend(id: string, endpoint: Endpoint, netns: Netns): Promise<void> {
    const repaired = await this.#parts.wirings.macvlan.mend(endpoint, netns);
    if (repaired.length > 0)
      this.#parts.logger.warn({ endpoint: id, repaired }, 'repaired the way by the host');
  }

  /** The namespace that the endpoint was made in, if it lives. */
  #reopen(endpoint: Endpoint): Netns | null {
    return endpoint.bootId === this.#parts.bootId ? reopen(this.#parts.linux, endpoint) : null;
  }
}

/** Addresses of one attach that others may turn out to have. */
const mostDuplicates = 3;
