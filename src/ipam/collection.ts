/**
 * Collecting leaks as a whole: looks, one after the other, each followed by freeing what it confirmed (src/ipam/collect.ts decides).
 *
 * In: the store, the evidence of whoever can see links. Out: what was found with its evidence, and what became of it. Never: two
 * looks at once; an address freed by a look that was a rehearsal, or whose record has changed since.
 */
import type { Clock } from '../lib/clock.ts';
import { KeyedQueue } from '../lib/keyed-queue.ts';
import type { Logger } from '../lib/logger.ts';
import type { Address } from '../model/ip.ts';
import type { Store } from '../store/store.ts';
import { type CollectOptions, Collector, type Evidence, type Leak } from './collect.ts';
import { readSnapshot } from './snapshot.ts';

export interface CollectionParts {
  readonly store: Store;
  readonly clock: Pick<Clock, 'now' | 'monotonic'>;
  readonly logger: Logger;
  readonly options: CollectOptions;
  /** As Ipam.steadyNow. */
  steadyNow(): Date;
  /** What is seen at this moment. */
  evidence(): Promise<Evidence>;
}

export interface CollectionRequest {
  readonly dryRun: boolean;
  readonly confirmed: boolean;
  /** Frees none but these. */
  readonly only?: ReadonlySet<Address>;
}

export interface CollectedLeak extends Pick<Leak, 'address' | 'node' | 'verdict' | 'evidence'> {
  /** `changed`: its record, or an endpoint for it, came in between. `left`: not to be freed (yet). */
  readonly outcome: 'freed' | 'changed' | 'left';
}

export interface Collected {
  readonly leaks: readonly CollectedLeak[];
  /** Why nothing is freed this time, or null. */
  readonly held: string | null;
}

export class Collection {
  readonly #parts: CollectionParts;
  readonly #collector: Collector;
  readonly #queue = new KeyedQueue();

  constructor(parts: CollectionParts) {
    this.#parts = parts;
    this.#collector = new Collector(parts.options);
  }

  /**
   * One look. A rehearsal (`dryRun`) counts as one: what it saw for the first time is confirmed by a look a grace time later.
   * @param confirmed an operator's word that many endpoints are really gone
   * @throws STORE_UNAVAILABLE when the cluster has to decide about a confirmed one and cannot
   */
  run({ dryRun, confirmed, only }: CollectionRequest): Promise<Collected> {
    return this.#queue.run('look', async () => {
      const { store, clock } = this.#parts;
      const { entries, revision } = await store.list('');
      const snapshot = readSnapshot(entries, revision);
      const evidence = await this.#parts.evidence();
      const now = new Date(clock.now());
      const { leaks, held } = this.#collector.look({
        snapshot,
        evidence,
        now,
        steadyNow: this.#parts.steadyNow(),
        monotonic: clock.monotonic(),
        confirmed,
      });
      const collected: CollectedLeak[] = [];
      for (const leak of leaks) {
        const isMeant = only === undefined || only.has(leak.address);
        collected.push(await this.#treat(leak, dryRun || !isMeant));
      }
      return { leaks: collected, held };
    });
  }

  async #treat({ address, node, verdict, evidence, step }: Leak, dryRun: boolean): Promise<CollectedLeak> {
    const leak = { address, node, verdict, evidence };
    if (step === null || dryRun) return { ...leak, outcome: 'left' };
    const { committed } = await this.#parts.store.transact(step.compares, step.writes);
    if (!committed) return { ...leak, outcome: 'changed' };
    this.#parts.logger.warn({ address, node, evidence }, 'leaked address freed');
    return { ...leak, outcome: 'freed' };
  }
}

/** Evidence of one agent: it can speak for its own node only. @param stands whether the link of an endpoint stands */
export function ownEvidence(
  node: string,
  addresses: Iterable<
    readonly [Address, { readonly value: { node: string | null; endpoint: string | null } }]
  >,
  stands: (endpoint: string) => boolean,
): Evidence {
  const live = new Set<Address>();
  for (const [address, { value }] of addresses) {
    if (value.node === node && value.endpoint !== null && stands(value.endpoint)) live.add(address);
  }
  return { reachable: new Set([node]), live };
}
