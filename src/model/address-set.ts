/**
 * An address set: prefixes under a name, for rules to use.
 *
 * In: the JSON of a set (`nets`). Out: the prefixes, sorted, none inside another. Never: the order or the repetition of what was
 * written as a difference.
 */
import { z } from 'zod';
import { checkJson, exactObject, textOf } from './check.ts';
import { addressValue, type Cidr, cidrBase, cidrSize, familyOf, parseAddressOrCidr } from './ip.ts';

/** As many as a set of the kernel takes by default. */
const MOST = 65536;

/** What users write, without the name, and the value under `address-sets/<name>` in the store. */
export const addressSetSchema = exactObject({
  nets: z
    .array(textOf<Cidr>(parseAddressOrCidr, '10.0.0.0/8'), 'a list of addresses and prefixes')
    .max(MOST, `at most ${MOST} of them`),
});

/** @throws INVALID with the path of the fault */
export function addressSetFromJson(json: unknown): Cidr[] {
  return widest(checkJson(addressSetSchema, json).nets);
}

/** Sorted by family and address; what lies inside another is left out, since it says nothing more. */
export function widest(nets: readonly Cidr[]): Cidr[] {
  const spans = nets.map((net) => {
    const first = addressValue(cidrBase(net));
    return { net, family: familyOf(net), first, last: first + cidrSize(net) - 1n };
  });
  spans.sort((a, b) => a.family - b.family || compare(a.first, b.first) || compare(b.last, a.last));
  const kept: typeof spans = [];
  for (const span of spans) {
    const before = kept.at(-1);
    if (before === undefined || before.family !== span.family || span.first > before.last) kept.push(span);
  }
  return kept.map(({ net }) => net);
}

function compare(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
