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

import { chooseBackend } from '../dataplane/choose-backend.ts';
import { EndpointWiring } from '../dataplane/endpoint-wiring.ts';
import { ForeignWiring } from '../dataplane/foreign-wiring.ts';
import { MacvlanWiring } from '../dataplane/macvlan-wiring.ts';
import { PolicyDataplane } from '../dataplane/policy-dataplane.ts';
import type { Wirings } from '../dataplane/wirings.ts';
import { AddressBook } from '../ipam/address-book.ts';
import { defaultCollectOptions } from '../ipam/collect.ts';
import { Collection, ownEvidence } from '../ipam/collection.ts';
import { Ipam } from '../ipam/ipam.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import { asNetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import type { Linux } from '../linux/ports.ts';
import { hostInterfaceName } from '../model/attachment.ts';
import type { Address } from '../model/ip.ts';
import { nodeKey } from '../model/keys.ts';
import { type ProtocolPort, parseProtocolPort } from '../model/protocol-port.ts';
import type { Endpoint, Node } from '../model/records.ts';
import { PolicyEngine } from '../policy/engine.ts';
import type { Json, Revision, Store } from '../store/store.ts';
import { Syncer } from '../store/syncer.ts';
import { Attachments, type AttachParts } from './attach.ts';
import type { Config } from './config.ts';
import { EndpointTable } from './endpoint-table.ts';
import { Picture } from './picture.ts';
import { agentStatus, type Replication } from './status.ts';
import { Upkeep } from './upkeep.ts';
import { Why, type WhyAnswer, type WhyQuery } from './why.ts';

export interface AgentParts {
  readonly config: Config;
  readonly version: string;
  readonly bootId: string;
  readonly store: Store;
  readonly linux: Linux;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Gives addresses back to the IPAM plugin that gave them. */
  readonly releaseDelegate: AttachParts['releaseDelegate'];
}

/** How long a change may take to the kernel before the API stops waiting for it. */
const appliedDeadlineMilliseconds = 5000;

/** From the first change of our policy by others to the repair. */
const foreignChangeMilliseconds = 100;

export class Agent {
  readonly #parts: AgentParts;
  readonly #book = new AddressBook();
  /** The verbs of address management, for the API. */
  readonly ipam: Ipam;
  /** Looks for leaked addresses, for the API. */
  readonly collection: Collection;
  readonly #endpoints = new EndpointTable();
  readonly #policy: PolicyDataplane;
  readonly #engine: PolicyEngine;
  readonly #wiring: EndpointWiring;
  readonly #wirings: Wirings;
  readonly #picture: Picture;
  readonly #syncer: Syncer;
  readonly #startedAt: Date;
  readonly #synced = Promise.withResolvers<void>();
  readonly #waiting = new Set<{ revision: Revision; resolve: () => void }>();
  #revision: Revision = 0;
  #attachments: Attachments | null = null;
  #stopWatchingLinks: () => void = () => undefined;
  #stopWatchingPolicy: () => void = () => undefined;
  #timers: Timer[] = [];
  #upkeep: Upkeep | null = null;
  #policyCheckScheduled = false;
  #nextPolicyRetry = 0;
  #isRegistered = false;
  #stopped = false;

  constructor(parts: AgentParts) {
    const { config, store, linux, clock, logger } = parts;
    this.#parts = parts;
    this.#startedAt = new Date(clock.now());
    this.#policy = new PolicyDataplane(chooseBackend(linux, config.dataplane.policy, logger), logger);
    this.#engine = new PolicyEngine(policyOptions(config), this.#policy);
    this.#wiring = new EndpointWiring(linux, logger);
    this.#wirings = {
      routed: this.#wiring,
      macvlan: new MacvlanWiring(linux, nodeAddresses(config), clock, logger),
      foreign: new ForeignWiring(linux),
    };
    this.#picture = new Picture({
      node: config.node.name,
      book: this.#book,
      endpoints: this.#endpoints,
      engine: this.#engine,
      logger,
      onFamily: (family) => this.#afterSync(() => this.#wiring.ensureForwarding(family)),
      onOwnEndpoint: (id, before, now) => this.#onOwnEndpoint(id, before, now),
      onAddressTaken: (id) => this.#attachments?.isBusy(id) === false && this.#upkeep?.schedule(),
      onOwnBlock: (block, present) => this.#afterSync(() => this.#wiring.setBlockRoute(block, present)),
    });
    this.ipam = new Ipam({
      store,
      picture: this.#picture,
      book: this.#book,
      node: config.node.name,
      clock,
    });
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
    await this.#registerNode();
    for (const [, pool] of this.#book.pools()) this.#wiring.ensureForwarding(pool.cidr.includes(':') ? 6 : 4);
    this.#stopWatchingPolicy = this.#policy.watch(() => this.#onForeignPolicyChange());
    await this.#policy.start();
    const attachments = new Attachments({
      ...this.#parts,
      node: config.node.name,
      mtuBytes:
        config.dataplane.mtuBytes || (await this.#wiring.mtuOf(config.node.interface, nodeAddresses(config))),
      picture: this.#picture,
      ipam: this.ipam,
      endpoints: this.#endpoints,
      wirings: this.#wirings,
      policy: this.#policy,
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
      confirmMassDeletion: config.dataplane.confirmMassDeletion,
    });
    this.#upkeep = upkeep;
    this.#stopWatchingLinks = linux.watchLinks((event) => upkeep.onLinkEvent(event));
    await upkeep.run();
    await attachments.flushCooling();
    await attachments.expire();
    this.#every(1000, () => this.#housekeep(attachments));
    this.#every(config.dataplane.resyncSeconds * 1000, () => this.#resync());
    if (config.ipam.collectSeconds > 0) this.#every(config.ipam.collectSeconds * 1000, () => this.#collect());
    logger.info({ node: config.node.name, endpoints: this.#endpoints.size }, 'ready');
    return attachments;
  }

  /** Ends in order; the kernel keeps what is there, so containers go on talking. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const timer of this.#timers) timer.cancel();
    this.#stopWatchingLinks();
    this.#stopWatchingPolicy();
    this.#upkeep?.stop();
    await this.#attachments?.idle();
    this.#syncer.stop();
    for (const wiring of Object.values(this.#wirings)) wiring.close();
    await this.#parts.store.close();
  }

  /** Resolves when this host's kernel reflects the revision. @throws TRY_AGAIN after 5 s, POLICY when it could not be written */
  async applied(revision: Revision): Promise<void> {
    await this.#seen(revision);
    await this.#policy.flush();
  }

  /** @throws NOT_FOUND, CONFLICT, INVALID */
  async why(query: WhyQuery): Promise<WhyAnswer> {
    const { config, store } = this.#parts;
    const { entries } = await store.list('');
    return new Why(entries, config.node.name, policyOptions(config)).answer(query);
  }

  /** How often each rule of the profile or policy applied on this host. @throws KernelError */
  ruleCounts(kind: 'profile' | 'policy', name: string) {
    return this.#policy.countsOf({ kind, name }, this.#engine.chains());
  }

  /** @param replication what the store says about the cluster; null for a host alone */
  status(replication: Replication | null = null) {
    const { config, version } = this.#parts;
    return agentStatus({
      version,
      startedAt: this.#startedAt,
      storeType: config.datastore.type,
      sync: this.#syncer.status(),
      revision: this.#revision,
      replication,
      policy: this.#policy.status,
      endpoints: this.#endpoints.size,
      missing: this.#upkeep?.missing ?? new Map(),
      broken: this.#picture.broken(),
      heldLinks: this.#upkeep?.held ?? [],
    });
  }

  #onUpdates(updates: Parameters<Picture['apply']>[0], revision: Revision): void {
    this.#picture.apply(updates);
    this.#book.onRevision(revision);
    this.#revision = revision;
    for (const waiter of this.#waiting) if (waiter.revision <= revision) waiter.resolve();
    // What changed is in the kernel when flush resolves; those who must know wait for a flush of their own.
    if (this.#attachments !== null)
      this.#policy.flush().catch((error: unknown) => this.#report('policy', error));
  }

  #seen(revision: Revision): Promise<void> {
    if (this.#revision >= revision) return Promise.resolve();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter = { revision, resolve };
    const timer = this.#parts.clock.setTimer(appliedDeadlineMilliseconds, () =>
      reject(new Error(`revision ${revision} has not arrived`)),
    );
    this.#waiting.add(waiter);
    return promise.finally(() => {
      timer.cancel();
      this.#waiting.delete(waiter);
    });
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

  /** The node's own record is the cluster's to take; a host that is cut off starts without. */
  async #registerNode(): Promise<void> {
    const { config, store, version, logger } = this.#parts;
    const { name, address4, address6, asNumber, interface: link, labels } = config.node;
    const startedAt = this.#startedAt.toISOString();
    const record: Node = { address4, address6, asNumber, interface: link, labels, version, startedAt };
    try {
      await store.transact([], [{ kind: 'put', key: nodeKey(name), value: record as unknown as Json }]);
      this.#isRegistered = true;
    } catch (error) {
      logger.warn({ error: asNetctlError(error).message }, 'the record of this node is not written yet');
    }
  }

  /** What requests do themselves is theirs; the rest came through the store: an operator, a claim that is gone, a lost answer. */
  #onOwnEndpoint(id: string, before: Endpoint | null, now: Endpoint | null): void {
    if (now !== null) this.#afterSync(() => this.#wiring.loosenReversePath(now));
    const attachments = this.#attachments;
    if (attachments === null || attachments.isBusy(id)) return;
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

  async #collect(): Promise<void> {
    const { held } = await this.collection.run({ dryRun: false, confirmed: false });
    if (held !== null) this.#parts.logger.error({ held }, 'leaked addresses are not collected');
  }

  async #resync(): Promise<void> {
    await this.#policy.resync();
    await this.#upkeep?.run();
  }

  /** Many changes at once (a whole rule set is loaded) are one check. */
  #onForeignPolicyChange(): void {
    if (this.#policyCheckScheduled) return;
    this.#policyCheckScheduled = true;
    this.#timers.push(
      this.#parts.clock.setTimer(foreignChangeMilliseconds, () => {
        this.#policyCheckScheduled = false;
        this.#policy.resync().catch((error: unknown) => this.#report('policy', error));
      }),
    );
  }

  async #housekeep(attachments: Attachments): Promise<void> {
    // An operator may have removed the node: what it had is gone, and it goes on as a new one.
    if (!this.#isRegistered || !this.#book.nodes().has(this.#parts.config.node.name))
      await this.#registerNode();
    await attachments.expire();
    const { retryInMs } = this.#policy.status;
    if (retryInMs === null) {
      this.#engine.retire();
      await this.#policy.flush();
    } else if (this.#parts.clock.now() >= this.#nextPolicyRetry) {
      this.#nextPolicyRetry = this.#parts.clock.now() + retryInMs;
      await this.#policy.resync();
    }
  }

  #every(milliseconds: number, task: () => Promise<void>): void {
    const run = (): void => {
      if (this.#stopped) return;
      task()
        .catch((error: unknown) => this.#report('periodic work', error))
        .finally(() => {
          if (!this.#stopped) this.#timers[slot] = this.#parts.clock.setTimer(milliseconds, run);
        });
    };
    const slot = this.#timers.push(this.#parts.clock.setTimer(milliseconds, run)) - 1;
  }

  #report(what: string, error: unknown): void {
    this.#parts.logger.error({ error: asNetctlError(error).message }, `${what}: failed, will be tried again`);
  }
}

function nodeAddresses({ node: { address4, address6 } }: Config): Address[] {
  return [address4, address6].filter((address) => address !== null);
}

function policyOptions({ dataplane }: Config) {
  const ports = (key: 'failsafeInbound' | 'failsafeOutbound'): ProtocolPort[] =>
    dataplane[key].map((text) => parseProtocolPort(text, `dataplane.${key}`));
  const failsafe = { inbound: ports('failsafeInbound'), outbound: ports('failsafeOutbound') };
  return { endpointToHost: dataplane.endpointToHost, failsafe };
}
