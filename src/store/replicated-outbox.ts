/**
 * The outbox: what this node has decided and the cluster does not have yet. The local store's change log, from a cursor on.
 *
 * In: the local store's change sets, in order; how far the cluster has come. Out: the next batch; whether a key has changes that wait.
 * Never: the mirror's own writes (their change sets hold a key under `local/`); two writes of one key in one batch.
 */
import { type Address, cidrBase } from '../model/ip.ts';
import { addressOfKey, blockOfClaimKey } from './authority.ts';
import type { ChangeSet, Entry, Revision, Write } from './store.ts';

/** Keys under it never leave the node. */
export const localPrefix = 'local/';

/** How far the cluster has come: all up to `sent`, and the first `done` writes of the transaction after it. */
export interface Progress {
  readonly sent: Revision;
  readonly done: number;
}

export interface Batch {
  readonly writes: readonly Write[];
  /** As the cluster is told, and as the outbox is told once the cluster has it. */
  readonly progress: Progress;
  readonly acknowledge: Progress;
}

interface Waiting {
  readonly revision: Revision;
  /** Milliseconds since 1970. */
  readonly at: number;
  /** null: dropped, since it is about a block that is not ours any more. */
  readonly writes: (Write | null)[];
  /** From a comparison of states, not from the log: after a restart the comparison is made anew. */
  readonly compared: boolean;
}

/** Below etcd's limits of 128 operations and 1.5 MiB (with compares and our cursor). */
const writesPerBatch = 120;
const charactersPerBatch = 512 * 1024;

export class Outbox {
  readonly #waiting: Waiting[] = [];
  readonly #keys = new Map<string, number>();
  /** Keys of transactions that the local store has, or may have, and that the feed has not shown yet. */
  readonly #unseen = new Map<string, number>();
  readonly #settled: { revision: Revision; writes: readonly Write[] }[] = [];
  #seen: Revision;
  #sent: Revision;
  #done = 0;
  #ignoredUpTo: Revision = 0;
  #dropped = 0;

  /**
   * @param cursor from where the feed begins
   * @param sent what the cluster is known to have
   */
  constructor(cursor: Revision, sent: Revision) {
    this.#seen = cursor;
    this.#sent = sent;
  }

  /** Single writes that were dropped, since the start of the process. */
  get dropped(): number {
    return this.#dropped;
  }

  get size(): number {
    return this.#waiting.length;
  }

  /** Milliseconds since 1970, of the first that waits. */
  get oldest(): number | null {
    return this.#waiting[0]?.at ?? null;
  }

  /** The local revision up to which all has been looked at. */
  get seen(): Revision {
    return this.#seen;
  }

  get sent(): Revision {
    return this.#sent;
  }

  /** What the cluster has, as it is to be told. */
  get progress(): Progress {
    return { sent: this.#sent, done: this.#waiting[0]?.compared ? 0 : this.#done };
  }

  /** Where the feed may begin after a restart. */
  get cursor(): Revision {
    const [first] = this.#waiting;
    return first === undefined ? this.#seen : Math.min(first.revision - 1, this.#seen);
  }

  /** True while differences wait that the log does not have. */
  get hasCompared(): boolean {
    return this.#waiting.some(({ compared }) => compared);
  }

  /** True while the cluster may not have the node's last word about the key. */
  has(key: string): boolean {
    return this.#keys.has(key) || this.#unseen.has(key);
  }

  /** True while something waits about an address for which `matches` holds, or about the claim of a block that begins with one. */
  someAbout(matches: (address: Address) => boolean): boolean {
    return [...this.#keys.keys(), ...this.#unseen.keys()].some((key) => {
      const block = blockOfClaimKey(key);
      const address = block === null ? addressOfKey(key) : cidrBase(block);
      return address !== null && matches(address);
    });
  }

  /** To be called before a transaction goes to the local store; the answer to be called with its revision, or null. */
  submitting(writes: readonly Write[]): (revision: Revision | null) => void {
    for (const { key } of writes) count(this.#unseen, key, 1);
    return (revision) => {
      if (revision !== null && revision > this.#seen) this.#settled.push({ revision, writes });
      else for (const { key } of writes) count(this.#unseen, key, -1);
    };
  }

  /** True if the change set is now in the outbox. */
  feed({ revision, changes }: ChangeSet, at: number): boolean {
    const isOwn = changes.length > 0 && !changes.some(({ key }) => key.startsWith(localPrefix));
    const isNew = isOwn && revision > this.#sent && revision > this.#ignoredUpTo;
    if (isNew) {
      const made = this.#settled.find((settled) => settled.revision === revision)?.writes;
      const writes = changes.map(
        ({ key, entry }): Write =>
          entry === null ? { kind: 'delete', key } : (made?.find((write) => write.key === key) ?? put(entry)),
      );
      this.#push({ revision, at, writes, compared: false });
    }
    this.seenUpTo(revision);
    return isNew;
  }

  seenUpTo(revision: Revision): void {
    this.#seen = Math.max(this.#seen, revision);
    while (this.#settled.length > 0 && this.#settled[0]!.revision <= this.#seen) {
      for (const { key } of this.#settled.shift()!.writes) count(this.#unseen, key, -1);
    }
  }

  /**
   * What differs between this node's records and the cluster's.
   * @param revision its place: a local revision of its own, that nothing else waits under
   */
  addCompared(writes: readonly Write[], revision: Revision, at: number): void {
    if (writes.length === 0) return;
    const later = this.#waiting.splice(this.#waiting.findLastIndex((one) => one.revision < revision) + 1);
    this.#push({ revision, at, writes: [...writes], compared: true });
    this.#waiting.push(...later);
  }

  /** Gives up all changes up to the revision: the cluster's state takes their place. */
  skip(upTo: Revision): void {
    this.clear(upTo);
    this.#sent = upTo;
  }

  /** Forgets all changes up to the revision: a comparison of states takes their place. */
  clear(upTo: Revision): void {
    const later = this.#waiting.filter(({ revision, compared }) => !compared && revision > upTo);
    this.#waiting.length = 0;
    this.#keys.clear();
    for (const waiting of later) this.#push(waiting);
    this.#ignoredUpTo = upTo;
    this.#done = 0;
  }

  /** Drops single writes, for which there is nobody left to receive them. Returns the keys. */
  purge(isLost: (key: string) => boolean): string[] {
    const dropped: string[] = [];
    for (const { writes } of this.#waiting) {
      writes.forEach((write, index) => {
        if (write === null || !isLost(write.key)) return;
        writes[index] = null;
        count(this.#keys, write.key, -1);
        dropped.push(write.key);
      });
    }
    this.#dropped += dropped.length;
    return dropped;
  }

  acknowledge({ sent, done }: Progress): void {
    if (sent < this.#sent) return;
    while (this.#waiting.length > 0 && this.#waiting[0]!.revision <= sent) {
      for (const write of this.#waiting.shift()!.writes) if (write !== null) count(this.#keys, write.key, -1);
    }
    this.#done = sent > this.#sent ? done : Math.max(done, this.#done);
    this.#sent = sent;
  }

  /** The next transactions in order, as many as one transaction of the cluster takes; a larger one in parts. */
  next(): Batch {
    const writes = new Map<string, Write>();
    let characters = 0;
    let progress: Progress = { sent: this.#sent, done: this.#done };
    for (const [position, waiting] of this.#waiting.entries()) {
      let index = position === 0 ? this.#done : 0;
      for (; index < waiting.writes.length; index++) {
        const write = waiting.writes[index]!;
        if (write === null) continue;
        characters += write.key.length + lengthOf(write);
        const isFull = writes.size >= writesPerBatch && !writes.has(write.key);
        if (writes.size > 0 && (isFull || characters > charactersPerBatch)) {
          const isWhole = position > 0 && index === 0;
          const acknowledge = isWhole ? progress : { sent: progress.sent, done: index };
          return {
            writes: [...writes.values()],
            progress: waiting.compared ? { ...acknowledge, done: 0 } : acknowledge,
            acknowledge,
          };
        }
        // The last word about a key, in its place.
        writes.delete(write.key);
        writes.set(write.key, write);
      }
      progress = { sent: waiting.revision, done: 0 };
    }
    return { writes: [...writes.values()], progress, acknowledge: progress };
  }

  #push(waiting: Waiting): void {
    this.#waiting.push(waiting);
    for (const write of waiting.writes) if (write !== null) count(this.#keys, write.key, 1);
  }
}

function lengthOf(write: Write): number {
  return write.kind === 'put' ? (write.text ?? JSON.stringify(write.value)).length : 0;
}

/** Read, and by that parsed, when it is sent. */
function put(entry: Entry): Write {
  return {
    kind: 'put',
    key: entry.key,
    get value() {
      return entry.value;
    },
  };
}

function count(counts: Map<string, number>, key: string, by: number): void {
  const sum = (counts.get(key) ?? 0) + by;
  if (sum > 0) counts.set(key, sum);
  else counts.delete(key);
}
