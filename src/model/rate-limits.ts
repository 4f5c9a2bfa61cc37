/**
 * How much of an endpoint's traffic may pass in a second, and how such rates are written.
 *
 * In: JSON of the store and of requests, words of a command line. Out: checked values. Never: a rate below what one packet a second needs.
 */
import { z } from 'zod';
import { invalid } from '../lib/errors.ts';

const leastBits = 8000;
const mostBits = 1_000_000_000_000;
const RATE = `a whole number of bits a second from ${leastBits} to ${mostBits}, or null for no limit`;
const BURST = 'a whole number of bytes up to 2^31, or null for what the rate needs';

const bits = z.int(RATE).min(leastBits, RATE).max(mostBits, RATE).nullable();
const burst = z
  .int(BURST)
  .min(1, BURST)
  .max(2 ** 31, BURST)
  .nullable();

/** `in` is what the container receives. */
export const rateLimitsSchema = z.strictObject({
  inBitsPerSecond: bits,
  outBitsPerSecond: bits,
  /** What may pass at once after a pause; less than the rate needs to be reached counts as null. */
  inBurstBytes: burst.default(null),
  outBurstBytes: burst.default(null),
});
export type RateLimits = z.infer<typeof rateLimitsSchema>;

/** What is absent stays. */
export const rateLimitsChange = z.strictObject({
  inBitsPerSecond: bits.exactOptional(),
  outBitsPerSecond: bits.exactOptional(),
  inBurstBytes: burst.exactOptional(),
  outBurstBytes: burst.exactOptional(),
});

export const noLimits: RateLimits = {
  inBitsPerSecond: null,
  outBitsPerSecond: null,
  inBurstBytes: null,
  outBurstBytes: null,
};

/** The limits, or null where none of them limits anything. */
export function orNone(limits: RateLimits): RateLimits | null {
  return limits.inBitsPerSecond === null && limits.outBitsPerSecond === null ? null : limits;
}

/** `100mbit`, `1.5gbit`, `64kbit`, `8000` (bits a second), as tc(8) writes rates, in powers of ten; `none`: null. @throws INVALID */
export function parseRate(text: string, field: string): number | null {
  if (text === 'none') return null;
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?)(?:([kmg])?bit)?$/i.exec(text) ?? [];
  const bits =
    number === undefined ? Number.NaN : Math.round(Number(number) * (units[unit.toLowerCase()] ?? 1));
  if (!(bits >= leastBits && bits <= mostBits))
    throw invalid(field, text, 'a rate like 100mbit, 64kbit or 1.5gbit (from 8kbit to 1000gbit), or none');
  return bits;
}

/** As `parseRate` reads it. */
export function rateText(bits: number | null | undefined): string {
  if (bits == null) return 'unlimited';
  const [unit = '', factor = 1] = Object.entries(units).findLast(([, each]) => bits >= each) ?? [];
  return `${Number((bits / factor).toFixed(3))}${unit}bit`;
}

const units: Readonly<Record<string, number>> = { k: 1e3, m: 1e6, g: 1e9 };
