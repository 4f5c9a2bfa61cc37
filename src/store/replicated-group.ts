/**
 * Decisions that go to the cluster as one transaction: the answer to one takes as long as that to forty.
 *
 * In: transactions in the cluster's revisions. Out: all compares and all writes. Never: two together of which one writes what the other
 * writes or compares (each is decided as if it were alone); more than one transaction of etcd takes, unless it is a single one.
 */
import type { Compare, Write } from './store.ts';
import { isAbout } from './transaction.ts';

interface Member<T> {
  readonly tag: T;
  readonly compares: readonly Compare[];
  readonly writes: readonly Write[];
}

/** Below etcd's limit of 128 operations, with the fence. */
const mostOfEach = 120;

export class Group<T> {
  #members: Member<T>[] = [];
  readonly #compared = new Map<string, Compare>();
  /** Those of the compares that are about more than one key. */
  readonly #ranges = new Map<string, Compare>();
  readonly #written = new Map<string, Write>();

  get tags(): T[] {
    return this.#members.map(({ tag }) => tag);
  }

  get compares(): Compare[] {
    return [...this.#compared.values()];
  }

  get writes(): Write[] {
    return [...this.#written.values()];
  }

  /** False: it has to go with others. */
  add(tag: T, compares: readonly Compare[], writes: readonly Write[]): boolean {
    const isFull =
      this.#compared.size + compares.length > mostOfEach || this.#written.size + writes.length > mostOfEach;
    if (this.#members.length > 0 && (isFull || this.#meets(compares, writes))) return false;
    this.#enter({ tag, compares, writes });
    return true;
  }

  /** Takes out those that compared the key: it is not as they want it. */
  lose(key: string): T[] {
    const members = this.#members;
    this.#members = [];
    this.#compared.clear();
    this.#ranges.clear();
    this.#written.clear();
    const lost: T[] = [];
    for (const member of members) {
      if (member.compares.some((compare) => isAbout(compare, key))) lost.push(member.tag);
      else this.#enter(member);
    }
    return lost;
  }

  /** The first of the compares that does not hold any more when the group is committed, and the key that contradicts it. */
  refuted(compares: readonly Compare[]): { compare: Compare; key: string } | undefined {
    for (const compare of compares) {
      const { key, kind } = compare;
      const write = kind === 'unwritten' ? this.#writtenUnder(compare) : this.#written.get(key);
      if (write === undefined) continue;
      if (kind !== 'absent' && kind !== 'present') return { compare, key: write.key };
      if ((kind === 'absent') === (write.kind === 'put')) return { compare, key };
    }
    return undefined;
  }

  #meets(compares: readonly Compare[], writes: readonly Write[]): boolean {
    if (writes.some(({ key }) => this.#written.has(key) || this.#compared.has(key))) return true;
    for (const compare of this.#ranges.values())
      if (writes.some(({ key }) => isAbout(compare, key))) return true;
    return compares.some((compare) => {
      if (compare.kind === 'unwritten' && this.#writtenUnder(compare) !== undefined) return true;
      const other = this.#compared.get(compare.key);
      return this.#written.has(compare.key) || (other !== undefined && !isSame(compare, other));
    });
  }

  #writtenUnder(compare: Compare): Write | undefined {
    for (const write of this.#written.values())
      if (write.kind === 'put' && isAbout(compare, write.key)) return write;
    return undefined;
  }

  #enter(member: Member<T>): void {
    this.#members.push(member);
    for (const compare of member.compares) {
      this.#compared.set(compare.key, compare);
      if (compare.kind === 'unwritten') this.#ranges.set(compare.key, compare);
    }
    for (const write of member.writes) this.#written.set(write.key, write);
  }
}

function isSame(a: Compare, b: Compare): boolean {
  const revision = (compare: Compare) => ('revision' in compare ? compare.revision : null);
  return a.kind === b.kind && revision(a) === revision(b);
}
