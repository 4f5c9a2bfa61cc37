/**
 * The messages of the etcd adapter against etcd's own definitions, and their encoding.
 *
 * In: rpc.proto and kv.proto as the etcd3 package has them (used for nothing else). Out: each field of each message has the
 * number and type that etcd gives it; what is encoded is decoded. The wire itself is proved by the other tests, on a real etcd.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import * as messages from '../../src/store/etcd-messages.ts';
import { decodeMessage, encodeMessage, type Schema } from '../../src/store/etcd-protobuf.ts';

interface Definition {
  readonly name: string;
  readonly type: string;
  readonly repeated: boolean;
}

const folder = join(dirname(createRequire(import.meta.url).resolve('etcd3/package.json')), 'proto');
const text = ['rpc.proto', 'kv.proto']
  .map((name) => readFileSync(join(folder, name), 'utf8').replace(/\/\/.*/g, ''))
  .join('\n');

const methods = [
  messages.rangeMethod,
  messages.txnMethod,
  messages.watchMethod,
  messages.authenticateMethod,
  messages.leaseGrantMethod,
  messages.leaseKeepAliveMethod,
  messages.leaseRevokeMethod,
] as const;

/** Objects as the decoder makes them. */
const record = <T>(fields: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.record(fields, { noNullPrototype: true });

describe('etcd messages', () => {
  for (const { path, request, response } of methods) {
    test(`${path} has etcd's field numbers and types`, () => {
      const [, service = '', name = ''] = /^\/etcdserverpb\.(\w+)\/(\w+)$/.exec(path)!;
      const rpc = new RegExp(`rpc ${name}\\(\\s*(?:stream )?(\\w+)\\) returns \\((?:stream )?(\\w+)\\)`);
      const [, requestName = '', responseName = ''] = rpc.exec(blockOf('service', service))!;
      assert.ok(compare(requestName, request) + compare(responseName, response) > 3);
    });
  }

  test('any answer to a watch is decoded as it was encoded', () => {
    const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array));
    const revision = fc.maxSafeNat();
    const event = record({
      type: fc.constantFrom(0, 1),
      kv: record({ key: bytes, createRevision: revision, modRevision: revision, value: bytes }),
    });
    const response = record({
      header: record({
        clusterId: fc.bigInt(0n, 2n ** 64n - 1n),
        revision,
        raftTerm: fc.bigInt(0n, 2n ** 64n - 1n),
      }),
      watchId: revision,
      created: fc.boolean(),
      canceled: fc.boolean(),
      compactRevision: revision,
      cancelReason: fc.string({ unit: 'grapheme' }),
      fragment: fc.boolean(),
      events: fc.array(event, { maxLength: 5 }),
    });
    const schema = messages.watchMethod.response;
    fc.assert(
      fc.property(response, (message) => {
        assert.deepEqual(decodeMessage(schema, encodeMessage(schema, message)), message);
      }),
    );
  });

  test('bytes from outside: a message or a RangeError, never anything else', () => {
    const schema = messages.watchMethod.response;
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (array) => {
        try {
          decodeMessage(schema, Buffer.from(array));
        } catch (error) {
          assert.ok(error instanceof RangeError, String(error));
        }
      }),
      { numRuns: 2000 },
    );
  });

  test('unknown fields are skipped, negative numbers are read, what is not exact is refused', () => {
    const schema = { id: { number: 2, type: 'number' } } as const satisfies Schema;
    const negative = [0x10, ...new Array(9).fill(0xff), 0x01];
    const unknown = [0x08, 0x05, 0x1a, 0x02, 0x61, 0x62, 0x25, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0, 0, 0, 0];
    assert.deepEqual(decodeMessage(schema, Buffer.from([...unknown, ...negative])), { id: -1 });
    assert.deepEqual(decodeMessage(schema, Buffer.alloc(0)), { id: 0 });
    const tooLarge = [0x10, ...new Array(8).fill(0xff), 0x01];
    for (const bytes of [tooLarge, [0x10], [0x10, 0x80], [0x12, 0x05, 0x00], [0x13, 0x00]])
      assert.throws(() => decodeMessage(schema, Buffer.from(bytes)), RangeError);
    for (const id of [-1, 0.5, 2 ** 53]) assert.throws(() => encodeMessage(schema, { id }), RangeError);
  });
});

/** Counts the fields that were compared. */
function compare(messageName: string, schema: Schema): number {
  const definitions = fieldsOf(messageName);
  let count = 0;
  for (const [name, field] of Object.entries(schema)) {
    const definition = definitions.get(field.number);
    assert.ok(definition, `${messageName} has no field ${field.number} (${name})`);
    const snake = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    const words = `_${definition.name.toLowerCase()}_`;
    const where = `${messageName}.${definition.name} = ${field.number}`;
    assert.ok(words.includes(`_${snake}_`), `${where} is called ${name}`);
    assert.equal(field.repeated ?? false, definition.repeated, where);
    count += 1;
    if ('message' in field) count += compare(definition.type.replace('mvccpb.', ''), field.message);
    else assert.equal(field.type, typeOf(definition.type), where);
  }
  return count;
}

function typeOf(type: string): string {
  if (['bytes', 'string', 'bool'].includes(type)) return type;
  if (type === 'uint64') return 'id';
  assert.ok(type === 'int64' || text.includes(`enum ${type} {`), type);
  return 'number';
}

function fieldsOf(messageName: string): Map<number, Definition> {
  const fields = blockOf('message', messageName)
    .replace(/enum \w+ \{[^}]*\}/g, '')
    .matchAll(/(repeated )?([\w.]+) (\w+) = (\d+);/g);
  return new Map(
    [...fields].map(([, repeated, type = '', name = '', number]) => [
      Number(number),
      { name, type, repeated: repeated !== undefined },
    ]),
  );
}

/** What is between the braces of a message or service. */
function blockOf(kind: string, name: string): string {
  const start = text.search(new RegExp(`^${kind} ${name} \\{`, 'm'));
  assert.ok(start >= 0, `etcd defines no ${kind} ${name}`);
  const end = text.indexOf('\n}', start);
  return text.slice(start, end);
}
