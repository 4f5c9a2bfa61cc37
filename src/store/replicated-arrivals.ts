/**
 * Who waits for what the cluster decided to be in the local store.
 *
 * In: the cluster's revisions with what they wrote; how far the local store is. Out: local revisions. Never: a revision that is younger
 * than records which the local store has otherwise by now: who compares with it would take those for what was written.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Revision, Store, Write } from './store.ts';

/** The local revision that made the records what was written, or an older one, since others have changed them. */
export type Arrived = { readonly revision: Revision; readonly overtaken?: true };

interface Arrival {
  readonly writes: ReadonlyMap<string, Write>;
  /** Local revision before it. */
  readonly floor: Revision;
  resolve(arrived: Arrived): void;
}

export class Arrivals {
  readonly #local: Store;
  /** By the cluster's revision. */
  readonly #expected = new Map<Revision, Arrival>();

  constructor(local: Store) {
    this.#local = local;
  }

  /** The first revision of the cluster that somebody waits for; Infinity: nobody does. */
  get next(): Revision {
    return Math.min(...this.#expected.keys());
  }

  writesOf(revision: Revision): ReadonlyMap<string, Write> | undefined {
    return this.#expected.get(revision)?.writes;
  }

  /** @param floor the local store's revision by now */
  of(revision: Revision, writes: readonly Write[], floor: Revision): Promise<Arrived> {
    const { promise, resolve } = Promise.withResolvers<Arrived>();
    const byKey = new Map(writes.map((write) => [write.key, write]));
    this.#expected.set(revision, { writes: byKey, floor, resolve });
    return promise;
  }

  /**
   * The local store shows all up to the cluster's revision.
   * @param brought the local revision that brought exactly that one down; null: that is not known
   * @param latest that brought anything down
   */
  async arrive(revision: Revision, brought: Revision | null, latest: Revision): Promise<void> {
    for (const [expected, { writes, floor, resolve }] of this.#expected) {
      if (expected > revision) continue;
      this.#expected.delete(expected);
      const isExact = expected === revision && brought !== null;
      const made = isExact ? brought : await this.#shows([...writes.values()], latest);
      resolve(made === null ? { revision: floor, overtaken: true } : { revision: made });
    }
  }

  /** The revision that made the records what these writes say; null where they are not that any more, or several did. */
  async #shows(writes: readonly Write[], latest: Revision): Promise<Revision | null> {
    const made = new Set<Revision>();
    for (const write of writes) {
      const entry = await this.#local.get(write.key);
      if ((entry === null) !== (write.kind === 'delete')) return null;
      if (write.kind === 'delete') continue;
      if (!isDeepStrictEqual(entry!.value, write.value)) return null;
      made.add(entry!.modified);
    }
    if (made.size === 0) return latest;
    return made.size === 1 ? [...made][0]! : null;
  }
}
