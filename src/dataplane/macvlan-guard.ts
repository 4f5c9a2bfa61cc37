/**
 * The guard on the devices that macvlans sit on, in the host: which MAC may have which addresses, whatever a container does to its own
 * rules. Without connections: what it lets pass, the container's policy judges.
 *
 *     admit (before the link is up)   MAC and addresses belong together
 *     settle (it is in use)           nobody else may claim the addresses; before, whoever has one must be heard
 *     close (it goes, or is refused)  nothing from it, nothing to it
 *
 * In: macvlan endpoints. Out: one table of the link layer per family, a chain per parent. Never: a frame judged that is neither from nor
 * to a MAC of ours and claims no address of ours; a table while there is no endpoint.
 */
import { KeyedQueue } from '../lib/keyed-queue.ts';
import type { Logger } from '../lib/logger.ts';
import { SharedWork, type SharedWorkOptions } from '../lib/shared-work.ts';
import type { Linux } from '../linux/ports.ts';
import { guardBase, guardChains, guardSetSpecs, guardSets } from '../macvlan/frame-rules.ts';
import { needsLink } from '../model/delegate.ts';
import { type Family, familyOf, hostCidr } from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';
import { setMembers } from '../policy/set-members.ts';
import { frameHook, nameFor, tellFrames } from './frame-table.ts';
import { parentName } from './macvlan-parents.ts';
import { macvlanOf } from './macvlan-wiring.ts';
import { NftBackend } from './nft-backend.ts';
import { NftMembers } from './nft-members.ts';
import { NftReconciler } from './nft-reconciler.ts';
import { PolicyDataplane, type PolicyStatus } from './policy-dataplane.ts';

interface Guarded {
  readonly endpoint: Endpoint;
  isSettled: boolean;
  isClosed: boolean;
}

/** What a table holds for the endpoints; taken together anew each time, so that nothing is counted. */
interface Contents {
  readonly macs: Set<string>;
  readonly claimed: Set<string>;
  readonly closed: Set<string>;
  readonly clients: Set<string>;
  readonly pairs: Set<string>;
}

export class MacvlanGuard {
  readonly #linux: Linux;
  readonly #judgesEgress: () => boolean;
  readonly #logger: Logger;
  readonly #guarded = new Map<string, Guarded>();
  readonly #queue = new KeyedQueue();
  readonly #writing: SharedWork;
  #tables: GuardTables | null = null;
  /** Changes so far, and how many of them the kernel has. */
  #changes = 0;
  #written = 0;

  /**
   * @param judgesEgress whether the kernel judges frames that leave
   * @param together how it shares its writes with others
   */
  constructor(
    linux: Linux,
    judgesEgress: () => boolean,
    together: Omit<SharedWorkOptions, 'work'>,
    logger: Logger,
  ) {
    this.#linux = linux;
    this.#judgesEgress = judgesEgress;
    this.#logger = logger;
    const work = async (): Promise<void> => void (await this.#queue.run('guard', () => this.#write(false)));
    this.#writing = new SharedWork({ ...together, work });
  }

  get status(): PolicyStatus | null {
    return this.#tables?.dataplane.status ?? null;
  }

  isClosed({ hostInterface }: Endpoint): boolean {
    return this.#guarded.get(hostInterface)?.isClosed ?? false;
  }

  /** @throws KernelError */
  admit(endpoint: Endpoint): Promise<void> {
    // The one with the parent's own MAC is alone on it.
    if (macvlanOf(endpoint).mode !== 'passthru') {
      this.#changes++;
      this.#guarded.set(endpoint.hostInterface, { endpoint, isSettled: false, isClosed: false });
    }
    return this.flush();
  }

  settle(endpoint: Endpoint): Promise<void> {
    return this.#note(endpoint, (guarded) => {
      guarded.isSettled = true;
    });
  }

  /** @param isClosed false opens it again */
  close(endpoint: Endpoint, isClosed = true): Promise<void> {
    return this.#note(endpoint, (guarded) => {
      guarded.isClosed = isClosed;
    });
  }

  forget({ hostInterface }: Endpoint): Promise<void> {
    if (this.#guarded.delete(hostInterface)) this.#changes++;
    return this.flush();
  }

  /** The endpoint's record changed, or an agent before this one had it. */
  change(endpoint: Endpoint): void {
    if (macvlanOf(endpoint).mode === 'passthru') return;
    const known = this.#guarded.get(endpoint.hostInterface);
    this.#changes++;
    this.#guarded.set(endpoint.hostInterface, {
      endpoint,
      isSettled: known?.isSettled ?? true,
      isClosed: known?.isClosed ?? false,
    });
  }

  /** Resolves when the guard is as asked, at once where it is: one write for all who ask before it begins. @throws KernelError */
  async flush(): Promise<void> {
    const isInForce = this.#tables?.dataplane.status.inSync ?? true;
    if (this.#written < this.#changes || !isInForce) await this.#writing.ask();
  }

  /** Reads it again and repairs it; removes what an agent before this one has left. Returns what others had changed, in words. @throws KernelError */
  resync(): Promise<string[]> {
    return this.#queue.run('guard', () => this.#write(true));
  }

  #note(endpoint: Endpoint, change: (guarded: Guarded) => void): Promise<void> {
    const guarded = this.#guarded.get(endpoint.hostInterface);
    if (guarded === undefined) return Promise.resolve();
    this.#changes++;
    change(guarded);
    return this.flush();
  }

  async #write(mustRead: boolean): Promise<string[]> {
    const changes = this.#changes;
    const wrong = await this.#bring(mustRead);
    this.#written = changes;
    return wrong;
  }

  async #bring(mustRead: boolean): Promise<string[]> {
    if (this.#guarded.size === 0) {
      if (mustRead) await (this.#tables ?? this.#newTables()).backend.removeAll();
      else this.#tables?.backend.dropAll();
      this.#tables = null;
      return [];
    }
    const isNew = this.#tables === null;
    this.#tables ??= this.#newTables();
    if (isNew && !mustRead) this.#tables.backend.expectNothing();
    this.#tables.tell([...this.#guarded.values()]);
    const { dataplane } = this.#tables;
    if (isNew) await dataplane.start();
    else if (mustRead) return dataplane.resync();
    else await dataplane.flush();
    return [];
  }

  #newTables(): GuardTables {
    return new GuardTables(this.#linux, this.#judgesEgress(), this.#logger);
  }
}

class GuardTables {
  readonly backend: NftBackend;
  readonly dataplane: PolicyDataplane;
  readonly #hasEgress: boolean;
  readonly #tables: readonly GuardTable[];

  constructor(linux: Linux, judgesEgress: boolean, logger: Logger) {
    this.#hasEgress = judgesEgress;
    this.#tables = linux.families.map((family) => new GuardTable(family, linux.families));
    const kernels = this.#tables.map(({ kernel }) => kernel);
    this.backend = new NftBackend({ families: [], nftables: linux.nftables }, undefined, kernels);
    this.dataplane = new PolicyDataplane({ backend: this.backend, other: null }, logger);
  }

  tell(guarded: readonly Guarded[]): void {
    for (const table of this.#tables) table.tell(guarded, this.#hasEgress);
  }
}

class GuardTable {
  readonly kernel: NftReconciler;
  readonly #family: Family;
  readonly #families: readonly Family[];
  readonly #pairs: NftMembers;
  readonly #bases = new Set<string>();
  #before: Contents = noContents();

  constructor(family: Family, families: readonly Family[]) {
    this.#family = family;
    this.#families = families;
    this.kernel = new NftReconciler({ family, table: `netctl-guard-${family}`, layer: 'link' });
    this.#pairs = new NftMembers(family, (key, data) => this.kernel.element(guardSets.pairs, key, data));
    this.#tellSets();
    this.#tellChains(false, false);
  }

  tell(guarded: readonly Guarded[], hasEgressHook: boolean): void {
    const now = contentsOf(guarded, this.#family);
    differ(this.#before.pairs, now.pairs, (pair, present) => {
      if (present) this.#pairs.add(pair, null);
      else this.#pairs.remove(pair, null);
    });
    this.#tellSets();
    this.#pairs.settle();
    for (const set of ['macs', 'claimed', 'closed', 'clients'] as const)
      differ(this.#before[set], now[set], (key, present) =>
        this.kernel.element(guardSets[set], key, present ? null : undefined),
      );
    const hasClosed = now.closed.size > 0;
    const hasClients = now.clients.size > 0;
    if (hasClosed !== this.#before.closed.size > 0 || hasClients !== this.#before.clients.size > 0)
      this.#tellChains(hasClosed, hasClients);
    this.#before = now;
    this.#tellBases(new Set(guarded.map(({ endpoint }) => parentName(macvlanOf(endpoint)))), hasEgressHook);
  }

  #tellChains(hasClosed: boolean, hasClients: boolean): void {
    for (const chain of guardChains(this.#family, this.#families, hasClosed, hasClients))
      tellFrames(this.kernel, chain, null);
  }

  #tellSets(): void {
    const specs = guardSetSpecs(this.#pairs.hasPrefixes);
    for (const set of ['macs', 'pairs', 'claimed', 'closed', 'clients'] as const)
      this.kernel.set(guardSets[set], specs[set]);
  }

  #tellBases(parents: ReadonlySet<string>, hasEgressHook: boolean): void {
    const wanted = new Set<string>();
    for (const parent of parents)
      for (const hook of hasEgressHook ? (['ingress', 'egress'] as const) : (['ingress'] as const)) {
        const name = `${hook}-${nameFor(parent)}`;
        wanted.add(name);
        if (this.#bases.has(name)) continue;
        this.#bases.add(name);
        tellFrames(this.kernel, { name, rules: guardBase(hook) }, frameHook(hook, parent));
      }
    for (const name of [...this.#bases])
      if (!wanted.has(name)) {
        this.#bases.delete(name);
        this.kernel.chain(name, null);
      }
  }
}

function noContents(): Contents {
  return { macs: new Set(), claimed: new Set(), closed: new Set(), clients: new Set(), pairs: new Set() };
}

function contentsOf(guarded: readonly Guarded[], family: Family): Contents {
  const contents = noContents();
  for (const { endpoint, isSettled, isClosed } of guarded) {
    const { mac, addresses, extraSources } = endpoint;
    contents.macs.add(mac);
    if (isClosed) contents.closed.add(mac);
    if (needsLink(endpoint.delegate)) contents.clients.add(mac);
    const own = addresses.filter((address) => familyOf(address) === family);
    if (isSettled) for (const address of own) contents.claimed.add(address);
    const extra = setMembers(extraSources).filter((each) => each.family === family);
    for (const net of [...own.map(hostCidr), ...extra.map(({ member }) => member)])
      contents.pairs.add(`${net},${mac}`);
  }
  return contents;
}

function differ(
  before: ReadonlySet<string>,
  now: ReadonlySet<string>,
  change: (key: string, present: boolean) => void,
): void {
  for (const key of now) if (!before.has(key)) change(key, true);
  for (const key of before) if (!now.has(key)) change(key, false);
}
