/**
 * Desired and actual state of one keyed collection, and what lies between them.
 *
 * In: what should be (want, unwant), what was read (observe) or done (wrote, erased). Out: the updates and deletions that are
 * pending, kept up to date at each step. Never: a scan of the whole to find one difference; `undefined` as a value.
 */
export class Deltas<K, V> {
  readonly #desired = new Map<K, V>();
  readonly #actual = new Map<K, V>();
  readonly #updates = new Map<K, V>();
  readonly #deletes = new Set<K>();
  readonly #isEqual: (a: V, b: V) => boolean;

  constructor(isEqual: (a: V, b: V) => boolean = Object.is) {
    this.#isEqual = isEqual;
  }

  get desired(): ReadonlyMap<K, V> {
    return this.#desired;
  }

  get actual(): ReadonlyMap<K, V> {
    return this.#actual;
  }

  /** Desired, and absent or different. */
  get pendingUpdates(): ReadonlyMap<K, V> {
    return this.#updates;
  }

  /** There, and not desired. */
  get pendingDeletes(): ReadonlySet<K> {
    return this.#deletes;
  }

  get isClean(): boolean {
    return this.#updates.size === 0 && this.#deletes.size === 0;
  }

  want(key: K, value: V): void {
    this.#desired.set(key, value);
    const actual = this.#actual.get(key);
    if (actual !== undefined && this.#isEqual(value, actual)) this.#updates.delete(key);
    else this.#updates.set(key, value);
    if (this.#deletes.size > 0) this.#deletes.delete(key);
  }

  unwant(key: K): void {
    this.#desired.delete(key);
    if (this.#updates.size > 0) this.#updates.delete(key);
    if (this.#actual.has(key)) this.#deletes.add(key);
  }

  wrote(key: K, value: V): void {
    this.#actual.set(key, value);
    const desired = this.#desired.get(key);
    if (desired === undefined) this.#deletes.add(key);
    else if (this.#isEqual(desired, value)) this.#updates.delete(key);
    else this.#updates.set(key, desired);
  }

  erased(key: K): void {
    this.#actual.delete(key);
    this.#deletes.delete(key);
    const desired = this.#desired.get(key);
    if (desired !== undefined) this.#updates.set(key, desired);
  }

  /** What was read replaces all that was known of the actual state. */
  observe(entries: Iterable<readonly [K, V]>): void {
    const before = [...this.#actual.keys()];
    this.#actual.clear();
    for (const [key, value] of entries) this.wrote(key, value);
    for (const key of before) if (!this.#actual.has(key)) this.erased(key);
  }
}
