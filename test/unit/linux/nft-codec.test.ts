/** What is written for nftables, read again; and the frame of a transaction. What the bytes mean is asked of nft in test/kernel. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { eachAttribute, readAttributes } from '../../../src/linux/netlink/attribute.ts';
import { MessageBatch, NLM_F_ACK, readMessages } from '../../../src/linux/netlink/message.ts';
import { elementsOf } from '../../../src/linux/netlink/nft-element.ts';
import { readElements, readRule, readSet } from '../../../src/linux/netlink/nft-list.ts';
import { checkNftRequest, splitNftRequests, writeTransaction } from '../../../src/linux/netlink/nftables.ts';
import type { NftElement, NftExpression, NftRequest, NftSetSpec } from '../../../src/linux/nftables-port.ts';
import { addressFrom, type Family, networkOf } from '../../../src/model/ip.ts';

const own = { family: 4, table: 't' } as const;

function write(...requests: NftRequest[]) {
  const batch = new MessageBatch(100);
  const positions = writeTransaction(batch, splitNftRequests(requests));
  return { messages: readMessages(batch.bytes()), positions };
}

const value = (family: Family) => fc.bigInt({ min: 0n, max: (1n << (family === 4 ? 32n : 128n)) - 1n });
const id = fc.integer({ min: 0, max: 0xffffffff });
const name = fc.constantFrom('eth0', 'nctl0123456789a', 'x');

/** Elements that do not overlap: of prefixes only one of each length, each in its own part of the addresses. */
function elements(spec: NftSetSpec, family: Family): fc.Arbitrary<NftElement[]> {
  const address = value(family).map((number) => addressFrom(family, number));
  const text = spec.prefixes
    ? fc
        .tuple(address, fc.integer({ min: 1, max: family === 4 ? 32 : 128 }))
        .map(([a, bits]) => networkOf(a, bits))
    : address;
  const key =
    spec.key === 'id' ? id.map(String) : spec.key === 'address' ? text : fc.tuple(text, name).map(String);
  const data =
    spec.data === null ? fc.constant(null) : spec.data === 'id' ? id : fc.constant({ kind: 'drop' } as const);
  const many = spec.prefixes && spec.key === 'address' ? 1 : 20;
  return fc.uniqueArray(fc.tuple(key, data), { maxLength: many, selector: ([each]) => each });
}

describe('sets', () => {
  for (const spec of [
    { key: 'address', prefixes: false, data: null },
    { key: 'address', prefixes: true, data: null },
    { key: 'pair', prefixes: false, data: null },
    { key: 'pair', prefixes: true, data: 'id' },
    { key: 'id', prefixes: false, data: 'verdict' },
  ] as NftSetSpec[]) {
    for (const family of [4, 6] as const) {
      test(`${JSON.stringify(spec)} of IPv${family} and its elements`, () => {
        fc.assert(
          fc.property(elements(spec, family), (list) => {
            const set = { family, table: 't', set: 's', spec } as const;
            const { messages } = write(
              { ...set, kind: 'set-add' },
              { ...set, kind: 'elements-add', elements: list },
            );
            assert.deepEqual(readSet(messages[1]!, { family, table: 't' }), { name: 's', spec });
            const raw = messages.slice(2, -1).flatMap(readElements);
            assert.deepEqual(elementsOf(raw, family, spec), list);
          }),
          { numRuns: 50 },
        );
      });
    }
  }

  test('prefixes side by side, and one to the end of all addresses', () => {
    const spec = { key: 'address', prefixes: true, data: null } as const;
    const list: NftElement[] = [
      ['240.0.0.0/4', null],
      ['11.0.0.0/8', null],
      ['10.0.0.0/8', null],
      ['0.0.0.0/8', null],
    ];
    const { messages } = write({ ...own, kind: 'elements-add', set: 's', spec, elements: list });
    assert.deepEqual(
      elementsOf(
        messages.flatMap((m, i) => (i === 1 ? readElements(m) : [])),
        4,
        spec,
      ).map(([key]) => key),
      ['0.0.0.0/8', '10.0.0.0/8', '11.0.0.0/8', '240.0.0.0/4'],
    );
  });
});

describe('a transaction', () => {
  const spec = { key: 'address', prefixes: false, data: null } as const;
  const many = Array.from({ length: 1200 }, (_, i): NftElement => [`10.0.${i >> 8}.${i & 255}`, null]);

  test('stands between a begin and an end; only its last request asks for an answer', () => {
    const { messages, positions } = write(
      { ...own, kind: 'table-add' },
      { ...own, kind: 'elements-add', set: 's', spec, elements: many },
      { ...own, kind: 'chain-delete', chain: 'c' },
    );
    assert.deepEqual(positions, [null, 0, 1, 1, 1, 2, null]);
    assert.deepEqual([messages[0]!.type, messages.at(-1)!.type], [0x10, 0x11]);
    assert.deepEqual(
      messages.map(({ flags }) => (flags & NLM_F_ACK) !== 0),
      positions.map((position) => position === 2),
    );
    assert.equal(messages.slice(2, 5).flatMap(readElements).length, 1200);
  });

  test('a rule with several ranges has their set before it, found by its number', () => {
    const ranges = [
      { from: 1, to: 2 },
      { from: 4, to: 65535 },
    ];
    const inRanges = (negated: boolean): NftExpression => ({ kind: 'in-ranges', from: 1, negated, ranges });
    const rule = {
      expressions: [inRanges(false), inRanges(true), { kind: 'counter' } as const],
      comment: 'why',
    };
    const { messages, positions } = write({ ...own, kind: 'rule-add', chain: 'c', rule });
    assert.deepEqual(positions, [null, 0, 0, 0, 0, 0, null]);
    const ids = [1, 3].map((at) =>
      readAttributes(messages[at]!.payload.subarray(4)).get(10)!.readUInt32BE(0),
    );
    assert.notEqual(ids[0], ids[1]);
    const expressions = readAttributes(messages[5]!.payload.subarray(4)).get(4)!;
    const named = [...eachAttribute(expressions)].slice(0, 2).map(({ value: bytes }) => {
      const data = readAttributes(readAttributes(bytes).get(2)!);
      return [data.get(4)!.readUInt32BE(0), data.get(5)!.readUInt32BE(0)];
    });
    assert.deepEqual(named, [
      [ids[0], 0],
      [ids[1], 1],
    ]);
    assert.deepEqual(readRule(messages[5]!, 't'), { chain: 'c', comment: 'why' });
    assert.equal(readRule(messages[5]!, 'other'), null);
  });

  test('names and comments that nft could not read back are refused', () => {
    for (const chain of ['', 'a b', '9a', 'ä', 'x'.repeat(256), '$a', '-a'])
      assert.throws(
        () => checkNftRequest({ ...own, kind: 'chain-flush', chain }),
        { code: 'INVALID' },
        chain,
      );
    for (const comment of ['x'.repeat(128), 'a"b', 'ä', 'a\nb'])
      assert.throws(
        () => checkNftRequest({ ...own, kind: 'rule-add', chain: 'c', rule: { expressions: [], comment } }),
        { code: 'INVALID' },
        comment,
      );
    checkNftRequest({ ...own, kind: 'chain-flush', chain: 'nctl-in-a.b_c-9Z' });
  });
});
