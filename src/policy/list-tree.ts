/**
 * The look-up of an endpoint's list as a tree, for a back end that has no maps (pure, in memory).
 *
 *     nctl-from ── in set of bucket 7 ──► nctl-from-7 ── in set of list web ──► nctl-out-web
 *
 * In: the calls of PolicyOutput. Out: the same calls; the chains that dispatch in two steps, and for each bucket a set with the members of
 * its lists. Never: an endpoint that leaves a bucket while one of its lists there has it; another verdict than that of the chain told.
 */
import { createHash } from 'node:crypto';
import type { IpSetMember } from '../linux/ports.ts';
import type { Family } from '../model/ip.ts';
import { type Chain, type ChainRule, goto, lazyChain, rule } from './chain.ts';
import { bucketChain, bucketSet, dispatching, isListSet } from './names.ts';
import type { PolicyOutput, SetSpec } from './output.ts';

/** A packet asks half of the buckets and half of the lists of one: with a hundred lists 11 sets, where it would be 50. */
const BUCKETS = 16;

interface Bucket {
  readonly lists: Map<string, Set<IpSetMember>>;
  /** In how many of the lists each member is. */
  readonly members: Map<IpSetMember, number>;
}

export class ListTree implements PolicyOutput {
  readonly #output: PolicyOutput;
  /** By the names of their sets. */
  readonly #buckets = new Map<string, Bucket>();
  /** List's set → family and number of its bucket. */
  readonly #placeOf = new Map<string, { readonly family: Family; readonly number: number }>();

  constructor(output: PolicyOutput) {
    this.#output = output;
  }

  set(name: string, spec: SetSpec | null): void {
    if (!isListSet(name)) this.#output.set(name, spec);
    else if (spec !== null) this.#addList(name, spec);
    else this.#removeList(name);
  }

  member(set: string, member: IpSetMember, present: boolean): void {
    this.#output.member(set, member, present);
    const place = this.#placeOf.get(set);
    if (place === undefined) return;
    const name = bucketSet(place.family, place.number);
    const bucket = this.#buckets.get(name)!;
    const list = bucket.lists.get(set)!;
    if (list.has(member) === present) return;
    if (present) list.add(member);
    else list.delete(member);
    this.#count(name, bucket, member, present ? 1 : -1);
  }

  chain(family: Family, name: string, chain: Chain | null): void {
    if (chain === null || !dispatching.includes(name)) {
      this.#output.chain(family, name, chain);
      return;
    }
    for (const [number, lists] of this.#usedBuckets(family)) {
      const part = bucketChain(name, number);
      const isOfPart = (each: ChainRule): boolean => lists.has(listOf(each) ?? '');
      const rules = (): ChainRule[] => chain.rules.filter((each) => listOf(each) === null || isOfPart(each));
      this.#output.chain(family, part, lazyChain(part, rules));
    }
    this.#output.chain(
      family,
      name,
      lazyChain(name, () => this.#trunk(family, chain)),
    );
  }

  /** For the lists of a bucket one rule, where the first of them stood. */
  #trunk(family: Family, chain: Chain): ChainRule[] {
    const seen = new Set<number>();
    return chain.rules.flatMap((each) => {
      const list = listOf(each);
      if (list === null) return [each];
      const number = bucketOf(list);
      if (seen.has(number)) return [];
      seen.add(number);
      const conditions = each.conditions.map((condition) => ({
        ...condition,
        set: bucketSet(family, number),
      }));
      const part = bucketChain(chain.name, number);
      return [rule(conditions, goto(part), `endpoints of lists in bucket ${number}`)];
    });
  }

  /** The set of the bucket is there before a chain names it. */
  #addList(list: string, spec: SetSpec): void {
    const number = bucketOf(list);
    const name = bucketSet(spec.family, number);
    if (!this.#buckets.has(name)) {
      this.#buckets.set(name, { lists: new Map(), members: new Map() });
      this.#output.set(name, spec);
    }
    this.#buckets.get(name)!.lists.set(list, new Set());
    this.#placeOf.set(list, { family: spec.family, number });
    this.#output.set(list, spec);
  }

  #removeList(list: string): void {
    this.#output.set(list, null);
    const place = this.#placeOf.get(list);
    if (place === undefined) return;
    this.#placeOf.delete(list);
    const name = bucketSet(place.family, place.number);
    const bucket = this.#buckets.get(name)!;
    for (const member of bucket.lists.get(list)!) this.#count(name, bucket, member, -1);
    bucket.lists.delete(list);
    if (bucket.lists.size > 0) return;
    this.#buckets.delete(name);
    for (const chain of dispatching) this.#output.chain(place.family, bucketChain(chain, place.number), null);
    this.#output.set(name, null);
  }

  #count(name: string, { members }: Bucket, member: IpSetMember, change: 1 | -1): void {
    const count = (members.get(member) ?? 0) + change;
    if (count === 0) members.delete(member);
    else members.set(member, count);
    if (count === 0 || (count === 1 && change === 1)) this.#output.member(name, member, count === 1);
  }

  *#usedBuckets(family: Family): Generator<[number: number, lists: ReadonlyMap<string, unknown>]> {
    for (let number = 0; number < BUCKETS; number++) {
      const bucket = this.#buckets.get(bucketSet(family, number));
      if (bucket !== undefined) yield [number, bucket.lists];
    }
  }
}

/** The set of the list whose endpoints the rule is for. */
function listOf({ conditions: [only] }: ChainRule): string | null {
  return only?.kind === 'set' && isListSet(only.set) ? only.set : null;
}

function bucketOf(list: string): number {
  return createHash('sha256').update(list).digest()[0]! % BUCKETS;
}
