/**
 * Ranges of addresses, `10.0.0.10-10.0.0.99`: parts of a prefix that need not be prefixes.
 *
 * In: text from outside, as first and last address or as a prefix. Out: the canonical text, and its bounds as numbers. Never: a
 * range over two families, or one whose end is before its beginning.
 */
import { invalid } from '../lib/errors.ts';
import {
  type Address,
  addressFrom,
  addressValue,
  cidrBase,
  cidrSize,
  familyOf,
  parseAddress,
  parseCidr,
} from './ip.ts';

export type AddressRange = string & { readonly __addressRange: unique symbol };

/** Unsigned numbers of 32 or 128 bits; both belong to it. */
export interface Interval {
  readonly first: bigint;
  readonly last: bigint;
}

/** @throws INVALID naming `field` */
export function parseAddressRange(text: unknown, field = 'range'): AddressRange {
  const expected = 'first and last address such as 10.0.0.10-10.0.0.99, or a prefix';
  if (typeof text !== 'string') throw invalid(field, text, expected);
  if (text.includes('/')) {
    const cidr = parseCidr(text, field);
    const first = addressValue(cidrBase(cidr));
    return rangeOf(cidrBase(cidr), addressFrom(familyOf(cidr), first + cidrSize(cidr) - 1n));
  }
  const [from, to, ...rest] = text.split('-');
  if (to === undefined || rest.length > 0) throw invalid(field, text, expected);
  const [first, last] = [parseAddress(from, field), parseAddress(to, field)];
  if (familyOf(first) !== familyOf(last)) throw invalid(field, text, 'two addresses of one family');
  if (addressValue(first) > addressValue(last))
    throw invalid(field, text, 'a last address that is not before the first');
  return rangeOf(first, last);
}

/** First and last address of the range. */
export function rangeEnds(range: AddressRange): readonly [Address, Address] {
  const dash = range.indexOf('-');
  return [range.slice(0, dash) as Address, range.slice(dash + 1) as Address];
}

export function rangeBounds(range: AddressRange): Interval {
  const [first, last] = rangeEnds(range);
  return { first: addressValue(first), last: addressValue(last) };
}

const rangeOf = (first: Address, last: Address): AddressRange => `${first}-${last}` as AddressRange;
