/**
 * Keys about which the cluster is deciding: this node decides nothing about them meanwhile.
 *
 * In: keys of decisions under way, blocks that this node may be giving away by them. Out: whether a local transaction has to wait or
 * be refused. Never: a key free again while it is not known what the cluster decided about it.
 */
import type { Cidr } from '../model/ip.ts';

export interface Lock {
  readonly keys: ReadonlySet<string>;
  /** Blocks that are not this node's own any more, unless the decision fails. */
  readonly yields: readonly Cidr[];
  /** The outcome is not known. */
  unsettled: boolean;
  /** It cannot happen any more after what the next snapshot shows. */
  fenced: boolean;
  /** In the hands of the cluster: only its outcome ends the lock. */
  sent: boolean;
}

export class Locks {
  readonly #locks = new Set<Lock>();

  add(keys: Iterable<string>, yields: readonly Cidr[] = [], unsettled = false): Lock {
    const lock = { keys: new Set(keys), yields, unsettled, fenced: false, sent: false };
    this.#locks.add(lock);
    return lock;
  }

  get isAny(): boolean {
    return this.#locks.size > 0;
  }

  /** Ends a lock of which nothing is under way. True if it did. */
  release(lock: Lock): boolean {
    return !lock.unsettled && !lock.sent && this.#locks.delete(lock);
  }

  /** The lock on one of the keys; one whose outcome is not known before others. */
  conflict(keys: readonly string[]): Lock | null {
    if (this.#locks.size === 0) return null;
    const found = [...this.#locks].filter((lock) => keys.some((key) => lock.keys.has(key)));
    return found.find((lock) => lock.unsettled) ?? found[0] ?? null;
  }

  /** True where the cluster's word is the last: decided there, or perhaps, and not yet in the local store. */
  isDecidedThere(key: string): boolean {
    const lock = this.conflict([key]);
    return lock !== null && (lock.unsettled || lock.sent);
  }

  /** Keys that the cluster has decided about, or perhaps, and that the local store does not show yet. */
  decided(): string[] {
    return [...this.#locks].flatMap((lock) => (lock.unsettled || lock.sent ? [...lock.keys] : []));
  }

  /** Blocks that a decision may give away, as far as the last snapshot does not show what became of it. */
  yielded(): Cidr[] {
    return [...this.#locks].flatMap((lock) => (lock.fenced ? [] : lock.yields));
  }

  get hasUnfenced(): boolean {
    return [...this.#locks].some((lock) => lock.unsettled && !lock.fenced);
  }

  /** The fence was moved: what was under way has happened or never will. */
  fence(): void {
    for (const lock of this.#locks) lock.fenced ||= lock.unsettled;
  }

  /** A snapshot from after the fence was moved is in the local store. True if that ended a lock. */
  settle(): boolean {
    const fenced = [...this.#locks].filter((lock) => lock.fenced);
    for (const lock of fenced) this.#locks.delete(lock);
    return fenced.length > 0;
  }
}
