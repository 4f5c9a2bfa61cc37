/**
 * The steps by which an endpoint comes into being and goes: record, links, what leads to it; and who gave its addresses is told.
 *
 * In: checked requests, an open namespace. Out: the endpoint's record; what undoes each step, pushed before the step. Never: an address
 * released before its link is gone (or, where it is released by the link, while the link has it); a link that lets anything but
 * the asking for an address pass while it has none.
 */
import { forgetOlder, openLoopback } from '../dataplane/published-host.ts';
import type { RateLimiter } from '../dataplane/rate-limits.ts';
import type { UndoStack } from '../lib/undo.ts';
import type { Linux, Netns } from '../linux/ports.ts';
import { type AttachmentId, type AttachRequest, hostInterfaceName } from '../model/attachment.ts';
import { type Delegate, needsLink } from '../model/delegate.ts';
import type { Address } from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';
import type { RegistrationParts, Registrations } from './registrations.ts';

export interface BuilderParts extends RegistrationParts {
  readonly linux: Linux;
  readonly limiter: RateLimiter;
  /** Gives addresses back to the plugin that gave them. @throws when it refuses */
  releaseDelegate(
    id: AttachmentId & { readonly netns: { readonly path: string } },
    delegate: Delegate,
  ): Promise<void>;
}

export class EndpointBuilder {
  readonly #parts: BuilderParts;
  readonly #registrations: Registrations;

  constructor(parts: BuilderParts, registrations: Registrations) {
    this.#parts = parts;
    this.#registrations = registrations;
  }

  /** The endpoint with its addresses in the store; `wire` is to follow. @param skip as of Attempt */
  async enter(
    id: string,
    request: AttachRequest,
    netns: Netns,
    skip: readonly Address[],
    undo: UndoStack,
  ): Promise<Endpoint> {
    if (needsLink(request.foreignIpam?.delegate ?? null)) return this.#enterByLink(id, request, netns, undo);
    const given = (await request.foreignIpam?.allocate()) ?? null;
    const delegate = request.foreignIpam?.delegate ?? null;
    if (delegate !== null)
      undo.push('give the addresses back', () => this.#parts.releaseDelegate(request, delegate));
    const { routed } = this.#parts.wirings;
    const hostInterface = hostInterfaceName(id);
    // The pair is made while the record is committed: whatever dies in between leaves a link that no endpoint has.
    const onPlan = (planned: Endpoint): void => {
      if (planned.kind === 'routed') routed.prepare(planned, netns);
    };
    undo.push('remove what was made ahead', () => routed.withdraw(hostInterface));
    const endpoint = await this.#registrations.enter(id, request, netns.identity, { skip, given, onPlan });
    undo.push('release the addresses', () => this.#registrations.leave(id, endpoint, false));
    undo.push('remove the link', () => this.unmake(endpoint));
    return endpoint;
  }

  /** The commit has put the endpoint into the policy's desired state; it is in the kernel before the container's link goes up. */
  async wire(endpoint: Endpoint, netns: Netns): Promise<void> {
    const { policy, wirings, limiter } = this.#parts;
    await policy.flush();
    await wirings[endpoint.kind].make(endpoint, netns);
    await this.publish(endpoint);
    if (endpoint.rateLimits !== null) await limiter.apply(endpoint, netns);
  }

  /** The rules are in by now. */
  async publish(endpoint: Endpoint): Promise<void> {
    const { linux, wirings } = this.#parts;
    if (endpoint.portMappings.length === 0) return;
    openLoopback(linux, endpoint);
    await forgetOlder(linux.conntrack, endpoint, () => wirings.routed.hostAddresses());
  }

  /** Links gone, addresses back with the plugin that gave them: in this order, unless that takes the link. */
  async takeDown(endpoint: Endpoint): Promise<void> {
    const { releaseDelegate, wirings } = this.#parts;
    const { delegate } = endpoint;
    if (!needsLink(delegate)) await this.unmake(endpoint);
    try {
      if (needsLink(delegate)) await wirings.macvlan.strip(endpoint);
      if (delegate !== null) await releaseDelegate(endpoint, delegate);
    } finally {
      if (needsLink(delegate)) await this.unmake(endpoint);
    }
  }

  async unmake(endpoint: Endpoint): Promise<void> {
    await this.#parts.wirings[endpoint.kind].unmake(endpoint);
    await this.#parts.limiter.remove(endpoint);
  }

  /** Who gives the addresses asks on the wire: record and link are there first, without any, and nothing but the asking passes. */
  async #enterByLink(id: string, request: AttachRequest, netns: Netns, undo: UndoStack): Promise<Endpoint> {
    const { policy, wirings, endpoints } = this.#parts;
    const bare = await this.#registrations.enter(id, request, netns.identity, { skip: [], given: [] });
    const now = (): Endpoint => endpoints.get(id)?.value ?? bare;
    undo.push('forget the endpoint', () => this.#registrations.leave(id, now(), false));
    undo.push('give the addresses back and remove the link', () => this.takeDown(now()));
    await policy.flush();
    await wirings[bare.kind].make(bare, netns);
    return this.#registrations.complete(id, bare, (await request.foreignIpam?.allocate()) ?? []);
  }
}
