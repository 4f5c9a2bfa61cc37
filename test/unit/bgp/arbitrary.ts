/**
 * Random clusters that the model accepts: nodes of every family, peers and filters with any of their settings.
 *
 * In: nothing. Out: arbitraries. Never: a record that has not been through its schema.
 */
import fc from 'fast-check';
import type { BgpInput, BgpNode } from '../../../src/bgp/config.ts';
import {
  type BgpFilter,
  type BgpPeer,
  bgpFilterSchema,
  bgpPeerSchema,
  bgpSettingsSchema,
} from '../../../src/model/bgp.ts';
import { type Address, addressFrom, addressValue, type Cidr, networkOf } from '../../../src/model/ip.ts';

const asNumber = fc.integer({ min: 1, max: 4_294_967_295 });
const address4 = fc.integer({ min: 1, max: 250 }).map((number) => `192.0.2.${number}` as Address);
const address6 = fc
  .integer({ min: 1, max: 0xffff })
  .map((number) => `2001:db8::${number.toString(16)}` as Address);
const cidr = fc
  .tuple(
    fc.constantFrom<4 | 6>(4, 6),
    fc.bigInt({ min: 0n, max: (1n << 128n) - 1n }),
    fc.integer({ min: 0, max: 128 }),
  )
  .map(([family, value, length]): Cidr => {
    const bits = family === 4 ? 32 : 128;
    return networkOf(addressFrom(family, value >> BigInt(128 - bits)), length % (bits + 1));
  });
const prefixMatch = cidr.chain((net) => {
  const own = Number(net.split('/')[1]);
  const most = net.includes(':') ? 128 : 32;
  return fc
    .tuple(fc.integer({ min: own, max: most }), fc.integer({ min: own, max: most }))
    .map(([a, b]) => `${net} ge ${Math.min(a, b)} le ${Math.max(a, b)}`);
});
const community = fc.oneof(
  fc.tuple(fc.integer({ min: 0, max: 65535 }), fc.integer({ min: 0, max: 65535 })),
  fc.tuple(fc.nat(0xffff_ffff), fc.nat(0xffff_ffff), fc.nat(0xffff_ffff)),
);
const communities = fc.array(
  community.map((parts) => parts.join(':')),
  { maxLength: 4 },
);
const name = fc.stringMatching(/^[a-zA-Z0-9_.-]{1,40}$/).filter((text) => text !== '.' && text !== '..');
const filterName = fc.oneof(fc.constantFrom('f-1', 'f.1', 'F_1', 'gone'), name);
const password = fc
  .string({ unit: 'grapheme-ascii', minLength: 1, maxLength: 80 })
  .map((text) => text.replaceAll('"', "'"))
  .filter((text) => text !== 'set');
const labels = fc.record({ rack: fc.constantFrom('r1', 'r2') }, { requiredKeys: [] });
const selector = fc.constantFrom('all()', 'has(rack)', 'rack == "r1"', 'rack != "r2"');
const maybe = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | null> => fc.option(value, { nil: null });

const node: fc.Arbitrary<BgpNode> = fc.record({
  address4: maybe(address4),
  address6: maybe(address6),
  asNumber: maybe(asNumber),
  labels: labels as fc.Arbitrary<Record<string, string>>,
  routeReflectorClusterId: maybe(address4),
  bgpPort: maybe(fc.integer({ min: 1, max: 65535 })),
});

const common = {
  node: fc.constant(null),
  nodeSelector: maybe(selector),
  password: maybe(password),
  holdSeconds: maybe(fc.integer({ min: 3, max: 65535 })),
  localAsNumber: maybe(asNumber),
  multihop: maybe(fc.boolean()),
  ttlSecurityHops: maybe(fc.integer({ min: 1, max: 254 })),
  bfd: maybe(fc.boolean()),
  passive: fc.boolean(),
  nextHop: maybe(fc.constantFrom('self', 'keep')),
  extendedNextHop: fc.boolean(),
  allowOwnAsNumbers: fc.integer({ min: 0, max: 10 }),
  prepend: fc.integer({ min: 0, max: 10 }),
  communities,
  importFilters: fc.array(filterName, { maxLength: 3 }),
  exportFilters: fc.array(filterName, { maxLength: 3 }),
  maxPrefixes: maybe(fc.integer({ min: 1, max: 1_000_000 })),
};
const peer: fc.Arbitrary<BgpPeer> = fc
  .oneof(
    fc.record({
      ...common,
      address: fc.oneof(address4, address6),
      asNumber,
      port: maybe(fc.integer({ min: 1, max: 65535 })),
    }),
    fc.record({ ...common, peerSelector: selector }),
  )
  .map((record) => bgpPeerSchema.parse(record));

const filter: fc.Arbitrary<BgpFilter> = fc
  .array(
    fc.record({
      action: fc.constantFrom('accept', 'reject'),
      prefixes: fc.array(prefixMatch, { maxLength: 4 }),
      communities,
      asPathPrefix: fc.array(asNumber, { maxLength: 3 }),
      addCommunities: communities,
      prepend: fc.integer({ min: 0, max: 3 }),
      localPreference: maybe(fc.nat(0xffff_ffff)),
    }),
    { minLength: 1, maxLength: 4 },
  )
  .map((rules) => bgpFilterSchema.parse({ rules }));

const settings = fc
  .record({
    asNumber,
    mesh: fc.boolean(),
    meshPassword: maybe(password),
    bfd: fc.boolean(),
    bfdIntervalMilliseconds: fc.integer({ min: 10, max: 10_000 }),
    bfdMultiplier: fc.integer({ min: 2, max: 50 }),
    gracefulRestartSeconds: fc.integer({ min: 1, max: 4095 }),
    communities,
  })
  .map((record) => bgpSettingsSchema.parse(record));

/** Seen from `node0`. No two nodes share an address. */
export const aCluster: fc.Arbitrary<BgpInput> = fc
  .record({
    nodes: fc.array(node, { minLength: 1, maxLength: 5 }),
    peers: fc.dictionary(name, peer, { maxKeys: 4 }),
    filters: fc.dictionary(filterName, fc.option(filter, { nil: null }), { maxKeys: 4 }),
    settings,
    pools: fc.array(cidr, { maxLength: 3 }),
    near: fc.bigInt({ min: 0n, max: 255n }),
  })
  .map(({ nodes, peers, filters, settings, pools, near }) => ({
    node: 'node0',
    nodes: new Map(distinct(nodes).map((each, i) => [`node${i}`, each])),
    peers: new Map(Object.entries(peers)),
    filters: new Map(Object.entries(filters)),
    settings,
    pools,
    isOnLink: (address: Address) => addressValue(address) % 256n <= near,
  }));

function distinct(nodes: readonly BgpNode[]): BgpNode[] {
  const seen = new Set<Address>();
  const once = (address: Address | null): Address | null => {
    if (address === null || seen.has(address)) return null;
    seen.add(address);
    return address;
  };
  return nodes.map((each) => ({ ...each, address4: once(each.address4), address6: once(each.address6) }));
}
