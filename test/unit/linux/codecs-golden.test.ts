/**
 * The netlink codecs write byte for byte what `ip` and `ipset` send.
 *
 * In: bytes recorded with strace from iproute2 6.1 and ipset 7.17. Out: tests. Never: a kernel.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { writeAddressAdd } from '../../../src/linux/netlink/address.ts';
import { splitIpSetRequests, writeIpSet } from '../../../src/linux/netlink/ipset.ts';
import { writeLinkSet, writeVlanAdd } from '../../../src/linux/netlink/link.ts';
import { MessageBatch } from '../../../src/linux/netlink/message.ts';
import { writeNeighbourReplace } from '../../../src/linux/netlink/neighbour.ts';
import { writeRoute } from '../../../src/linux/netlink/route.ts';
import { type Address, networkOf } from '../../../src/model/ip.ts';
import type { Mac } from '../../../src/model/mac.ts';

/** All messages in hex, with sequence numbers as in the recordings. */
function hex(write: (batch: MessageBatch) => void, firstSequence: number): string {
  const batch = new MessageBatch(firstSequence);
  write(batch);
  return batch.finish().toString('hex');
}

describe('byte for byte what the tools send', () => {
  const recorded = (text: string) => text.replaceAll(/\s/g, '');

  test('ip neigh replace 10.0.0.2 lladdr 02:42:0a:00:00:01 dev va nud permanent', () => {
    const request = { index: 1000, address: '10.0.0.2' as Address, mac: '02:42:0a:00:00:01' as Mac };
    assert.equal(
      hex((batch) => writeNeighbourReplace(batch, request), 0x6b0199f8),
      recorded(`30 00 00 00 1c 00 05 05  f8 99 01 6b 00 00 00 00  02 00 00 00 e8 03 00 00  80 00 00 00 08 00 01 00
                0a 00 00 02 0a 00 02 00  02 42 0a 00 00 01 00 00`),
    );
  });

  test('ip route add 10.0.0.2/32 dev va scope link proto 110', () => {
    const route = {
      destination: networkOf('10.0.0.2' as Address, 32),
      type: 'unicast',
      linkIndex: 1000,
      scope: 'link',
      protocol: 110,
    } as const;
    assert.equal(
      hex((batch) => writeRoute(batch, 'route-add', route), 0x6b0199f7),
      recorded(`2c 00 00 00 18 00 05 06  f7 99 01 6b 00 00 00 00  02 20 00 00 fe 6e fd 01  00 00 00 00 08 00 01 00
                0a 00 00 02 08 00 04 00  e8 03 00 00`),
    );
  });

  test('ip -6 route add default via fe80::1 dev va proto 110', () => {
    const destination = networkOf('::' as Address, 0);
    const route = {
      destination,
      type: 'unicast',
      gateway: 'fe80::1' as Address,
      linkIndex: 1000,
      protocol: 110,
    } as const;
    assert.equal(
      hex((batch) => writeRoute(batch, 'route-add', route), 0x6b0199f7),
      recorded(`4c 00 00 00 18 00 05 06  f7 99 01 6b 00 00 00 00  0a 00 00 00 fe 6e 00 01  00 00 00 00 14 00 01 00
                00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  14 00 05 00 fe 80 00 00  00 00 00 00 00 00 00 00
                00 00 00 01 08 00 04 00  e8 03 00 00`),
    );
  });

  test('ip link add link d0 name d0.100 mtu 1400 type vlan id 100: what makes it a VLAN', () => {
    const link = { name: 'd0.100', index: 1001, mtuBytes: 1400 };
    const bytes = hex(
      (batch) => writeVlanAdd(batch, { kind: 'vlan-add', parentIndex: 3, id: 100, link, alias: 'x' }),
      1,
    );
    for (const attribute of [
      '08 00 04 00 78 05 00 00',
      '08 00 05 00 03 00 00 00',
      '0b 00 03 00 64 30 2e 31 30 30 00',
      '0c 00 02 80 06 00 01 00 64 00 00 00',
    ])
      assert.ok(bytes.includes(recorded(attribute)), `${attribute} in ${bytes}`);
    assert.ok(bytes.includes(Buffer.from('vlan').toString('hex')));
  });

  test('ip addr add fd00::2/128 dev va nodad', () => {
    assert.equal(
      hex(
        (batch) => writeAddressAdd(batch, { index: 1000, address: 'fd00::2' as Address, prefixLength: 128 }),
        0x6b0199f7,
      ),
      recorded(`40 00 00 00 14 00 05 06  f7 99 01 6b 00 00 00 00  0a 80 02 00 e8 03 00 00  14 00 02 00 fd 00 00 00
                00 00 00 00 00 00 00 00  00 00 00 02 14 00 01 00  fd 00 00 00 00 00 00 00  00 00 00 00 00 00 00 02`),
    );
  });

  test('ip link set va up', () => {
    assert.equal(
      hex((batch) => writeLinkSet(batch, { kind: 'link-set', index: 1000, up: true }), 0x6b0199f7),
      recorded(
        `20 00 00 00 10 00 05 00  f7 99 01 6b 00 00 00 00  00 00 00 00 e8 03 00 00  01 00 00 00 01 00 00 00`,
      ),
    );
  });

  test('ipset add x 10.0.0.1/32: address and prefix length, nested and in network order', () => {
    const [part] = splitIpSetRequests([{ kind: 'add', name: 'x', members: ['10.0.0.1/32'] }]);
    const bytes = hex((batch) => writeIpSet(batch, part!), 1);
    assert.ok(
      bytes.includes(recorded('20 00 07 80  0c 00 01 80 08 00 01 40  0a 00 00 01 05 00 03 00  20 00 00 00')),
      bytes,
    );
  });
});
