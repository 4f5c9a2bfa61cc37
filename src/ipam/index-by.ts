/**
 * Sets of texts by key; a key without members takes no memory, one with a single member no set of its own.
 *
 * In: key and member. Out: the members of a key. Never: a set per owner, of whom most have one address.
 */
export class IndexBy<T extends string> {
  readonly #members = new Map<string, T | Set<T>>();
  static readonly #none: ReadonlySet<never> = new Set();
  /** The last answer about a single member: the same few keys are asked for again and again. */
  #single: ReadonlySet<T> = IndexBy.#none;

  of(key: string): ReadonlySet<T> {
    const members = this.#members.get(key);
    if (members === undefined) return IndexBy.#none;
    if (members instanceof Set) return members;
    if (!this.#single.has(members)) this.#single = new Set([members]);
    return this.#single;
  }

  has(key: string): boolean {
    return this.#members.has(key);
  }

  add(key: string, member: T): void {
    const members = this.#members.get(key);
    if (members === undefined) this.#members.set(key, member);
    else if (members instanceof Set) members.add(member);
    else if (members !== member) this.#members.set(key, new Set([members, member]));
  }

  delete(key: string, member: T): void {
    const members = this.#members.get(key);
    if (members === member) this.#members.delete(key);
    else if (members instanceof Set && members.delete(member) && members.size === 0)
      this.#members.delete(key);
  }
}
