/**
 * An endpoint's entry into the store and its leaving: each one transaction, with the addresses that it takes or gives back.
 *
 * In: checked requests. Out: the endpoint's record, in the store and in the picture. Never: an address without its endpoint or an
 * endpoint without its addresses, a profile made for a network whose endpoints name others.
 */
import type { JointPolicy } from '../dataplane/joint-policy.ts';
import type { Wirings } from '../dataplane/wirings.ts';
import type { Proposal } from '../ipam/assign.ts';
import type { Plan } from '../ipam/commit.ts';
import type { Ipam } from '../ipam/ipam.ts';
import { planPublish } from '../ipam/ports.ts';
import { planRelease } from '../ipam/release.ts';
import { lookTwice } from '../ipam/second-look.ts';
import { asNetctlError, invalid, NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import { leastMtu6 } from '../linux/own-addresses.ts';
import type { NetnsIdentity } from '../linux/ports.ts';
import { type AddressWish, type AttachRequest, type GivenAddress, ownProfile } from '../model/attachment.ts';
import { type Address, familyOf } from '../model/ip.ts';
import { endpointKey, profileKey } from '../model/keys.ts';
import { parseName } from '../model/names.ts';
import { newProfile, profileRecord } from '../model/profile.ts';
import { refuseUnpublishable } from '../model/publishable.ts';
import type { Endpoint, Owner, Pool } from '../model/records.ts';
import type { Compare, Json, Write } from '../store/store.ts';
import { endpointRecord, proposalOf, withAddresses } from './endpoint-record.ts';
import type { EndpointTable } from './endpoint-table.ts';
import type { Picture } from './picture.ts';

export interface RegistrationParts {
  readonly node: string;
  readonly bootId: string;
  /** MTU of endpoints that do not ask for one. */
  readonly mtuBytes: number;
  readonly picture: Picture;
  readonly ipam: Ipam;
  readonly endpoints: EndpointTable;
  readonly wirings: Wirings;
  readonly policy: Pick<JointPolicy, 'flush' | 'status' | 'resyncOf'>;
  readonly logger: Logger;
  /** Why the hosts' common store cannot be asked, or null (also where there is none). */
  clusterTrouble(): string | null;
  /** Why this host's disk did not take the last change, or null. */
  diskRefusal(): string | null;
  now(): Date;
}

/** What an attempt to attach adds to the request. */
export interface Attempt {
  /** Not these: another machine answered for them a moment ago. */
  readonly skip: readonly Address[];
  /** From elsewhere, none where they come later; null: from our pools. */
  readonly given: readonly GivenAddress[] | null;
  /** Hears of the endpoint before it is committed, of each attempt. */
  onPlan?(endpoint: Endpoint): void;
}

export class Registrations {
  readonly #parts: RegistrationParts;

  constructor(parts: RegistrationParts) {
    this.#parts = parts;
  }

  /** Address, owner index and endpoint (and, on its first use, the network's own profile) in one transaction, on its way to the disk. */
  async enter(id: string, request: AttachRequest, netns: NetnsIdentity, attempt: Attempt): Promise<Endpoint> {
    const { ipam, picture, node, bootId, wirings, logger, now } = this.#parts;
    const owner = ownerOf(request);
    const profiles = profilesOf(request);
    const ownProfile = request.profiles.length === 0 ? (profiles[0] ?? null) : null;
    const key = endpointKey(node, id);
    const mtuBytes =
      request.macvlan === null
        ? request.mtuBytes || this.#parts.mtuBytes
        : wirings.macvlan.mtuOf(request.macvlan, request.mtuBytes);
    if (request.reservation !== null || request.onRelease !== 'delete')
      await ipam.learnKept(request.owner, request.reservation);
    let endpoint: Endpoint | undefined;
    const plan = (): Plan => {
      const proposal =
        attempt.given === null
          ? this.#propose(id, request, owner, attempt)
          : proposalOf(request, id, attempt.given);
      try {
        const facts = {
          id,
          profiles,
          mtuBytes,
          netns,
          bootId,
          now: now(),
          given: attempt.given,
          book: ipam.book,
        };
        endpoint = endpointRecord(request, proposal, facts);
        refuseUnpublishable(endpoint, endpoint.portMappings);
        refuseSmallMtu(endpoint);
        const published = planPublish(ipam.book.ports, { node, id, owner }, endpoint.portMappings);
        attempt.onPlan?.(endpoint);
        const compares: Compare[] = [...proposal.compares, ...published.compares, { kind: 'absent', key }];
        const writes: Write[] = [
          ...proposal.writes,
          ...published.writes,
          { kind: 'put', key, value: endpoint as unknown as Json },
        ];
        if (ownProfile !== null && !picture.hasProfile(ownProfile)) {
          const value = profileRecord(newProfile(ownProfile)) as unknown as Json;
          compares.push({ kind: 'absent', key: profileKey(ownProfile) });
          writes.push({ kind: 'put', key: profileKey(ownProfile), value });
        }
        return { compares, writes, settle: () => proposal.settle() };
      } catch (error) {
        // Nobody else would get them for as long as this process runs.
        proposal.settle();
        throw error;
      }
    };
    const commit = () => ipam.commit(plan, owner.tenant, { flushed: 'soon' });
    // A runtime that ends a container here and starts another there does not wait for the watches; what is refused cut off stays refused.
    await lookTwice(ipam, commit, undefined, () => ipam.catchUp().catch(() => false));
    if (endpoint === undefined) throw new NetctlError('BUG', `endpoint ${id} was committed but not planned`);
    if (endpoint.kind === 'routed' || endpoint.kind === 'handed')
      for (const address of endpoint.addresses) wirings.routed.ensureForwarding(familyOf(address));
    for (const profile of profiles) {
      if (!picture.hasProfile(profile))
        logger.warn({ endpoint: id, profile }, 'profile does not exist: it denies everything');
    }
    return endpoint;
  }

  /** The addresses of an endpoint that was entered without. */
  async complete(id: string, bare: Endpoint, given: readonly GivenAddress[]): Promise<Endpoint> {
    const { ipam, node, endpoints } = this.#parts;
    let endpoint = bare;
    const key = endpointKey(node, id);
    await ipam.commit(
      () => {
        const known = endpoints.get(id);
        if (known === undefined)
          throw new NetctlError('CONFLICT', `endpoint ${id} was removed while its address was asked for`);
        endpoint = withAddresses(known.value, given);
        refuseUnpublishable(endpoint, endpoint.portMappings);
        return {
          compares: [{ kind: 'modified', key, revision: known.modified }],
          writes: [{ kind: 'put', key, value: endpoint as unknown as Json }],
        };
      },
      null,
      { flushed: 'soon' },
    );
    return endpoint;
  }

  /** Why a container with no wishes of its own would get no address now, or null; tried on the book alone. */
  noAddressFor({ kind, pools }: AddressWish): string | null {
    const { ipam, node, now, clusterTrouble } = this.#parts;
    if (!ipam.book.pools().some(([, pool]) => !pool.disabled))
      return 'there is no enabled pool: add one with `netctl pool add CIDR`';
    const owner = { tenant: 'default', app: 'status', instance: 'status' };
    try {
      const trial = { node, endpoint: 'status', owner, kind, pools, addresses: [], mac: null, now: now() };
      const { addresses, settle } = ipam.assigner.propose(trial);
      settle();
      const trouble = clusterTrouble();
      if (trouble === null || addresses.every((address) => this.#isInOwnBlock(address))) return null;
      return `no block of this node has a free address, and etcd, which gives new ones, is out of reach: ${trouble}`;
    } catch (error) {
      return asNetctlError(error).message;
    }
  }

  #isInOwnBlock(address: Address): boolean {
    const { ipam, node } = this.#parts;
    const view = ipam.book.viewOf(address);
    return view !== undefined && ipam.book.blockAt(view.pool, address)?.value.node === node;
  }

  /** One transaction gives back the addresses and forgets the endpoint; its policy members go with it. */
  async leave(id: string, endpoint: Endpoint, used: boolean): Promise<void> {
    const { ipam, node, now, policy, endpoints, logger } = this.#parts;
    await ipam.commit(
      () => {
        const known = endpoints.get(id);
        if (known === undefined) return { compares: [], writes: [] };
        const release = planRelease(ipam.book, id, endpoint.addresses, now(), used);
        const key = endpointKey(node, id);
        return {
          compares: [...release.compares, { kind: 'modified', key, revision: known.modified }],
          writes: [...release.writes, { kind: 'delete', key }],
        };
      },
      null,
      { flushed: 'soon' },
    );
    // The link is gone, so members that linger do no harm; the dataplane tries again by itself.
    await policy.flush().catch((error: unknown) => {
      logger.warn(
        { endpoint: id, error: String(error) },
        'policy of a detached endpoint is not yet out of the kernel',
      );
    });
    await ipam.flushed();
  }

  #propose(id: string, request: AttachRequest, owner: Owner, { skip }: Attempt): Proposal {
    const { ipam, node, now } = this.#parts;
    return ipam.assigner.propose({
      ...request,
      kind: this.#poolKind(request),
      node,
      endpoint: id,
      container: request.containerId,
      owner,
      skip,
      ttlSeconds: request.retainSeconds,
      now: now(),
    });
  }

  /** Another plugin's interface may be of either kind: that of the first pool that was asked for. */
  #poolKind({ macvlan, foreignLink, pools }: AttachRequest): Pool['kind'] {
    if (macvlan !== null) return 'macvlan';
    const [first] = pools;
    if (foreignLink === null || first === undefined) return 'routed';
    return this.#parts.ipam.book.pool(first)?.kind ?? 'routed';
  }
}

/** The kernel switches IPv6 off on such an interface. */
function refuseSmallMtu({ kind, mtuBytes, addresses }: Endpoint): void {
  const address = addresses.find((each) => familyOf(each) === 6);
  if (kind !== 'foreign' && address !== undefined && mtuBytes < leastMtu6)
    throw invalid('mtu', mtuBytes, `at least ${leastMtu6} for an endpoint with an IPv6 address (${address})`);
}

function ownerOf({ owner, network, containerId }: AttachRequest): Owner {
  return owner ?? { tenant: 'default', app: network.slice(0, 128), instance: containerId.slice(0, 128) };
}

/** Without any, the one named like the network; none where there is nothing to enforce them on. */
function profilesOf({ profiles, network, foreignLink }: AttachRequest): string[] {
  if (foreignLink?.hostInterface === null) return [];
  return profiles.length > 0 ? [...new Set(profiles)] : [parseName(network, ownProfile)];
}
