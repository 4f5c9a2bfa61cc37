/**
 * Desired and actual state of one keyed collection, and what lies between them.
 *
 * In: what should be (want, unwant), what was read (observe) or done (wrote, erased). Out: the updates and deletions that are
 * pending, kept up to date at each step. Never: a scan of the whole to find one difference.
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
    this.#compare(key);
  }

  unwant(key: K): void {
    this.#desired.delete(key);
    this.#compare(key);
  }

  wrote(key: K, value: V): void {
    this.#actual.set(key, value);
    this.#compare(key);
  }

  erased(key: K): void {
    this.#actual.delete(key);
    this.#compare(key);
  }

  /** What was read replaces all that was known of the actual state. */
  observe(entries: Iterable<readonly [K, V]>): void {
    const before = [...this.#actual.keys()];
    this.#actual.clear();
    for (const [key, value] of entries) this.wrote(key, value);
    for (const key of before) if (!this.#actual.has(key)) this.#compare(key);
  }

  #compare(key: K): void {
    const isDesired = this.#desired.has(key);
    const isActual = this.#actual.has(key);
    const isRight = isDesired && isActual && this.#isEqual(this.#desired.get(key)!, this.#actual.get(key)!);
    if (isDesired && !isRight) this.#updates.set(key, this.#desired.get(key)!);
    else this.#updates.delete(key);
    if (isActual && !isDesired) this.#deletes.add(key);
    else this.#deletes.delete(key);
  }
}
