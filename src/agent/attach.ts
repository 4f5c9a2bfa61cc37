/**
 * Movement 1 of DESIGN.md: a request goes straight down. Attach: check → plan → one transaction → policy → kernel → answer, each
 * step with its own undo. Detach: policy → kernel → one transaction.
 *
 * In: requests from the protocol fronts. Out: attachments, or an error after everything was undone. Never: two requests for one
 * endpoint at once, a container's interface up before its policy is in the kernel, an address released before its link is gone.
 */

import type { EndpointWiring } from '../dataplane/endpoint-wiring.ts';
import type { MacvlanWiring } from '../dataplane/macvlan-wiring.ts';
import type { PolicyDataplane } from '../dataplane/policy-dataplane.ts';
import { reopen } from '../dataplane/reopen.ts';
import type { Ipam } from '../ipam/ipam.ts';
import { planRelease } from '../ipam/release.ts';
import { asNetctlError, NetctlError } from '../lib/errors.ts';
import { KeyedQueue } from '../lib/keyed-queue.ts';
import type { Logger } from '../lib/logger.ts';
import { UndoStack } from '../lib/undo.ts';
import type { Linux, Netns } from '../linux/ports.ts';
import {
  type Attacher,
  type Attachment,
  type AttachmentId,
  type AttachRequest,
  endpointId,
  hostInterfaceName,
} from '../model/attachment.ts';
import { type Address, familyOf } from '../model/ip.ts';
import { endpointKey, profileKey } from '../model/keys.ts';
import type { Mac } from '../model/mac.ts';
import { parseName } from '../model/names.ts';
import { newProfile, profileRecord } from '../model/profile.ts';
import type { Endpoint } from '../model/records.ts';
import type { Json } from '../store/store.ts';
import { attachmentOf, endpointRecord } from './endpoint-record.ts';
import type { EndpointTable } from './endpoint-table.ts';
import type { Picture } from './picture.ts';

export interface AttachParts {
  readonly node: string;
  readonly bootId: string;
  /** MTU of endpoints that do not ask for one. */
  readonly mtuBytes: number;
  readonly picture: Picture;
  readonly ipam: Ipam;
  readonly endpoints: EndpointTable;
  readonly linux: Linux;
  readonly wiring: EndpointWiring;
  readonly macvlan: MacvlanWiring;
  readonly policy: PolicyDataplane;
  readonly logger: Logger;
  now(): Date;
}

export class Attachments implements Attacher {
  readonly #parts: AttachParts;
  readonly #queue = new KeyedQueue();

  constructor(parts: AttachParts) {
    this.#parts = parts;
  }

  attach(request: AttachRequest): Promise<Attachment> {
    const id = endpointId(request);
    return this.#queue.run(id, () => this.#attach(id, request));
  }

  detach(request: AttachmentId, before?: Date): Promise<void> {
    const id = endpointId(request);
    return this.#queue.run(id, async () => {
      const endpoint = this.#parts.endpoints.get(id)?.value;
      if (before !== undefined && endpoint !== undefined && Date.parse(endpoint.createdAt) > before.getTime())
        return;
      await this.#detach(id, endpoint);
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
      const problems = await this.#wiringOf(endpoint).inspect(endpoint, netns);
      for (const address of endpoint.addresses) {
        if (!expected.addresses.includes(address)) problems.push(`address ${address} is not in prevResult`);
      }
      if (!this.#parts.policy.status.inSync)
        problems.push('the policy in the kernel is not what it should be');
      if (problems.length > 0)
        throw new NetctlError('CONFLICT', problems.join('; '), { endpoint: id, problems });
    } finally {
      netns.close();
    }
  }

  async collect(network: string, valid: readonly Omit<AttachmentId, 'network'>[]): Promise<void> {
    const keep = new Set(valid.map((attachment) => endpointId({ ...attachment, network })));
    const stale = this.#parts.endpoints.ofNetwork(network).filter(([id]) => !keep.has(id));
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

  notReady(): { reason: string; existingAffected: boolean } | null {
    const policy = this.#parts.policy.status;
    if (!policy.inSync)
      return {
        reason: `policy is not in the kernel: ${policy.lastError ?? 'starting'}`,
        existingAffected: true,
      };
    const pools = this.#parts.ipam.book.pools().filter(([, pool]) => !pool.disabled);
    if (pools.length === 0)
      return {
        reason: 'there is no enabled pool: add one with `netctl pool add CIDR`',
        existingAffected: false,
      };
    return null;
  }

  /** Puts an endpoint of the store right in the kernel: makes its link anew where its namespace lives, else releases it. */
  repair(id: string): Promise<'stands' | 'remade' | 'released'> {
    return this.#queue.run(id, () => this.#repair(id));
  }

  /** Takes away what the kernel has of an endpoint whose record is gone. */
  tearDown(id: string, endpoint: Endpoint): Promise<void> {
    return this.#queue.run(id, async () => {
      if (this.#parts.endpoints.get(id) !== undefined) return;
      await this.#removeLinks(endpoint);
      for (const address of endpoint.addresses) await this.#parts.linux.conntrack.flushAddress(address);
    });
  }

  /** True while a request for the endpoint runs: what it has in the kernel is not for others to judge. */
  isBusy(id: string): boolean {
    return this.#queue.has(id);
  }

  isBusyLink(hostInterface: string): boolean {
    return [...this.#queue.keys()].some((id) => hostInterfaceName(id) === hostInterface);
  }

  /** Frees what is over (cooldowns, reservations, retentions), then blocks of this node that have none left. */
  expire(): Promise<void> {
    return this.#parts.ipam.expire();
  }

  /** Connections of released addresses, once more: the agent may have died between the link's end and the flush. */
  async flushCooling(): Promise<void> {
    const { ipam, node } = this.#parts;
    for (const address of ipam.book.cooling(node)) await this.#parts.linux.conntrack.flushAddress(address);
  }

  /** Resolves when no request runs. */
  idle(): Promise<void> {
    return this.#queue.idle();
  }

  async #attach(id: string, request: AttachRequest): Promise<Attachment> {
    const netns = this.#parts.linux.openNetns(request.netns.open);
    try {
      const known = this.#parts.endpoints.get(id)?.value;
      if (known !== undefined && this.#wiringOf(known).stands(known, netns)) return attachmentOf(known);
      if (known !== undefined) await this.#detach(id, known);
      const endpoint = await this.#attachTo(id, request, netns);
      this.#log(id, endpoint, 'attached');
      return attachmentOf(endpoint);
    } finally {
      netns.close();
    }
  }

  /** An address that somebody else on the wire has is put into quarantine, and another one tried, unless it was asked for. */
  async #attachTo(id: string, request: AttachRequest, netns: Netns): Promise<Endpoint> {
    const skip: Address[] = [];
    for (;;) {
      try {
        return await this.#tryAttach(id, request, netns, skip);
      } catch (error) {
        if (!(error instanceof NetctlError) || error.code !== 'DUPLICATE_ADDRESS') throw error;
        const { address, mac } = error.details as { address: Address; mac: Mac };
        this.#parts.logger.warn({ endpoint: id, address, mac }, 'somebody else answered for the address');
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
  ): Promise<Endpoint> {
    const undo = new UndoStack();
    try {
      const endpoint = await this.#register(id, request, netns, skip);
      undo.push('release the addresses', () => this.#unregister(id, endpoint, false));
      await this.#wire(endpoint, netns, undo);
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

  /** Address, owner index and endpoint (and, on its first use, the network's own profile) in one transaction. */
  async #register(
    id: string,
    request: AttachRequest,
    netns: Netns,
    skip: readonly Address[],
  ): Promise<Endpoint> {
    const { ipam, picture, node, now } = this.#parts;
    const profiles =
      request.profiles.length > 0
        ? [...new Set(request.profiles)]
        : [parseName(request.network, 'profile (named like the network)')];
    const ownProfile =
      request.profiles.length === 0 && !picture.hasProfile(request.network) ? request.network : null;
    const owner = request.owner ?? {
      tenant: 'default',
      app: request.network.slice(0, 128),
      instance: request.containerId.slice(0, 128),
    };
    const key = endpointKey(node, id);
    const kind = request.macvlan === null ? 'routed' : 'macvlan';
    const mtuBytes =
      request.mtuBytes ||
      (request.macvlan === null ? this.#parts.mtuBytes : this.#parts.macvlan.mtuOf(request.macvlan));
    let endpoint: Endpoint | undefined;
    if (request.reservation !== null || request.onRelease !== 'delete')
      await ipam.learnKept(request.owner, request.reservation);
    await ipam.commit(() => {
      const container = request.containerId;
      const proposal = ipam.assigner.propose({
        ...request,
        kind,
        node,
        endpoint: id,
        container,
        owner,
        skip,
        ttlSeconds: request.retainSeconds,
        now: now(),
      });
      const record = endpointRecord(request, proposal, {
        id,
        profiles,
        mtuBytes,
        netns: netns.identity,
        bootId: this.#parts.bootId,
        now: now(),
        book: ipam.book,
      });
      endpoint = record;
      const needsProfile = ownProfile !== null && !picture.hasProfile(ownProfile);
      return {
        compares: [
          ...proposal.compares,
          { kind: 'absent', key },
          ...(needsProfile ? [{ kind: 'absent', key: profileKey(ownProfile) } as const] : []),
        ],
        writes: [
          ...proposal.writes,
          { kind: 'put', key, value: record as unknown as Json },
          ...(needsProfile
            ? [
                {
                  kind: 'put',
                  key: profileKey(ownProfile),
                  value: profileRecord(newProfile(ownProfile)) as unknown as Json,
                } as const,
              ]
            : []),
        ],
        settle: () => proposal.settle(),
      };
    }, owner.tenant);
    if (endpoint === undefined) throw new NetctlError('BUG', `endpoint ${id} was committed but not planned`);
    if (kind === 'routed')
      for (const address of endpoint.addresses) this.#parts.wiring.ensureForwarding(familyOf(address));
    for (const profile of profiles) {
      if (!picture.hasProfile(profile))
        this.#parts.logger.warn({ endpoint: id, profile }, 'profile does not exist: it denies everything');
    }
    return endpoint;
  }

  /** The commit has put the endpoint into the policy's desired state; it is in the kernel before the container's link goes up. */
  async #wire(endpoint: Endpoint, netns: Netns, undo: UndoStack): Promise<void> {
    const { policy, wiring, macvlan } = this.#parts;
    await policy.flush();
    undo.push('remove the link', () => this.#removeLinks(endpoint));
    if (endpoint.kind === 'macvlan') {
      const spec = await macvlan.begin(endpoint, netns);
      await macvlan.finish(spec, endpoint, netns);
    } else {
      const spec = await wiring.begin(endpoint, netns);
      wiring.finish(spec, netns);
    }
  }

  #wiringOf({ kind }: Endpoint): EndpointWiring | MacvlanWiring {
    return kind === 'macvlan' ? this.#parts.macvlan : this.#parts.wiring;
  }

  #removeLinks(endpoint: Endpoint): Promise<void> {
    const { wiring, macvlan } = this.#parts;
    return endpoint.kind === 'macvlan' ? macvlan.remove(endpoint) : wiring.remove(endpoint.hostInterface);
  }

  async #detach(id: string, endpoint: Endpoint | undefined): Promise<void> {
    const { wiring, linux } = this.#parts;
    if (endpoint === undefined) {
      await wiring.remove(hostInterfaceName(id));
      return;
    }
    await this.#removeLinks(endpoint);
    for (const address of endpoint.addresses) await linux.conntrack.flushAddress(address);
    await this.#unregister(id, endpoint, true);
    this.#log(id, endpoint, 'detached');
  }

  #log(id: string, endpoint: Endpoint, message: string): void {
    const { network, containerId, interface: name, addresses, profiles } = endpoint;
    this.#parts.logger.info(
      { endpoint: id, network, containerId, interface: name, addresses, profiles },
      message,
    );
  }

  /** One transaction gives back the addresses and forgets the endpoint; its policy members go with it. */
  async #unregister(id: string, endpoint: Endpoint, used: boolean): Promise<void> {
    const { ipam, node, now, policy, endpoints } = this.#parts;
    await ipam.commit(() => {
      const known = endpoints.get(id);
      if (known === undefined) return nothing;
      const release = planRelease(ipam.book, id, endpoint.addresses, now(), used);
      const key = endpointKey(node, id);
      return {
        compares: [...release.compares, { kind: 'modified', key, revision: known.modified }],
        writes: [...release.writes, { kind: 'delete', key }],
      };
    });
    // The link is gone, so members that linger do no harm; the dataplane tries again by itself.
    await policy.flush().catch((error: unknown) => {
      this.#parts.logger.warn(
        { endpoint: id, error: String(error) },
        'policy of a detached endpoint is not yet out of the kernel',
      );
    });
  }

  async #repair(id: string): Promise<'stands' | 'remade' | 'released'> {
    const endpoint = this.#parts.endpoints.get(id)?.value;
    if (endpoint === undefined) return 'released';
    const netns = this.#reopen(endpoint);
    if (netns === null) {
      await this.#detach(id, endpoint);
      return 'released';
    }
    const undo = new UndoStack();
    try {
      if (this.#wiringOf(endpoint).stands(endpoint, netns)) return 'stands';
      await this.#removeLinks(endpoint);
      await this.#wire(endpoint, netns, undo);
      return 'remade';
    } catch (error) {
      await undo.run();
      throw error;
    } finally {
      netns.close();
    }
  }

  /** The namespace that the endpoint was made in, if it lives. */
  #reopen(endpoint: Endpoint): Netns | null {
    return endpoint.bootId === this.#parts.bootId ? reopen(this.#parts.linux, endpoint) : null;
  }
}

/** Addresses of one attach that others may turn out to have. */
const mostDuplicates = 3;
const nothing = { compares: [], writes: [] };
