/**
 * The netlink codecs: what is written can be read back, and noise breaks no reader.
 *
 * In: random values. Out: tests. Never: a kernel.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { readAddress, writeAddressAdd } from '../../../src/linux/netlink/address.ts';
import {
  ByteWriter,
  eachAttribute,
  readAttributes,
  readText,
  readU32,
} from '../../../src/linux/netlink/attribute.ts';
import {
  ConnectionPicker,
  isListCheaper,
  readConnection,
  writeDelete,
  writeFilteredDeletes,
} from '../../../src/linux/netlink/conntrack.ts';
import { errnoName } from '../../../src/linux/netlink/errno.ts';
import {
  ipSetError,
  readFailedLine,
  readSetPart,
  splitIpSetRequests,
  writeIpSet,
} from '../../../src/linux/netlink/ipset.ts';
import { readLink, writeLinkDelete, writeLinkSet, writeVethAdd } from '../../../src/linux/netlink/link.ts';
import { type Message, MessageBatch, readAnswer, readMessages } from '../../../src/linux/netlink/message.ts';
import { readNeighbour, writeNeighbourReplace } from '../../../src/linux/netlink/neighbour.ts';
import { readRoute, writeRoute } from '../../../src/linux/netlink/route.ts';
import { readMarkRule, writeMarkRule } from '../../../src/linux/netlink/rule.ts';
import {
  type Address,
  addressBits,
  addressFrom,
  type Family,
  familyOf,
  networkOf,
} from '../../../src/model/ip.ts';
import { macFromBytes } from '../../../src/model/mac.ts';

const family = fc.constantFrom<Family>(4, 6);
const address = family.chain((of) =>
  fc.bigInt(0n, (1n << BigInt(addressBits(of))) - 1n).map((value) => addressFrom(of, value)),
);
const cidr = fc
  .tuple(address, fc.nat(128))
  .map(([of, bits]) => networkOf(of, Math.min(bits, addressBits(familyOf(of)))));
const memberCidr = cidr.filter((prefix) => !prefix.endsWith('/0'));
const index = fc.integer({ min: 1, max: 2 ** 31 - 1 });
const interfaceName = fc
  .stringMatching(/^[a-zA-Z0-9_.-]{1,15}$/)
  .filter((name) => name !== '.' && name !== '..');
const mac = fc
  .uint8Array({ minLength: 6, maxLength: 6 })
  .filter((bytes) => (bytes[0]! & 1) === 0 && bytes.some((byte) => byte !== 0))
  .map(macFromBytes);
const mtuBytes = fc.integer({ min: 68, max: 65535 });

/** The one message that `write` makes, as a reader sees it. */
function written(write: (batch: MessageBatch) => void): Message {
  const batch = new MessageBatch(9);
  write(batch);
  const messages = readMessages(batch.finish());
  assert.equal(messages.length, 1);
  return messages[0]!;
}

describe('what is written is read back', () => {
  test('addresses', () => {
    fc.assert(
      fc.property(index, address, fc.nat(128), (linkIndex, of, bits) => {
        const prefixLength = Math.min(bits, addressBits(familyOf(of)));
        const message = written((batch) =>
          writeAddressAdd(batch, { index: linkIndex, address: of, prefixLength }),
        );
        assert.deepEqual(readAddress(message), { linkIndex, address: of, prefixLength, tentative: false });
      }),
    );
  });

  test('routes', () => {
    fc.assert(
      fc.property(
        cidr,
        index,
        fc.integer({ min: 1, max: 255 }),
        fc.boolean(),
        (destination, linkIndex, protocol, withGateway) => {
          const gateway = (familyOf(destination) === 4 ? '192.0.2.1' : 'fe80::1') as Address;
          const route = {
            destination,
            type: 'unicast',
            linkIndex,
            protocol,
            ...(withGateway ? { gateway } : {}),
          } as const;
          const message = written((batch) => writeRoute(batch, 'route-add', route));
          const expected = {
            destination,
            type: 'unicast',
            linkIndex,
            gateway: withGateway ? gateway : null,
            protocol,
          };
          assert.deepEqual(readRoute(message), expected);
        },
      ),
    );
  });

  test('rules by mark', () => {
    const u32 = fc.integer({ min: 1, max: 0xffffffff });
    fc.assert(
      fc.property(family, u32, u32, u32, (of, mark, mask, table) => {
        const rule = { family: of, mark, mask, table };
        assert.deepEqual(readMarkRule(written((batch) => writeMarkRule(batch, rule, 'add'))), rule);
      }),
    );
  });

  test('neighbours', () => {
    fc.assert(
      fc.property(index, address, mac, (linkIndex, of, hardware) => {
        const message = written((batch) =>
          writeNeighbourReplace(batch, { index: linkIndex, address: of, mac: hardware }),
        );
        assert.deepEqual(readNeighbour(message), { linkIndex, address: of, mac: hardware, permanent: true });
      }),
    );
  });

  test('links', () => {
    fc.assert(
      fc.property(index, interfaceName, mac, mtuBytes, (host, name, hardware, mtu) => {
        const peer = { name: 'eth0', index: host === 1 ? 2 : 1, mac: hardware, mtuBytes: mtu, netnsFd: 5 };
        const request = {
          kind: 'veth-add',
          host: { name, index: host, mac: hardware, mtuBytes: mtu },
          peer,
        } as const;
        const link = readLink(written((batch) => writeVethAdd(batch, request)));
        assert.deepEqual(link, {
          index: host,
          name,
          type: 'veth',
          mac: hardware,
          mtuBytes: mtu,
          up: false,
          running: false,
          peerIndex: null,
          parentIndex: null,
          masterIndex: null,
          alias: null,
          macvlanMode: null,
        });
      }),
    );
  });

  test('members of sets, in as many messages as it takes', () => {
    const member = fc.oneof(
      memberCidr,
      fc.tuple(memberCidr, interfaceName).map(([prefix, name]) => `${prefix},${name}`),
    );
    fc.assert(
      fc.property(fc.array(member, { maxLength: 40 }), fc.integer({ min: 1, max: 60 }), (few, times) => {
        const members = Array.from({ length: times }, () => few).flat();
        const parts = splitIpSetRequests([
          { kind: 'flush', name: 'other' },
          { kind: 'add', name: 'set', members },
        ]);
        const batch = new MessageBatch(1);
        for (const part of parts) writeIpSet(batch, part);
        const messages = readMessages(batch.finish());
        assert.equal(messages.length, parts.length);
        assert.ok(messages.every((message) => message.payload.length < 65_536));
        assert.deepEqual(parts.slice(1).flatMap(() => 1).length, Math.ceil(members.length / 500));
        assert.deepEqual(
          messages.slice(1).flatMap((message) => readSetPart(message)!.members),
          members,
        );
      }),
      { numRuns: 40 },
    );
  });

  test('attributes of any content', () => {
    const attribute = fc.record({ type: fc.nat(0x3fff), value: fc.uint8Array({ maxLength: 300 }) });
    fc.assert(
      fc.property(fc.array(attribute), (attributes) => {
        const writer = new ByteWriter(1);
        for (const { type, value } of attributes) writer.attribute(type, value);
        const read = [...eachAttribute(writer.bytes())].map(({ type, value }) => ({
          type,
          value: Uint8Array.from(value),
        }));
        assert.deepEqual(
          read,
          attributes.map(({ type, value }) => ({ type, value: Uint8Array.from(value) })),
        );
      }),
    );
  });

  test('no bytes make a reader throw anything but an error about netlink', () => {
    const picker = new ConnectionPicker(['10.0.0.1', 'fd00::1'] as Address[]);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
        const payload = Buffer.from(noise);
        const message: Message = { type: 16, flags: 0x200, sequence: 1, port: 0, payload };
        for (const read of [
          readLink,
          readAddress,
          readRoute,
          readMarkRule,
          readNeighbour,
          readSetPart,
          readConnection,
          (each: Message) => picker.pick(each),
          readAnswer,
          readFailedLine,
        ]) {
          read(message);
        }
        try {
          readMessages(payload);
        } catch (error) {
          assert.match((error as Error).message, /^netlink:/);
        }
      }),
    );
  });
});

describe('messages and answers', () => {
  test('only the last message of a batch asks for an acknowledgement; numbers count up', () => {
    const batch = new MessageBatch(5);
    for (let i = 1; i <= 3; i++) writeLinkDelete(batch, { index: i });
    const messages = readMessages(batch.finish());
    assert.deepEqual(
      messages.map(({ flags, sequence }) => [flags, sequence]),
      [
        [1, 5],
        [1, 6],
        [5, 7],
      ],
    );
  });

  test('a change that also brings the link up is two messages, up last', () => {
    const batch = new MessageBatch(1);
    writeLinkSet(batch, {
      kind: 'link-set',
      index: 4,
      up: true,
      ipv6AddressGeneration: 'none',
      mtuBytes: 1400,
    });
    const [first, second, ...more] = readMessages(batch.finish()).map((message) => readLink(message));
    assert.deepEqual([first?.up, first?.mtuBytes, second?.up, more.length], [false, 1400, true, 0]);
  });

  test('the kernel’s words follow the error, with the request echoed or only its header', () => {
    const text = Buffer.from('\x1f\x00\x01\x00Nexthop has invalid gateway\0\0', 'latin1');
    const error = Buffer.from([0x9b, 0xff, 0xff, 0xff]);
    const header = Buffer.alloc(16);
    header.writeUInt32LE(20, 0);
    const capped = {
      type: 2,
      flags: 0x300,
      sequence: 1,
      port: 0,
      payload: Buffer.concat([error, header, text]),
    };
    const full = {
      type: 2,
      flags: 0x200,
      sequence: 1,
      port: 0,
      payload: Buffer.concat([error, header, Buffer.alloc(4), text]),
    };
    const done = { type: 3, flags: 0x202, sequence: 1, port: 0, payload: Buffer.concat([error, text]) };
    for (const message of [capped, full, done]) {
      assert.deepEqual(readAnswer(message), { errno: 101, text: 'Nexthop has invalid gateway' });
    }
    assert.deepEqual(readAnswer({ type: 2, flags: 0, sequence: 1, port: 0, payload: Buffer.alloc(20) }), {
      errno: 0,
      text: null,
    });
  });

  test('error numbers have the names of their subsystem', () => {
    assert.deepEqual([17, 19, 95, 11, 9999].map(errnoName), [
      'EEXIST',
      'ENODEV',
      'EOPNOTSUPP',
      'EAGAIN',
      'E9999',
    ]);
    assert.equal(ipSetError(4100).name, 'IPSET_ERR_BUSY');
    assert.equal(ipSetError(4352).text, 'the set is full');
    assert.deepEqual(ipSetError(2), { name: 'ENOENT', text: null });
  });

  test('an error about a member brings the request back with its line', () => {
    const [part] = splitIpSetRequests([{ kind: 'add', name: 'x', members: ['10.0.0.1/32'] }]);
    const batch = new MessageBatch(1);
    writeIpSet(batch, { ...part!, firstLine: 41 });
    const payload = Buffer.concat([Buffer.alloc(4), batch.finish()]);
    assert.equal(readFailedLine({ type: 2, flags: 0, sequence: 1, port: 0, payload }), 41);
    assert.equal(
      readFailedLine({ type: 2, flags: 0, sequence: 1, port: 0, payload: Buffer.alloc(20) }),
      null,
    );
  });

  test('text and numbers of attributes', () => {
    assert.equal(readText(Buffer.from('abc\0def')), 'abc');
    assert.equal(readText(Buffer.from('abc')), 'abc');
    assert.equal(readU32(Buffer.from([1, 0])), null);
  });

  test('what cannot be is refused before it is sent', () => {
    const batch = new MessageBatch(1);
    const route = {
      destination: networkOf('10.0.0.0' as Address, 8),
      type: 'unicast',
      protocol: 110,
    } as const;
    const wrong: (() => void)[] = [
      () => writeRoute(batch, 'route-add', { ...route, gateway: 'fe80::1' as Address }),
      () => writeRoute(batch, 'route-add', { ...route, protocol: 256 }),
      () => writeRoute(batch, 'route-add', { ...route, type: 'blackhole', linkIndex: 3 }),
      () => writeRoute(batch, 'route-add', { ...route, linkIndex: 2 ** 31 }),
      () => writeLinkDelete(batch, { index: 0 }),
      () => writeAddressAdd(batch, { index: 1, address: '10.0.0.1' as Address, prefixLength: 33 }),
    ];
    for (const write of wrong) assert.throws(write, { code: 'INVALID' });
    assert.equal(batch.count, 0);
  });
});

test('one list of all connections is taken for many addresses, for fewer the more connections there are', () => {
  for (const [connections, first] of [
    [1, 10],
    [1000, 6],
    [10_000, 4],
    [150_000, 3],
    [Number.MAX_SAFE_INTEGER, 3],
  ] as const) {
    const addresses = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11].filter((count) =>
      isListCheaper(count, connections),
    );
    assert.equal(addresses[0], first, `${connections} connections`);
    assert.equal(addresses.length, 12 - first);
  }
});

test('a connection is found by the address at either of its ends, and deleted by its own bytes', () => {
  const places = ['10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4'] as Address[];
  const writer = new ByteWriter();
  writer.u32(2);
  for (const [type, source, destination] of [
    [1, places[0]!, places[1]!],
    [2, places[2]!, places[3]!],
  ] as const) {
    writer.nested(type | 0x8000, () =>
      writer.nested(1 | 0x8000, () => {
        writer.attribute(1, Uint8Array.from(source.split('.'), Number));
        writer.attribute(2, Uint8Array.from(destination.split('.'), Number));
      }),
    );
  }
  writer.attributeU32(12, 77);
  const message = { type: 0x100, flags: 2, sequence: 1, port: 0, payload: writer.bytes() };
  const connection = readConnection(message)!;
  const others = ['10.0.0.5', 'fd00::1'] as Address[];
  for (const [wanted, isPicked] of [
    [[places[0]!], true],
    [[places[1]!], false],
    [[places[2]!], true],
    [[places[3]!], false],
    [others, false],
    [[...others, places[2]!], true],
    [[], false],
  ] as const) {
    const picked = new ConnectionPicker(wanted).pick(message);
    assert.deepEqual(picked, isPicked ? connection : null, String(wanted));
  }
  const attributes = readAttributes(written((batch) => writeDelete(batch, connection)).payload.subarray(4));
  assert.deepEqual([attributes.get(1), readU32(attributes.get(12))], [connection.original, 77]);

  // Without a tuple, a deletion would flush the table: each of the two has one.
  const batch = new MessageBatch(1);
  writeFilteredDeletes(batch, places[0]!);
  const deletions = readMessages(batch.finish()).map(({ payload }) => readAttributes(payload.subarray(4)));
  assert.deepEqual(
    deletions.map((of) => [of.has(1), of.has(2), of.has(25)]),
    [
      [true, false, true],
      [false, true, true],
    ],
  );
});
