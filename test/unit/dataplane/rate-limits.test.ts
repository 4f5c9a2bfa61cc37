/** Rates as they are written, and the buckets that are made of them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { bucketOf } from '../../../src/dataplane/rate-limits.ts';
import { parseRate, rateText } from '../../../src/model/rate-limits.ts';

test('rates are written as tc writes them', () => {
  assert.equal(parseRate('100mbit', '--in'), 100_000_000);
  assert.equal(parseRate('1.5Gbit', '--in'), 1_500_000_000);
  assert.equal(parseRate('64kbit', '--in'), 64_000);
  assert.equal(parseRate('8000', '--in'), 8000);
  assert.equal(parseRate('none', '--in'), null);
  for (const text of ['', '-1mbit', '10mb', '10 mbit', '7999', '2000gbit', '1e9', '0x10'])
    assert.throws(() => parseRate(text, '--in'), /^NetctlError: --in: /);
});

test('property: what is printed is read as the same rate, to a thousandth of its unit', () => {
  fc.assert(
    fc.property(fc.integer({ min: 8000, max: 1e12 }), (bits) => {
      const read = parseRate(rateText(bits), '--in') ?? 0;
      assert.ok(Math.abs(read - bits) <= bits / 1000);
    }),
  );
});

test('a bucket holds 10 ms of its rate, a large segment of TCP, and what was asked for where that is more', () => {
  const burst = (bitsPerSecond: number, burstBytes: number | null = null): number =>
    bucketOf({ bitsPerSecond, burstBytes }).burstBytes;
  assert.equal(burst(1_000_000), 65_536);
  assert.equal(burst(1_000_000, 5), 65_536);
  assert.equal(burst(1_000_000, 1_000_000), 1_000_000);
  assert.equal(burst(10_000_000_000), 12_500_000);
  assert.equal(bucketOf({ bitsPerSecond: 8_000_000, burstBytes: null }).queueBytes, 65_536 + 50_000);
});
