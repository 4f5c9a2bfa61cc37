/**
 * BGP of this host: gathers what the store says about it, works out what BIRD should do, and hands that to the reconciler.
 *
 *   Picture ── nodes, peers, filters, pools, settings ──► Bgp ── compileBgp (pure) ──► BgpReconciler ──► BIRD
 *
 * In: records, in any order, repeated. Out: BIRD as it should be, a status. Never: a pass before the picture is complete; a
 * configuration for each of many records that came together.
 */
import { compileBgp } from '../bgp/compile.ts';
import type { BgpNode } from '../bgp/config.ts';
import { parseBfdSessions, parseLearned, parseSessions, parseStatus } from '../bgp/status.ts';
import { BgpReconciler } from '../dataplane/bgp-reconciler.ts';
import { type BirdAnswers, bgpStatus } from '../dataplane/bgp-status.ts';
import type { Clock, Timer } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { Bird } from '../linux/bird.ts';
import type { Linux, Routing } from '../linux/ports.ts';
import { announcedProtocol } from '../linux/route-protocols.ts';
import { type BgpFilter, type BgpPeer, type BgpSettings, bgpSettingsSchema } from '../model/bgp.ts';
import { type Address, type Cidr, cidrContains, networkOf } from '../model/ip.ts';
import type { Pool } from '../model/records.ts';
import type { Config } from './config.ts';

/** From the first change to the pass that regards it and those that followed. */
const gatherMilliseconds = 20;

export interface BgpParts {
  readonly config: Pick<Config, 'node' | 'bgp'>;
  readonly bird: Bird;
  readonly linux: Linux;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Where the picture puts what it finds. */
export type BgpRecords = Pick<Bgp, 'onNode' | 'onPeer' | 'onFilter' | 'onPool' | 'onSettings'>;

export class Bgp {
  readonly #parts: BgpParts;
  readonly #host: Routing;
  readonly #reconciler: BgpReconciler;
  readonly #nodes = new Map<string, BgpNode>();
  readonly #peers = new Map<string, BgpPeer>();
  readonly #filters = new Map<string, BgpFilter | null>();
  readonly #pools = new Map<string, Cidr>();
  #settings: BgpSettings = bgpSettingsSchema.parse({});
  #isStarted = false;
  /** This node has had a record, at least. */
  #isKnown = false;
  #gathering: Timer | null = null;
  #compiling: Promise<void> = Promise.resolve();
  #others: readonly number[] = [];

  constructor(parts: BgpParts) {
    this.#parts = parts;
    this.#host = parts.linux.openRouting();
    this.#reconciler = new BgpReconciler({ ...parts, host: this.#host });
  }

  onNode(name: string, node: BgpNode | null): void {
    if (name === this.#parts.config.node.name && node !== null) this.#isKnown = true;
    set(this.#nodes, name, node);
    this.#changed();
  }

  onPeer(name: string, peer: BgpPeer | null): void {
    set(this.#peers, name, peer);
    this.#changed();
  }

  /** @param filter `broken`: there is one that cannot be read */
  onFilter(name: string, filter: BgpFilter | 'broken' | null): void {
    if (filter === 'broken') this.#filters.set(name, null);
    else set(this.#filters, name, filter);
    this.#changed();
  }

  onPool(name: string, pool: Pool | null): void {
    set(this.#pools, name, pool?.kind === 'routed' ? pool.cidr : null);
    this.#changed();
  }

  onSettings(settings: BgpSettings | null): void {
    this.#settings = settings ?? bgpSettingsSchema.parse({});
    this.#changed();
  }

  /** To be called once the picture is complete. */
  async start(): Promise<void> {
    this.#isStarted = true;
    await this.resync();
  }

  /** Looks again at the host's addresses, at BIRD, and for other BIRDs. */
  async resync(): Promise<void> {
    if (!this.#isStarted) return;
    this.#others = this.#parts.config.bgp.enabled ? this.#parts.bird.others() : [];
    await this.#compile();
  }

  async status() {
    const announced = await this.#host.routes({ protocol: announcedProtocol });
    const { state } = this.#reconciler;
    if (!this.#parts.config.bgp.enabled) return null;
    const prefixes = announced.map(({ destination }) => destination);
    return bgpStatus(state, await this.#answers(), prefixes, this.#others);
  }

  /** Resolves when what is known has been worked out, and BIRD told or given up for now. */
  async settled(): Promise<void> {
    await this.#compiling;
    await this.#reconciler.idle();
  }

  /** BIRD goes on. */
  async stop(): Promise<void> {
    this.#gathering?.cancel();
    await this.#reconciler.close();
    this.#host.close();
  }

  #changed(): void {
    if (!this.#isStarted || this.#gathering !== null) return;
    this.#gathering = this.#parts.clock.setTimer(gatherMilliseconds, () => {
      this.#gathering = null;
      this.#compiling = this.#compile().catch((error: unknown) => {
        this.#parts.logger.error({ error: (error as Error).message }, 'bgp: failed, will be tried again');
      });
    });
  }

  async #compile(): Promise<void> {
    const { node, bgp } = this.#parts.config;
    if (!bgp.enabled) {
      this.#reconciler.want(null);
      return;
    }
    // A store that has never heard of this node (a new one, and the cluster out of reach) says nothing about its peers.
    if (!this.#isKnown) return;
    const networks = (await this.#host.addresses()).map(({ address, prefixLength }) =>
      networkOf(address, prefixLength),
    );
    this.#reconciler.want(
      compileBgp({
        node: node.name,
        nodes: this.#nodesWithOwn(),
        peers: this.#peers,
        filters: this.#filters,
        settings: this.#settings,
        pools: [...new Set(this.#pools.values())].sort(),
        isOnLink: (address: Address) => networks.some((network) => cidrContains(network, address)),
      }),
    );
  }

  /** What this agent is started with holds before its record in the store says so; a node that was removed stays so. */
  #nodesWithOwn(): ReadonlyMap<string, BgpNode> {
    const { node, bgp } = this.#parts.config;
    const known = this.#nodes.get(node.name);
    if (known === undefined) return this.#nodes;
    const { address4, address6, asNumber, labels } = node;
    return new Map(this.#nodes).set(node.name, {
      ...known,
      ...{ address4, address6, asNumber, labels },
      bgpPort: bgp.listenPort,
    });
  }

  async #answers(): Promise<BirdAnswers | null> {
    const ask = (command: string) => this.#reconciler.ask(command);
    try {
      const [status, sessions, bfd] = await Promise.all([
        ask('show status'),
        ask('show protocols all'),
        ask('show bfd sessions'),
      ]);
      if (status === null || sessions === null || bfd === null) return null;
      return {
        status: parseStatus(status),
        sessions: parseSessions(sessions),
        learned: parseLearned(sessions),
        bfd: parseBfdSessions(bfd),
        pid: this.#parts.bird.pid(),
      };
    } catch {
      // It ended while it was asked.
      return null;
    }
  }
}

function set<T>(map: Map<string, T>, name: string, value: T | null): void {
  if (value === null) map.delete(name);
  else map.set(name, value);
}
