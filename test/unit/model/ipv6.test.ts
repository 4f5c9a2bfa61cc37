/** IPv6 as text and bytes: the text is that of a library that others use (which reads `::1.2.3.4` as `::ffff:1.2.3.4`, so not its parser). */
import assert from 'node:assert/strict';
import { isIPv6 } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import ipaddr from 'ipaddr.js';
import { addressBytes, addressFrom, addressValue, networkOf, parseAddress } from '../../../src/model/ip.ts';
import { ipv6Bytes, ipv6Text } from '../../../src/model/ipv6.ts';

/** Zeroes come often, and so do runs of them. */
const groups = fc.array(fc.oneof(fc.constant(0), fc.constant(0), fc.nat(0xffff)), {
  minLength: 8,
  maxLength: 8,
});
const library = (parts: readonly number[]) => new ipaddr.IPv6([...parts]);
const bytesOf = (parts: readonly number[]) => Uint8Array.from(library(parts).toByteArray());

test('text is that of RFC 5952', () => {
  fc.assert(
    fc.property(groups, (parts) => {
      assert.equal(ipv6Text(bytesOf(parts)), library(parts).toRFC5952String());
    }),
    { numRuns: 2000 },
  );
  for (const [text, canonical] of [
    ['::', '::'],
    ['0:0:0:0:0:0:0:1', '::1'],
    ['1:0:0:0:0:0:0:0', '1::'],
    ['2001:DB8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
    ['::ffff:10.0.0.1', '::ffff:a00:1'],
  ])
    assert.equal(parseAddress(text), canonical);
});

test('any spelling is read, and comes back as itself', () => {
  const spelling = fc.tuple(groups, fc.nat(7), fc.nat(8), fc.boolean(), fc.boolean(), fc.boolean());
  fc.assert(
    fc.property(spelling, ([parts, from, length, isLong, isUpper, isMixed]) => {
      const digits = parts.map((part) => part.toString(16).padStart(isLong ? 4 : 1, '0'));
      const end = bytesOf(parts).slice(12).join('.');
      const words = isMixed ? [...digits.slice(0, 6), end] : digits;
      const isGap = parts.slice(from, from + length).every((part) => part === 0);
      const gap = isGap && length > 0 && from + length <= (isMixed ? 6 : 8);
      const left = words.slice(0, from).join(':');
      const written = gap ? `${left}::${words.slice(from + length).join(':')}` : words.join(':');
      const text = isUpper ? written.toUpperCase() : written;
      assert.ok(isIPv6(text), text);
      assert.deepEqual(ipv6Bytes(text), bytesOf(parts), text);
      const address = parseAddress(text);
      assert.deepEqual(addressBytes(address), bytesOf(parts));
      assert.equal(addressFrom(6, addressValue(address)), address);
    }),
    { numRuns: 5000 },
  );
});

test('the prefix of an address has its first bits and no others', () => {
  fc.assert(
    fc.property(groups, fc.nat(128), (parts, length) => {
      const address = parseAddress(library(parts).toRFC5952String());
      const hostBits = BigInt(128 - length);
      const base = addressFrom(6, (addressValue(address) >> hostBits) << hostBits);
      assert.equal(networkOf(address, length), `${base}/${length}`);
    }),
    { numRuns: 2000 },
  );
});
