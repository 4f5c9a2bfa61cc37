/** Which settings of a kernel are complained about, and which do no harm. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hostNotices } from '../../../src/dataplane/host-limits.ts';
import {
  type AddressInfo,
  KernelError,
  type LinkInfo,
  type NeighbourInfo,
} from '../../../src/linux/ports.ts';
import { addressFrom, addressValue, familyOf, parseAddress } from '../../../src/model/ip.ts';
import type { Mac } from '../../../src/model/mac.ts';

interface Wanted {
  readonly uplinks?: readonly string[];
  readonly settings?: Readonly<Record<string, string>>;
  readonly learned?: readonly [first: string, count: number][];
}

function notices({ uplinks = ['eth0'], settings = {}, learned = [] }: Wanted): Promise<string[]> {
  const links = ['lo', ...uplinks, 'nctl0123456789a'].map(
    (name, i): LinkInfo => ({
      ...{ index: i + 1, name, type: 'veth', up: true, mtuBytes: 1500, mac: null, peerIndex: null },
      ...({} as LinkInfo),
    }),
  );
  const address = parseAddress('192.0.2.1');
  const mac = '02:00:00:00:00:01' as Mac;
  const permanent: NeighbourInfo = { linkIndex: 2, address, mac, permanent: true };
  const neighbours = learned.flatMap(([first, count]) =>
    Array.from({ length: count }, (_, i): NeighbourInfo => {
      const start = parseAddress(first);
      const at = addressFrom(familyOf(start), addressValue(start) + BigInt(i));
      return { linkIndex: 2, address: at, mac, permanent: false };
    }),
  );
  return hostNotices(
    {
      readSysctl(path) {
        const value = settings[path];
        if (value === undefined) throw new KernelError(`read ${path}`, 'ENOENT', null);
        return value;
      },
    },
    {
      links: async () => links,
      addresses: async () =>
        links.map(
          ({ index }): AddressInfo => ({ linkIndex: index, address, prefixLength: 24, tentative: false }),
        ),
      neighbours: async () => [...Array.from({ length: 2000 }, () => permanent), ...neighbours],
    },
  );
}

const strictEverywhere = { 'net/ipv4/conf/all/rp_filter': '1' };

test('a strict reverse path filter is named where there are several ways', async () => {
  assert.deepEqual(await notices({ settings: strictEverywhere }), [], 'one way only');
  const both = await notices({ uplinks: ['eth0', 'eth1'], settings: strictEverywhere });
  assert.equal(both.length, 2);
  assert.match(both[0]!, /rp_filter is strict on eth0 .*2 ways.*net\.ipv4\.conf\.eth0\.rp_filter=2/);
  const loose = { ...strictEverywhere, 'net/ipv4/conf/eth0/rp_filter': '2' };
  const [one, ...others] = await notices({ uplinks: ['eth0', 'eth1'], settings: loose });
  assert.match(one!, /eth1/);
  assert.deepEqual(others, []);
  assert.deepEqual(await notices({ uplinks: ['eth0', 'eth1'] }), [], 'no filter at all');
});

test('a neighbour table that is nearly full is named; entries for good do not count', async () => {
  const limits = { 'net/ipv4/neigh/default/gc_thresh3': '1024', 'net/ipv6/neigh/default/gc_thresh3': '1024' };
  assert.deepEqual(await notices({ settings: limits, learned: [['10.0.0.1', 800]] }), []);
  const [told, ...others] = await notices({
    settings: limits,
    learned: [
      ['10.0.0.1', 5],
      ['fd00::1', 900],
    ],
  });
  assert.match(told!, /IPv6 has 900 learned entries of 1024.*net\.ipv6\.neigh\.default\.gc_thresh3=4096/);
  assert.deepEqual(others, []);
  assert.deepEqual(
    await notices({ learned: [['10.0.0.1', 5000]] }),
    [],
    'a kernel that does not show its limit',
  );
});
