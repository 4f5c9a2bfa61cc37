/**
 * The mirror: brings what the cluster says into the local store.
 *
 * In: the cluster's entries and changes, and what this node has just written there. Out: local transactions, none where nothing
 * differs (so an echo changes nothing). Never: a key overwritten whose last word waits in the outbox, or that this node
 * changes meanwhile (each write compares what it replaces); a step back to what the cluster had before our own write.
 */
import { isDeepStrictEqual } from 'node:util';
import { NetctlError } from '../lib/errors.ts';
import type { Cidr } from '../model/ip.ts';
import { type Authority, blockOfClaimKey, Claims } from './authority.ts';
import { localPrefix, type Outbox } from './replicated-outbox.ts';
import type { Compare, Entry, Json, Revision, Store, Write } from './store.ts';

export interface ClusterChange {
  readonly key: string;
  readonly entry: Entry | null;
  /** Of the change; for an entry that is gone, of the change set or snapshot that says so. */
  readonly revision: Revision;
}

/** What the node knows about its replication, for the time after a restart. */
export interface Note {
  /** Identity of this local store. */
  readonly store: string;
  /** Identity of the cluster whose picture this store holds; null before the first. */
  readonly cluster: string | null;
  /** Where the outbox begins, and how much of it the cluster had. */
  readonly cursor: Revision;
  readonly sent: Revision;
  /** The log does not have all that waits: compare states. */
  readonly compare: boolean;
  /** Cluster's revision that this store shows. */
  readonly shown: Revision;
  /** Milliseconds since 1970; what waits is not older. */
  readonly at: number;
}

export const noteKey = `${localPrefix}replication`;
export const clusterIdKey = 'cluster';

const keysPerTransaction = 1000;

/** Records of the replication itself stay where they are. */
export function isMirrored(key: string): boolean {
  return !key.startsWith(localPrefix) && !key.startsWith('replication/') && key !== clusterIdKey;
}

export class Mirror {
  /** Blocks of this node alone as the cluster has them, with the cluster's revisions. */
  readonly claims = new Claims();
  /** The same as the local store has them, with the local revisions. */
  readonly own = new Claims();
  /** Blocks of this node whose addresses the cluster decides about: as the cluster has them, as the local store has them. */
  readonly #sharedThere = new Set<Cidr>();
  readonly #sharedHere = new Set<Cidr>();
  readonly #local: Store;
  readonly #authority: Authority;
  readonly #outbox: Outbox;
  readonly #note: () => Note;
  readonly #hasGap: () => boolean;
  /** Revision in the cluster of every key it has. */
  #known = new Map<string, Revision>();
  /** Keys that we wrote and whose echo has not come: what is older is past. */
  readonly #written = new Map<string, Revision>();

  constructor(local: Store, authority: Authority, outbox: Outbox, note: () => Note, hasGap: () => boolean) {
    this.#hasGap = hasGap;
    this.#local = local;
    this.#authority = authority;
    this.#outbox = outbox;
    this.#note = note;
  }

  /** The cluster's revision of the key, as far as the local store shows it. */
  known(key: string): Revision | undefined {
    return this.#known.get(key);
  }

  /** Begins anew with a snapshot that has all that we wrote. */
  reset(entries: readonly Entry[]): void {
    this.#written.clear();
    this.claims.clear();
    this.#sharedThere.clear();
    this.#known = new Map();
    for (const entry of entries) this.#learn(entry.key, entry);
  }

  /** Takes in changes; returns those that are news. */
  learn(changes: readonly ClusterChange[]): ClusterChange[] {
    return changes.filter(({ key, entry, revision }) => {
      const written = this.#written.get(key);
      if (written !== undefined && revision >= written) this.#written.delete(key);
      if (written !== undefined && revision <= written) return false;
      this.#learn(key, entry);
      return isMirrored(key);
    });
  }

  /** To be called with what we wrote into the cluster. */
  wrote(writes: readonly Write[], revision: Revision): void {
    for (const write of writes) {
      this.#written.set(write.key, revision);
      this.#learn(write.key, write.kind === 'put' ? entryOf(write, revision) : null);
    }
  }

  /** Blocks that the local store shows as this node's and the cluster does not. */
  lost(): Cidr[] {
    return [...this.own.all(), ...this.#sharedHere].filter(
      (block) => this.claims.get(block) === undefined && !this.#sharedThere.has(block),
    );
  }

  /** Blocks that the local store shows as this node's alone and the cluster does not: lost, or made shared by somebody else. */
  ceded(): Cidr[] {
    return this.own.all().filter((block) => this.claims.get(block) === undefined);
  }

  /** To be called with every claim that the local store holds. */
  noteClaim(key: string, value: Json | undefined, revision: Revision): void {
    const block = blockOfClaimKey(key);
    if (block === null) return;
    const kind = value === undefined ? 'foreign' : this.#authority.kindOfClaim(value);
    if (kind === 'exclusive') this.own.set(block, revision);
    else this.own.delete(block);
    if (kind === 'shared') this.#sharedHere.add(block);
    else this.#sharedHere.delete(block);
  }

  /**
   * Writes to the local store what differs and does not wait in the outbox; in one transaction if it is not huge.
   * @param differences as the cluster has it
   * @param revisionThere the cluster's, which the store shows afterwards
   * @param rewritten keys that are written also where nothing differs: this node changes none of them meanwhile, since the decision
   *   that wrote them there has them locked
   * @returns the revision of the last write, or null where there was none
   */
  async bring(
    differences: readonly Write[],
    revisionThere: Revision,
    rewritten: ReadonlyMap<string, unknown> = new Map(),
  ): Promise<Revision | null> {
    let revision: Revision | null = null;
    for (let from = 0; from < differences.length; from += keysPerTransaction) {
      const some = differences.slice(from, from + keysPerTransaction);
      const isLast = from + keysPerTransaction >= differences.length;
      revision = (await this.#bring(some, rewritten, isLast ? revisionThere : null)) ?? revision;
    }
    return revision;
  }

  /** Every write of the mirror carries it: so it is known for not being this node's. */
  noteWrite(shown: Revision | null = null): Write {
    const note = this.#note();
    return { kind: 'put', key: noteKey, value: { ...note, shown: shown ?? note.shown } as unknown as Json };
  }

  /** @param shown the cluster's revision that the store shows with it; null: no more than before */
  async #bring(
    differences: readonly Write[],
    rewritten: ReadonlyMap<string, unknown>,
    shown: Revision | null,
  ): Promise<Revision | null> {
    for (;;) {
      const compares: Compare[] = [];
      const writes: Write[] = [];
      for (const write of differences) {
        const { key } = write;
        if (this.#outbox.has(key)) continue;
        if (rewritten.has(key)) {
          writes.push(write);
          continue;
        }
        const entry = await this.#local.get(key);
        if (write.kind === 'delete' && entry === null) continue;
        if (write.kind === 'put' && entry !== null && isDeepStrictEqual(entry.value, write.value)) continue;
        compares.push(
          entry === null ? { kind: 'absent', key } : { kind: 'modified', key, revision: entry.modified },
        );
        writes.push(write);
      }
      if (writes.length === 0) return null;
      // The outbox forgot what waits: which of these keys are ours to say cannot be told from it.
      if (this.#hasGap()) throw new NetctlError('TRY_AGAIN', 'states have to be compared first');
      const all = [...writes, this.noteWrite(shown)];
      const result = await this.#local.transact(compares, all, { flushed: false });
      if (!result.committed) continue;
      for (const write of writes)
        this.noteClaim(write.key, write.kind === 'put' ? write.value : undefined, result.revision);
      return result.revision;
    }
  }

  #learn(key: string, entry: Pick<Entry, 'value' | 'modified'> | null): void {
    if (entry === null) this.#known.delete(key);
    else this.#known.set(key, entry.modified);
    const block = blockOfClaimKey(key);
    if (block === null) return;
    const kind = entry === null ? 'foreign' : this.#authority.kindOfClaim(entry.value);
    if (kind === 'exclusive') this.claims.set(block, entry!.modified);
    else this.claims.delete(block);
    if (kind === 'shared') this.#sharedThere.add(block);
    else this.#sharedThere.delete(block);
  }
}

export function writeOf({ key, entry }: ClusterChange): Write {
  return entry === null ? { kind: 'delete', key } : { kind: 'put', key, value: entry.value };
}

function entryOf(write: Write & { kind: 'put' }, modified: Revision): Pick<Entry, 'value' | 'modified'> {
  return {
    get value() {
      return write.value;
    },
    modified,
  };
}
