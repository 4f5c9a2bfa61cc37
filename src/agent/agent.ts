/**
 * The agent: the graph of its parts, an orderly start and stop, and the loop that keeps the kernel right in between.
 *
 *   start:  store in sync → node record → policy in the kernel → unknown links judged → links and routes repaired → ready
 *   run:    every change of the store → Picture → PolicyDataplane.flush            (movement 2)
 *           links that vanish, and every `resyncSeconds` → read back, diff, repair
 *           every second → cooled-down addresses freed, unused policy structure retired
 *   stop:   no new requests → running ones end → store closed; the kernel is left as it is
 *
 * In: the ports and the configuration. Out: an Attacher for the protocol fronts, status. Never: a kernel write before in-sync.
 */

import { Backends } from '../dataplane/choose-backend.ts';
import { readCounters } from '../dataplane/endpoint-counters.ts';
import { EndpointWiring } from '../dataplane/endpoint-wiring.ts';
import { ForeignWiring } from '../dataplane/foreign-wiring.ts';
import { HandedWiring } from '../dataplane/handed-wiring.ts';
import { JointPolicy } from '../dataplane/joint-policy.ts';
import { MacvlanPolicy } from '../dataplane/macvlan-policy.ts';
import { MacvlanWiring } from '../dataplane/macvlan-wiring.ts';
import { PolicyDataplane } from '../dataplane/policy-dataplane.ts';
import { RateLimiter } from '../dataplane/rate-limits.ts';
import type { Wirings } from '../dataplane/wirings.ts';
import { AddressBook } from '../ipam/address-book.ts';
import { defaultCollectOptions } from '../ipam/collect.ts';
import { Collection, ownEvidence } from '../ipam/collection.ts';
import { Ipam } from '../ipam/ipam.ts';
import type { Clock } from '../lib/clock.ts';
import { asNetctlError } from '../lib/errors.ts';
import { inTime } from '../lib/in-time.ts';
import type { Logger } from '../lib/logger.ts';
import type { Bird } from '../linux/bird.ts';
import type { Linux, NetnsIdentity } from '../linux/ports.ts';
import { firstHostIndex, hostInterfaceName } from '../model/attachment.ts';
import type { Address } from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';
import { PolicyEngine } from '../policy/engine.ts';
import type { Revision, Store } from '../store/store.ts';
import { Syncer } from '../store/syncer.ts';
import { Attachments, type AttachParts } from './attach.ts';
import { Bgp } from './bgp.ts';
import { type Config, nodeAddresses } from './config.ts';
import { ConnectionFlush, type FlushMark } from './connection-flush.ts';
import { EndpointTable } from './endpoint-table.ts';
import { NodeRecord } from './node-record.ts';
import { Periodic } from './periodic.ts';
import { Picture } from './picture.ts';
import { PolicyGuard } from './policy-guard.ts';
import { policyOptions } from './policy-options.ts';
import { agentStatus, type Replication } from './status.ts';
import { Upkeep } from './upkeep.ts';
import { hasMoved, livesAway } from './whereabouts.ts';

export interface AgentParts {
  readonly config: Config;
  readonly version: string;
  readonly bootId: string;
  readonly store: Store;
  readonly linux: Linux;
  readonly bird: Bird;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Gives addresses back to the IPAM plugin that gave them. */
  readonly releaseDelegate: AttachParts['releaseDelegate'];
  readonly flushMark: FlushMark;
  /** Why the hosts' common store cannot be asked, or null (also where there is none). */
  readonly clusterTrouble: AttachParts['clusterTrouble'];
  readonly diskRefusal: AttachParts['diskRefusal'];
}

export class Agent {
  readonly #parts: AgentParts;
  readonly #book = new AddressBook();
  /** The verbs of address management, for the API. */
  readonly ipam: Ipam;
  /** Looks for leaked addresses, for the API. */
  readonly collection: Collection;
  readonly #endpoints = new EndpointTable();
  readonly #policy: PolicyDataplane;
  readonly #macvlan: MacvlanPolicy;
  readonly #allPolicy: JointPolicy;
  readonly #guard: PolicyGuard;
  readonly #engine: PolicyEngine;
  readonly #connections: ConnectionFlush;
  readonly #wiring: EndpointWiring;
  readonly #bgp: Bgp;
  readonly #wirings: Wirings;
  readonly #limiter: RateLimiter;
  readonly #picture: Picture;
  readonly #syncer: Syncer;
  readonly #startedAt: Date;
  readonly #synced = Promise.withResolvers<void>();
  #attachments: Attachments | null = null;
  #stopWatchingLinks: () => void = () => undefined;
  readonly #periodic: Periodic;
  readonly #nodeRecord: NodeRecord;
  #upkeep: Upkeep | null = null;
  #nextPolicyRetry = 0;

  constructor(parts: AgentParts) {
    const { config, store, linux, clock, logger } = parts;
    this.#parts = parts;
    this.#startedAt = new Date(clock.now());
    this.#nodeRecord = new NodeRecord({ ...parts, startedAt: this.#startedAt });
    const backends = new Backends(linux, config.dataplane, logger);
    this.#policy = new PolicyDataplane(backends.make('nftables'), logger);
    const hostAddresses = nodeAddresses(config);
    this.#macvlan = new MacvlanPolicy(
      linux,
      {
        ...{ ...config.dataplane, ...parts, node: config.node.name, hostAddresses },
        requests: () => this.#attachments?.running ?? 0,
      },
      logger,
    );
    this.#allPolicy = new JointPolicy(this.#policy, this.#macvlan);
    this.#periodic = new Periodic(clock, (error) => this.#report('periodic work', error));
    this.#engine = new PolicyEngine(policyOptions(config), this.#allPolicy);
    const report = (error: unknown): void => this.#report('policy', error);
    this.#guard = new PolicyGuard({ ...parts, backends, policy: this.#policy, engine: this.#engine, report });
    const isAway = (address: Address): boolean => livesAway(this.#book, address, config.node.name);
    this.#wiring = new EndpointWiring(linux, isAway, logger);
    this.#wirings = {
      routed: this.#wiring,
      macvlan: new MacvlanWiring(
        linux,
        this.#macvlan,
        { node: config.node.name, addresses: hostAddresses },
        clock,
        logger,
      ),
      foreign: new ForeignWiring(linux),
      handed: new HandedWiring(linux, this.#wiring, clock),
    };
    this.#limiter = new RateLimiter(linux);
    this.#bgp = new Bgp(parts);
    this.#connections = new ConnectionFlush({
      engine: this.#engine,
      policy: this.#allPolicy,
      endpoints: this.#endpoints,
      linux,
      hostAddresses: () => this.#wiring.hostAddresses(),
      mark: parts.flushMark,
      logger,
    });
    this.#policy.watchRepairs(() => this.#connections.onRepaired());
    this.#picture = new Picture({
      node: config.node.name,
      bgp: this.#bgp,
      book: this.#book,
      endpoints: this.#endpoints,
      engine: this.#engine,
      logger,
      onFamily: (family) => this.#afterSync(() => this.#wiring.ensureForwarding(family)),
      onOwnEndpoint: (id, before, now) => this.#onOwnEndpoint(id, before, now),
      onOwnBlock: (block, present) => this.#afterSync(() => this.#wiring.setBlockRoute(block, present)),
      onAddressMoved: (address, id) => this.#onAddressMoved(address, id),
    });
    this.ipam = new Ipam({ ...parts, picture: this.#picture, book: this.#book, node: config.node.name });
    this.collection = new Collection({
      ...parts,
      options: { ...defaultCollectOptions, graceMilliseconds: config.ipam.collectGraceSeconds * 1000 },
      steadyNow: () => this.ipam.steadyNow(),
      evidence: async () => {
        const links = await this.#wiring.links();
        const stands = (endpoint: string): boolean => links.has(hostInterfaceName(endpoint));
        return ownEvidence(config.node.name, this.#book.addresses(), stands);
      },
    });
    this.#syncer = new Syncer({
      store,
      prefix: '',
      clock,
      listener: {
        onUpdates: (updates, revision) => this.#onUpdates(updates, revision),
        onInSync: () => this.#synced.resolve(),
        onStatus: (status) => {
          if (!status.inSync && this.#attachments !== null) {
            logger.warn({ reason: status.reason }, 'not in sync with the store');
          }
        },
      },
    });
  }

  /** Resolves when requests can be served. What was right in the kernel before is as it was. */
  async start(): Promise<Attachments> {
    const { config, linux, logger } = this.#parts;
    await this.#synced.promise;
    await this.#nodeRecord.keep(false);
    await this.#wiring.learnUplinks();
    for (const [, pool] of this.#book.pools()) this.#wiring.ensureForwarding(pool.cidr.includes(':') ? 6 : 4);
    await this.#guard.start();
    await this.#macvlan.start();
    const attachments = new Attachments({
      ...this.#parts,
      node: config.node.name,
      mtuBytes:
        config.dataplane.mtuBytes || (await this.#wiring.mtuOf(config.node.interface, nodeAddresses(config))),
      picture: this.#picture,
      ipam: this.ipam,
      endpoints: this.#endpoints,
      wirings: this.#wirings,
      limiter: this.#limiter,
      policy: this.#allPolicy,
      now: () => new Date(this.#parts.clock.now()),
    });
    this.#attachments = attachments;
    const upkeep = new Upkeep({
      ...this.#parts,
      node: config.node.name,
      book: this.#book,
      endpoints: this.#endpoints,
      attachments,
      wirings: this.#wirings,
      limiter: this.#limiter,
      ipam: this.ipam,
      confirmMassDeletion: config.dataplane.confirmMassDeletion,
      isBroken: (key) => this.#picture.broken().has(key),
    });
    this.#upkeep = upkeep;
    // What our own pairs change is our doing.
    this.#stopWatchingLinks = linux.watchLinks((event) => upkeep.onLinkEvent(event), firstHostIndex);
    await upkeep.run();
    await attachments.flushCooling();
    await this.#connections.start();
    await attachments.expire();
    await this.#bgp.start();
    this.#periodic.every(1000, () => this.#housekeep(attachments));
    this.#periodic.every(config.dataplane.resyncSeconds * 1000, () => this.#resync());
    if (config.ipam.collectSeconds > 0)
      this.#periodic.every(config.ipam.collectSeconds * 1000, () => this.#collect());
    logger.info({ node: config.node.name, endpoints: this.#endpoints.size }, 'ready');
    return attachments;
  }

  /** Ends in order; the kernel keeps what is there, so containers go on talking. */
  async stop(): Promise<void> {
    this.#periodic.stop();
    this.#stopWatchingLinks();
    this.#guard.stop();
    this.#macvlan.stop();
    this.#upkeep?.stop();
    await this.#attachments?.idle();
    await this.#bgp.stop();
    this.#syncer.stop();
    for (const part of [...Object.values(this.#wirings), this.#limiter]) part.close();
    await this.#parts.store.close();
  }

  /** Resolves when this host's kernel reflects the revision. @throws TRY_AGAIN after 5 s, POLICY when it could not be written */
  async applied(revision: Revision): Promise<void> {
    await inTime(this.#parts.clock, 5000, `revision ${revision} is not in force yet`, async () => {
      await this.#book.reached(revision);
      await this.#allPolicy.everywhere();
      await this.#connections.done;
      await this.#attachments?.limited;
    });
  }

  /** What went through the interfaces of this node's endpoints. */
  counters() {
    return readCounters(
      this.#parts.linux,
      [...this.#endpoints.all()].map(([id, { value }]) => [id, value] as const),
    );
  }

  enforcement() {
    return this.#macvlan.enforcement(this.#endpoints.all(), this.#policy.status.inSync);
  }

  /** Endpoints of this node in the namespace. */
  endpointsIn(netns: NetnsIdentity) {
    return this.#endpoints.inNetns(netns);
  }

  /** How often each rule of the profile or policy applied on this host. @throws KernelError */
  ruleCounts(kind: 'profile' | 'policy', name: string) {
    return this.#allPolicy.countsOf({ kind, name }, this.#engine.chains());
  }

  /** @param replication what the store says about the cluster; null for a host alone @param refusal why it did not take the last change */
  status(replication: Replication | null = null, refusal: string | null = null) {
    const { config, version } = this.#parts;
    return agentStatus({
      version,
      startedAt: this.#startedAt,
      storeType: config.datastore.type,
      sync: this.#syncer.status(),
      revision: this.#book.revision,
      replication,
      refusal,
      policy: {
        ...this.#policy.status,
        reason: this.#guard.reason,
        notices: [...this.#guard.notices, ...this.#macvlan.notices],
      },
      iptables: this.#parts.linux.iptables.backend,
      endpoints: this.#endpoints.size,
      missing: this.#upkeep?.missing ?? new Map(),
      broken: this.#picture.broken(),
      heldLinks: this.#upkeep?.held ?? [],
      flushedConnections: this.#connections.count,
    });
  }

  /** The state of BGP, asked of BIRD; null where it is switched off. */
  bgpStatus() {
    return this.#bgp.status();
  }

  /** What in the settings of this host's kernel stands in the way of routes. @throws KernelError */
  hostNotices() {
    return this.#wiring.hostNotices();
  }

  #onUpdates(updates: Parameters<Picture['apply']>[0], revision: Revision): void {
    this.#connections.around(updates, () => this.#picture.apply(updates, revision));
    this.#book.onRevision(revision);
    // What changed is in the kernel when flush resolves; those who must know wait for a flush of their own.
    if (this.#attachments !== null)
      this.#allPolicy.flush().catch((error: unknown) => this.#report('policy', error));
  }

  /** Before the start there is no kernel write; the start itself reads the picture. */
  #afterSync(act: () => void): void {
    if (this.#attachments === null) return;
    try {
      act();
    } catch (error) {
      this.#report('routes', error);
    }
  }

  /** What requests do themselves is theirs; the rest came through the store: an operator, a claim that is gone, a lost answer. */
  #onOwnEndpoint(id: string, before: Endpoint | null, now: Endpoint | null): void {
    if (now !== null) this.#afterSync(() => this.#wiring.loosenReversePath(now));
    this.#macvlan.onEndpoint(before, now);
    const attachments = this.#attachments;
    if (attachments === null) return;
    attachments.noticeChange(id, before, now);
    if (attachments.isBusy(id)) return;
    if (now !== null) {
      if (before === null) this.#upkeep?.schedule();
      return;
    }
    if (before === null) return;
    this.#parts.logger.warn(
      { endpoint: id, containerId: before.containerId },
      'endpoint is gone from the store: tearing it down',
    );
    attachments.tearDown(id, before).catch((error: unknown) => this.#report('tear-down', error));
  }

  /** At once, this host neither answers for the address nor announces it any more; then its endpoint gives way. */
  #onAddressMoved(address: Address, id: string): void {
    if (this.#attachments === null || this.#attachments.isBusy(id)) return;
    if (hasMoved(this.#book, address, this.#parts.config.node.name))
      this.#wiring.forgetAddress(address).catch((error: unknown) => this.#report('routes', error));
    this.#upkeep?.schedule();
  }

  async #collect(): Promise<void> {
    const { held } = await this.collection.run({ dryRun: false, confirmed: false });
    if (held !== null) this.#parts.logger.error({ held }, 'leaked addresses are not collected');
  }

  async #resync(): Promise<void> {
    await this.#guard.look();
    await this.#policy.resync();
    await this.#macvlan.resync().catch((error: unknown) => this.#report('policy in containers', error));
    await this.#upkeep?.run();
    await this.#bgp.resync();
  }

  async #housekeep(attachments: Attachments): Promise<void> {
    // An operator may have removed the node: what it had is gone, and it goes on as a new one.
    const { config, diskRefusal } = this.#parts;
    await this.#nodeRecord.keep(this.#book.nodes().has(config.node.name) && diskRefusal() === null);
    await attachments.expire();
    this.#upkeep?.watchWires();
    const { retryInMs } = this.#policy.status;
    if (retryInMs === null) {
      this.#engine.retire();
      await this.#allPolicy.flush();
    } else if (this.#parts.clock.now() >= this.#nextPolicyRetry) {
      this.#nextPolicyRetry = this.#parts.clock.now() + retryInMs;
      await this.#policy.resync();
    }
  }

  #report(what: string, error: unknown): void {
    this.#parts.logger.error({ error: asNetctlError(error).message }, `${what}: failed, will be tried again`);
  }
}
