/**
 * A pool prepared for questions: which addresses it gives out, as few sorted intervals; which nodes and tenants it is for.
 *
 * In: the pool's record. Out: answers whose cost depends on the number of its ranges and excludes. Never: a list of its addresses
 * or blocks (a pool may hold 2^64).
 */
import type { Interval } from '../model/address-range.ts';
import { rangeBounds } from '../model/address-range.ts';
import {
  type Address,
  addressFrom,
  addressValue,
  type Cidr,
  cidrBase,
  cidrSize,
  type Family,
  familyOf,
} from '../model/ip.ts';
import type { Pool } from '../model/records.ts';
import { type Labels, parseSelector, type Selector, selects } from '../model/selector.ts';
import type { Revision } from '../store/store.ts';

export class PoolView {
  readonly name: string;
  readonly pool: Pool;
  /** Revision of the record: who takes an address compares it, so that a pool that is being removed gives out none. */
  readonly modified: Revision;
  readonly family: Family;
  /** What may be given out: sorted, disjoint. */
  readonly intervals: readonly Interval[];
  /** Addresses that may be given out. */
  readonly assignable: bigint;
  readonly #selector: Selector | null;
  readonly #tenants: ReadonlySet<string>;
  readonly #inBlock = new Map<Cidr, number>();

  constructor(name: string, pool: Pool, modified: Revision) {
    this.name = name;
    this.pool = pool;
    this.modified = modified;
    this.family = familyOf(pool.cidr);
    this.intervals = assignableIntervals(pool);
    this.assignable = countOf(this.intervals);
    this.#selector = pool.nodeSelector === null ? null : parseSelector(pool.nodeSelector, 'nodeSelector');
    this.#tenants = new Set(pool.tenants);
  }

  isFor(tenant: string): boolean {
    return this.#tenants.size === 0 || this.#tenants.has(tenant);
  }

  admits(labels: Labels): boolean {
    return this.#selector === null || selects(this.#selector, labels);
  }

  isAssignable(address: Address): boolean {
    if (familyOf(address) !== this.family) return false;
    const value = addressValue(address);
    return this.intervals.some(({ first, last }) => first <= value && value <= last);
  }

  /** Addresses of the block that may be given out; a block has at most 2^16. */
  assignableIn(block: Cidr): number {
    let count = this.#inBlock.get(block);
    if (count === undefined) {
      count = Number(countOf(intersect(this.intervals, [intervalOf(block)])));
      this.#inBlock.set(block, count);
    }
    return count;
  }
}

export function intervalOf(cidr: Cidr): Interval {
  const first = addressValue(cidrBase(cidr));
  return { first, last: first + cidrSize(cidr) - 1n };
}

export function countOf(intervals: readonly Interval[]): bigint {
  return intervals.reduce((count, { first, last }) => count + last - first + 1n, 0n);
}

/** What is in both; both are sorted and disjoint. */
export function intersect(some: readonly Interval[], others: readonly Interval[]): Interval[] {
  const common: Interval[] = [];
  for (const a of some) {
    for (const b of others) {
      const [, first] = ordered(a.first, b.first);
      const [last] = ordered(a.last, b.last);
      if (first <= last) common.push({ first, last });
    }
  }
  return common;
}

/** Sorted, and joined where they touch. */
export function joined(intervals: readonly Interval[]): Interval[] {
  const result: Interval[] = [];
  for (const next of intervals.toSorted((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0))) {
    const before = result.at(-1);
    if (before === undefined || next.first > before.last + 1n) result.push(next);
    else if (next.last > before.last) result[result.length - 1] = { first: before.first, last: next.last };
  }
  return result;
}

/**
 * The addresses of the intervals, each once, from the given offset on and around: every caller that begins at a random one
 * meets others seldom.
 */
export function* addressesFrom(
  family: Family,
  intervals: readonly Interval[],
  offset: bigint,
): Generator<Address> {
  let skip = offset;
  let start = 0;
  for (; start < intervals.length; start++) {
    const { first, last } = intervals[start]!;
    if (skip <= last - first) break;
    skip -= last - first + 1n;
  }
  for (let turn = 0; turn <= intervals.length; turn++) {
    const interval = intervals[(start + turn) % intervals.length];
    if (interval === undefined) return;
    const from = turn === 0 ? interval.first + skip : interval.first;
    const to = turn === intervals.length ? interval.first + skip - 1n : interval.last;
    for (let value = from; value <= to; value++) yield addressFrom(family, value);
  }
}

/** A number from 0 to count - 1. @param random as Math.random */
export function randomBelow(count: bigint, random: () => number): bigint {
  if (count <= 1n) return 0n;
  const word = (): bigint => BigInt(Math.floor(random() * 2 ** 32));
  return ((word() << 96n) | (word() << 64n) | (word() << 32n) | word()) % count;
}

/** The prefix or its ranges, without excludes, gateway, and the pool's first and (IPv4) last address: much software refuses those. */
function assignableIntervals(pool: Pool): Interval[] {
  const whole = intervalOf(pool.cidr);
  const wanted = pool.ranges.length === 0 ? [whole] : joined(pool.ranges.map(rangeBounds));
  const out: Interval[] = pool.excludes.map(intervalOf);
  const point = (value: bigint): Interval => ({ first: value, last: value });
  if (pool.gateway !== null) out.push(point(addressValue(pool.gateway)));
  if (cidrSize(pool.cidr) > 2n) {
    out.push(point(whole.first));
    if (familyOf(pool.cidr) === 4) out.push(point(whole.last));
  }
  return without(wanted, joined(out));
}

/** Math.min and Math.max do not take bigints. */
const ordered = (a: bigint, b: bigint): readonly [bigint, bigint] => (a < b ? [a, b] : [b, a]);

function without(wanted: readonly Interval[], out: readonly Interval[]): Interval[] {
  const rest: Interval[] = [];
  for (const { first, last } of wanted) {
    let from = first;
    for (const gap of out) {
      if (gap.last < from || gap.first > last) continue;
      if (gap.first > from) rest.push({ first: from, last: gap.first - 1n });
      from = gap.last + 1n;
    }
    if (from <= last) rest.push({ first: from, last });
  }
  return rest;
}
