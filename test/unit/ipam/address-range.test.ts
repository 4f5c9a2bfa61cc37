/** Ranges of addresses: first and last, or a prefix. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseAddressRange } from '../../../src/model/address-range.ts';

describe('range', () => {
  test('first and last address, or a prefix; anything else is refused', () => {
    assert.equal(parseAddressRange('10.0.0.1-10.0.0.9'), '10.0.0.1-10.0.0.9');
    assert.equal(parseAddressRange('10.0.0.0/30'), '10.0.0.0-10.0.0.3');
    assert.equal(parseAddressRange('fd00::0-fd00::f'), 'fd00::-fd00::f');
    for (const text of [
      '10.0.0.9-10.0.0.1',
      '10.0.0.1',
      '10.0.0.1-fd00::1',
      '1-2',
      '10.0.0.1-10.0.0.2-10.0.0.3',
      7,
    ])
      assert.throws(() => parseAddressRange(text), { code: 'INVALID' }, String(text));
  });
});
