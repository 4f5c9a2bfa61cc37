/**
 * Peers, filters and settings as users write them: what is taken, and the error that names the field of what is not.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { parseAllDocuments } from 'yaml';
import { NetctlError } from '../../../src/lib/errors.ts';
import { bgpFilterSchema, bgpPeerSchema, bgpSettingsSchema, shownPeer } from '../../../src/model/bgp.ts';
import {
  parseCommunity,
  parsePassword,
  parsePrefixMatch,
  prefixMatchOf,
} from '../../../src/model/bgp-text.ts';
import { checkJson } from '../../../src/model/check.ts';
import { parseDocument } from '../../../src/model/document.ts';

const tor = { address: '192.0.2.254', asNumber: 65001 };

function messageOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof NetctlError, String(error));
    return error.message;
  }
  return assert.fail('was taken');
}

describe('a peer', () => {
  const refused: readonly [object, RegExp][] = [
    [{}, /^address: .*either an address or a peerSelector/],
    [{ ...tor, peerSelector: 'all()' }, /^address: .*either an address or a peerSelector/],
    [{ address: '192.0.2.254' }, /^asNumber: .*a peer with an address needs one/],
    [{ peerSelector: 'all()', asNumber: 1 }, /^asNumber: .*each node has its own/],
    [{ peerSelector: 'all()', port: 1179 }, /^port: .*each node has its own/],
    [{ peerSelector: 'all()', sourceAddress: '192.0.2.1' }, /^sourceAddress: .*the nodes have theirs/],
    [{ ...tor, node: 'n1', nodeSelector: 'all()' }, /^nodeSelector: .*either node or nodeSelector/],
    [{ ...tor, sourceAddress: 'fd00::1' }, /^sourceAddress: .*same family as 192\.0\.2\.254/],
    [{ ...tor, asNumber: 0 }, /^asNumber: .*from 1 to 4294967295/],
    [{ ...tor, asNumber: 4294967296 }, /^asNumber: /],
    [{ ...tor, address: '192.0.2.300' }, /^address: "192\.0\.2\.300"/],
    [{ ...tor, address: '192.0.2.254; }' }, /^address: /],
    [{ ...tor, holdSeconds: 2 }, /^holdSeconds: .*from 3 to 65535/],
    [{ ...tor, holdSeconds: 9, keepaliveSeconds: 10 }, /^keepaliveSeconds: .*at most the hold time, 9/],
    [{ ...tor, ttlSecurityHops: 255 }, /^ttlSecurityHops: .*from 1 to 254/],
    [{ ...tor, nextHop: 'other' }, /^nextHop: .*self or keep/],
    [{ ...tor, prepend: 11 }, /^prepend: .*from 0 to 10/],
    [{ ...tor, communities: ['65001:1', '65001:x'] }, /^communities\[1\]: "65001:x"/],
    [{ ...tor, importFilters: ['a b'] }, /^importFilters\[0\]: "a b"/],
    [{ ...tor, nodeSelector: 'rack =' }, /^nodeSelector: /],
    [{ ...tor, maxPrefixes: 0 }, /^maxPrefixes: /],
    [{ ...tor, colour: 'red' }, /^colour: .*no such key/],
  ];
  for (const [peer, message] of refused)
    test(`${JSON.stringify(peer)} is refused`, () => {
      assert.match(
        messageOf(() => checkJson(bgpPeerSchema, peer)),
        message,
      );
    });

  test('with a password that BIRD could not hold is refused, without a word of it', () => {
    for (const password of ['a"b', 'line\nbreak', 'bell\u0007', 'ümlaut', '', 'x'.repeat(81)]) {
      const message = messageOf(() => checkJson(bgpPeerSchema, { ...tor, password }));
      assert.match(message, /^password: .*1 to 80 printable ASCII characters without the double quote/);
      if (password.length > 1) assert.ok(!message.includes(JSON.stringify(password).slice(1, -1)), message);
    }
  });

  test('takes every other printable character in a password', () => {
    const printable = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)).filter(
      (c) => c !== '"',
    );
    for (const text of [printable.slice(0, 47).join(''), printable.slice(47).join('')])
      assert.equal(parsePassword(text), text);
  });

  test('is shown without its password and without what says nothing', () => {
    const peer = bgpPeerSchema.parse({ ...tor, password: 'secret', passive: true });
    assert.deepEqual(shownPeer(peer), { ...tor, password: 'set', passive: true });
  });
});

describe('a filter', () => {
  const refused: readonly [object, RegExp][] = [
    [{}, /^rules: .*a list of rules/],
    [{ rules: [] }, /^rules: .*at least one rule/],
    [{ rules: [{ action: 'drop' }] }, /^rules\[0\]\.action: .*accept or reject/],
    [
      { rules: [{ action: 'accept', prefixes: ['10.0.0.1/8'] }] },
      /^rules\[0\]\.prefixes\[0\]: .*no host bits set/,
    ],
    [
      { rules: [{ action: 'accept', prefixes: ['10.0.0.0/8 ge 4'] }] },
      /^rules\[0\]\.prefixes\[0\]: .*from 8 to 32/,
    ],
    [{ rules: [{ action: 'accept', prefixes: ['10.0.0.0/8 ge 24 le 16'] }] }, /ge not above le/],
    [{ rules: [{ action: 'accept', prefixes: ['10.0.0.0/8{8,24}'] }] }, /^rules\[0\]\.prefixes\[0\]: /],
    [{ rules: [{ action: 'accept', asPathPrefix: ['65001'] }] }, /^rules\[0\]\.asPathPrefix\[0\]: /],
    [{ rules: [{ action: 'accept', localPreference: -1 }] }, /^rules\[0\]\.localPreference: /],
    [{ rules: [{ action: 'accept', net: '10.0.0.0/8' }] }, /no such key/],
  ];
  for (const [filter, message] of refused)
    test(`${JSON.stringify(filter)} is refused`, () => {
      assert.match(
        messageOf(() => checkJson(bgpFilterSchema, filter)),
        message,
      );
    });
});

test('settings have a default for everything', () => {
  const { asNumber, mesh, meshPassword, bfd } = bgpSettingsSchema.parse({});
  assert.deepEqual([asNumber, mesh, meshPassword, bfd], [64512, true, null, true]);
});

describe('the texts', () => {
  test('prefixes with lengths have one form', () => {
    const forms: Readonly<Record<string, string>> = {
      '10.0.0.0/8': '10.0.0.0/8',
      '10.0.0.0/8 ge 8 le 8': '10.0.0.0/8',
      ' 10.0.0.0/8  le  24 ': '10.0.0.0/8 le 24',
      '10.0.0.0/8 ge 16': '10.0.0.0/8 ge 16',
      '10.0.0.0/8 ge 16 le 32': '10.0.0.0/8 ge 16',
      '10.0.0.0/8 ge 8': '10.0.0.0/8 le 32',
      'FD00::/8 le 64': 'fd00::/8 le 64',
    };
    for (const [text, form] of Object.entries(forms)) assert.equal(parsePrefixMatch(text), form);
  });

  test('and the form means what was written', () => {
    const lengths = fc.tuple(fc.integer({ min: 0, max: 32 }), fc.integer({ min: 0, max: 32 }));
    fc.assert(
      fc.property(lengths, fc.integer({ min: 0, max: 32 }), ([a, b], own) => {
        const [min, max] = [Math.max(own, Math.min(a, b)), Math.max(own, a, b)];
        const form = parsePrefixMatch(`0.0.0.0/${own} ge ${min} le ${max}`);
        assert.deepEqual(prefixMatchOf(form), { cidr: `0.0.0.0/${own}`, min, max });
        assert.equal(parsePrefixMatch(form), form);
      }),
    );
  });

  test('communities are two or three numbers', () => {
    assert.equal(parseCommunity('64512:0100'), '64512:100');
    assert.equal(parseCommunity('4294967295:0:1'), '4294967295:0:1');
    for (const text of ['64512', '65536:1', '1:2:4294967296', '1:2:3:4', '1:2,3:4', '', 7])
      assert.match(
        messageOf(() => parseCommunity(text)),
        /^community: /,
      );
  });
});

test('as documents they are checked by the same rules, and the error names the document', () => {
  assert.equal(parseDocument({ kind: 'bgp-peer', name: 'tor', ...tor }, 'documents[0]').key, 'bgp/peers/tor');
  assert.match(
    messageOf(() => parseDocument({ kind: 'bgp-peer', name: 'tor', address: 'x' }, 'documents[0]')),
    /^bgp-peer tor: address: "x"/,
  );
  assert.match(
    messageOf(() => parseDocument({ kind: 'bgp-filter', name: 'in', rules: [{}] }, 'documents[0]')),
    /^bgp-filter in: rules\[0\]\.action: /,
  );
});

test('the example is what `netctl apply` takes', () => {
  const text = readFileSync(join(import.meta.dirname, '../../../conf/examples/bgp.yaml'), 'utf8');
  const documents = [parseAllDocuments(text)].flat().map((document) => document.toJS() as unknown);
  const parsed = documents.map((json, i) => parseDocument(json, `documents[${i}]`));
  assert.deepEqual(
    parsed.map(({ key }) => key),
    ['bgp/peers/rack1', 'bgp/filters/from-rack', 'bgp/peers/reflectors'],
  );
});
