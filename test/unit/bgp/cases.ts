/**
 * The clusters whose configuration is kept as a golden file, each parsed by the real BIRD too.
 *
 * In: nothing. Out: name → input. Never: a feature of the records that is in none of them.
 */
import type { BgpInput } from '../../../src/bgp/config.ts';
import { type Address, parseAddress } from '../../../src/model/ip.ts';
import { input, node } from './cluster.ts';

const six = (number: number) => ({ address6: parseAddress(`2001:db8::${number}`) });
const reflected = {
  node1: node(1, { labels: { reflector: 'yes' }, routeReflectorClusterId: '244.0.0.1' as Address }),
  node2: node(2),
  node3: node(3),
};
const toReflectors = { reflectors: { peerSelector: 'has(reflector)' } };

export const cases: Readonly<Record<string, BgpInput>> = {
  'mesh-of-3': input(),
  'dual-stack': input({
    nodes: { node1: node(1, six(1)), node2: node(2, six(2)), node3: node(3) },
    pools: ['10.65.0.0/16', '10.66.0.0/16', 'fd65::/48'],
  }),
  'v6-only': input({
    nodes: {
      node1: node(1, { address4: null, ...six(1) }),
      node2: node(2, { address4: null, ...six(2) }),
    },
    pools: ['fd65::/48'],
  }),
  'reflector-itself': input({ nodes: reflected, peers: toReflectors }),
  'reflector-client': input({ nodes: reflected, peers: toReflectors, node: 'node2' }),
  'external-peer-with-password': input({
    settings: { mesh: false },
    peers: {
      tor: {
        address: '192.0.2.254',
        asNumber: 65001,
        password: "it's {a} se;cret # or \\ so",
        port: 1179,
        holdSeconds: 9,
        keepaliveSeconds: 3,
        sourceAddress: '192.0.2.101',
        ttlSecurityHops: 1,
        bfd: true,
        maxPrefixes: 1000,
      },
    },
  }),
  'as-per-node': input({
    nodes: {
      node1: node(1, { asNumber: 64601 }),
      node2: node(2, { asNumber: 4_200_000_002 }),
      node3: node(3),
    },
    settings: { asNumber: 64999, meshPassword: 'mesh secret', communities: ['64999:1', '64999:2:3'] },
    peers: {
      rack: {
        address: '192.0.2.253',
        asNumber: 65001,
        node: 'node1',
        localAsNumber: 64700,
        allowOwnAsNumbers: 2,
        nextHop: 'self',
        passive: true,
      },
    },
  }),
  filters: input({
    peers: {
      tor: {
        address: '192.0.2.254',
        asNumber: 65001,
        importFilters: ['from-tor', 'missing'],
        exportFilters: ['to-tor', 'broken'],
        prepend: 2,
        communities: ['65001:100'],
      },
      tor6: { address: '2001:db8::fe', asNumber: 65001, extendedNextHop: true, importFilters: ['from-tor'] },
    },
    nodes: { node1: node(1, six(1)), node2: node(2) },
    pools: ['10.65.0.0/16', 'fd65::/48'],
    filters: {
      'from-tor': {
        rules: [
          { action: 'reject', prefixes: ['0.0.0.0/0', '::/0'] },
          {
            action: 'accept',
            prefixes: ['10.0.0.0/8 le 24', '172.16.0.0/12 ge 16 le 20', '2001:db8::/32 ge 48'],
            communities: ['65001:7', '65001:7:8'],
            asPathPrefix: [65001, 65002],
            localPreference: 200,
            addCommunities: ['64512:5', '64512:5:6'],
          },
          { action: 'accept', prefixes: ['192.168.0.0/16'] },
          { action: 'reject' },
        ],
      },
      'to-tor': { rules: [{ action: 'accept', prefixes: ['10.65.0.0/17 le 32'], prepend: 1 }] },
      broken: null,
    },
  }),
  'behind-routers': input({
    nodes: { node1: node(1, six(1)), node2: node(2, six(2)) },
    pools: ['10.65.0.0/16', 'fd65::/48'],
    isOnLink: () => false,
    settings: { bfd: false },
    peers: { tor: { address: '198.51.100.1', asNumber: 64512, ttlSecurityHops: 3, nextHop: 'keep' } },
  }),
  'nobody-else': input({ nodes: { node1: node(1) }, pools: [] }),
};
