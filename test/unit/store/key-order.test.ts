/** The end of a prefix's range, against what "begins with" means. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compareKeys, prefixEnd } from '../../../src/store/key-order.ts';

const character = fc.constantFrom(
  'a',
  'b',
  '/',
  '\u007f',
  'é',
  '\ud7ff',
  '\ue000',
  '\uffff',
  '\u{10000}',
  '\u{10fffe}',
  '\u{10ffff}',
);
const text = fc.array(character, { maxLength: 4 }).map((characters) => characters.join(''));

test('a key begins with the prefix exactly when it is in prefix <= key < end', () => {
  fc.assert(
    fc.property(text, text, (prefix, key) => {
      const end = prefixEnd(prefix);
      const inRange = compareKeys(prefix, key) <= 0 && (end === null || compareKeys(key, end) < 0);
      assert.equal(inRange, key.startsWith(prefix));
    }),
    { numRuns: 2000 },
  );
});

test('keys are in the order of their bytes', () => {
  fc.assert(
    fc.property(text, text, (a, b) => {
      assert.equal(Math.sign(compareKeys(a, b)), Buffer.compare(Buffer.from(a), Buffer.from(b)));
    }),
    { numRuns: 5000 },
  );
});
