/**
 * What our configurations do when real BIRDs meet: nothing is announced or taken but what should be, filters do what they say,
 * reflectors pass on, next hops are found.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { eventually } from '../../lab/run.ts';
import { compileBgp } from '../../src/bgp/compile.ts';
import type { BgpNode } from '../../src/bgp/config.ts';
import { renderBird } from '../../src/bgp/render.ts';
import { parseSessions } from '../../src/bgp/status.ts';
import { type Address, cidrContains, parseAddress, parseCidr } from '../../src/model/ip.ts';
import { input, node, type Wanted } from '../unit/bgp/cluster.ts';
import { Speakers } from './bird-speakers.ts';

const pools = ['10.65.0.0/16', 'fd65::/32'];
const blackhole = (net: string, protocol: number) => [
  'route',
  'add',
  'blackhole',
  net,
  'proto',
  `${protocol}`,
];

/** The configuration of a node of ours, fast enough for a test. */
function ours(wanted: Wanted): string {
  const settings = { holdSeconds: 9, ...wanted.settings };
  return renderBird(compileBgp(input({ pools, ...wanted, settings })));
}

/** A router of somebody else, which takes and gives all that its statics say. */
function router(
  id: string,
  asNumber: number,
  statics: readonly string[],
  sessions: readonly string[],
): string {
  const of = (family: 4 | 6) => statics.filter((line) => line.includes(':') === (family === 6));
  const common = 'connect delay time 1; connect retry time 1; error wait time 1, 2;';
  return [
    `router id ${id}; log syslog { fatal }; timeformat protocol iso long;`,
    'protocol device { } protocol direct { ipv4; ipv6; }',
    ...([4, 6] as const).map(
      (family) => `protocol static static${family} { ipv${family}; ${of(family).join(' ')} }`,
    ),
    ...sessions.map((session) => `protocol bgp { local as ${asNumber}; ${common} ${session} }`),
    '',
  ].join('\n');
}

async function within(
  what: string,
  expected: readonly string[],
  ask: () => Promise<string[]>,
): Promise<void> {
  let last: string[] = [];
  await eventually(what, 20_000, async () => {
    last = await ask();
    return JSON.stringify(last) === JSON.stringify(expected);
  }).catch(() => assert.deepEqual(last, expected, what));
}

async function prefixesOf(all: Speakers, name: string, from: string): Promise<string[]> {
  const reply = await all.ask(name, `show route ${from}`);
  return [
    ...new Set([...reply.matchAll(/^(?:\d{4}-| )([0-9a-f.:]+\/\d+) /gm)].map(([, net]) => net!)),
  ].sort();
}

describe('towards a router outside', { concurrency: false }, () => {
  test('only announced routes of the pools leave, with what was asked; what comes in is filtered, and takes nothing over', async () => {
    const all = await Speakers.create('bo');
    try {
      await all.add('node1', 'near', ['192.0.2.1/24', 'fd00:1::1/64']);
      await all.add('tor', 'near', ['192.0.2.253/24', 'fd00:1::fe/64']);
      for (const [net, protocol] of [
        ['10.65.1.0/26', 111],
        ['10.65.2.0/26', 110],
        ['10.99.0.0/24', 111],
        ['10.98.0.0/24', 4],
        ['fd65:0:1::/64', 111],
        ['fd66::/64', 111],
      ] as const)
        await all.ip('node1', ...blackhole(net, protocol));
      await all.ip('node1', 'route', 'add', '10.65.9.9/32', 'dev', 'c0', 'proto', '111');
      await all.ip('node1', 'route', 'add', '10.65.1.7/32', 'dev', 'c0', 'proto', '110');
      await all.start(
        'node1',
        ours({
          nodes: { node1: node(1, { address6: parseAddress('fd00:1::1') }) },
          settings: { communities: ['64512:1'] },
          peers: {
            tor: {
              address: '192.0.2.253',
              asNumber: 65001,
              password: 'it is # a {secret};',
              prepend: 1,
              communities: ['65001:100', '65001:1:2'],
              importFilters: ['from-tor'],
            },
            tor6: {
              address: 'fd00:1::fe',
              asNumber: 65001,
              extendedNextHop: true,
              exportFilters: ['no-hosts'],
            },
          },
          filters: {
            'from-tor': {
              rules: [
                { action: 'reject', prefixes: ['10.50.0.0/16'], communities: ['65001:13'] },
                {
                  action: 'accept',
                  prefixes: ['10.0.0.0/8 le 26'],
                  asPathPrefix: [65001],
                  localPreference: 200,
                },
                { action: 'reject' },
              ],
            },
            'no-hosts': { rules: [{ action: 'reject', prefixes: ['10.65.0.0/16 ge 32'] }] },
          },
        }),
      );
      await all.start(
        'tor',
        router(
          '192.0.2.253',
          65001,
          [
            'route 0.0.0.0/0 blackhole;',
            'route 10.50.0.0/16 blackhole { bgp_community.add((65001,13)); };',
            'route 10.51.0.0/16 blackhole { bgp_community.add((65001,14)); };',
            'route 10.52.0.0/27 blackhole;',
            'route 10.65.1.0/26 blackhole;',
            'route 10.65.3.0/26 blackhole;',
            'route 169.254.1.0/24 blackhole;',
            'route 10.60.0.0/16 blackhole { bgp_community.add((65001,6)); };',
            'route fd50::/48 blackhole;',
          ],
          [
            'neighbor 192.0.2.1 as 64512; password "it is # a {secret};"; ipv4 { import all; export filter { if (65001,6) ~ bgp_community then reject; if source = RTS_STATIC then accept; reject; }; };',
            'neighbor fd00:1::1 as 64512; ipv4 { extended next hop on; import all; export filter { if (65001,6) ~ bgp_community || net = 169.254.1.0/24 then accept; reject; }; }; ipv6 { import all; export where source = RTS_STATIC; };',
          ],
        ),
      );
      await all.established('node1', 'tor');

      await within('what the router hears', ['10.65.1.0/26', '10.65.9.9/32', 'fd65:0:1::/64'], () =>
        prefixesOf(all, 'tor', 'where source = RTS_BGP'),
      );
      const block = await all.ask('tor', 'show route 10.65.1.0/26 all');
      assert.match(block, /BGP\.as_path: 64512 64512\n/);
      assert.match(block, /BGP\.community: \(64512,1\) \(65001,100\)\n/);
      assert.match(block, /BGP\.large_community: \(65001, 1, 2\)/);
      assert.match(block, /via fd00:1::1|via fe80:/, 'IPv4 over IPv6 next hops');
      assert.doesNotMatch(
        await all.ask('tor', 'show route 10.65.9.9/32 all'),
        /via f/,
        'the filter keeps it from one session',
      );

      await within(
        'what the node takes',
        ['10.51.0.0/16 via 192.0.2.253', '10.65.3.0/26 via 192.0.2.253', 'fd50::/48 via fd00:1::fe'],
        async () => (await all.learned('node1')).filter((line) => !line.includes('inet6')),
      );
      const overSix = (await all.learned('node1')).filter((line) => line.includes('inet6'));
      assert.equal(overSix.length, 1);
      assert.match(overSix[0]!, /^10\.60\.0\.0\/16 via inet6 f/);
      assert.match(await all.ask('node1', 'show route 10.51.0.0/16 all'), /BGP\.local_pref: 200/);
      assert.match(
        await all.ip('node1', 'route', 'show', '10.65.1.0/26'),
        /^blackhole 10\.65\.1\.0\/26 proto 111\s*$/,
      );

      await all.ip('node1', ...blackhole('10.65.7.0/26', 111));
      await eventually('a new block is heard without any new configuration', 5000, async () =>
        (await prefixesOf(all, 'tor', 'where source = RTS_BGP')).includes('10.65.7.0/26'),
      );
      await all.ip('node1', 'route', 'delete', 'blackhole', '10.65.7.0/26', 'proto', '111');
      await eventually(
        'and its end',
        5000,
        async () => !(await prefixesOf(all, 'tor', 'where source = RTS_BGP')).includes('10.65.7.0/26'),
      );
    } finally {
      await all.close();
    }
  });
});

test('a reflector passes the blocks of the nodes on, with their own next hops; a client passes on nothing', async () => {
  const all = await Speakers.create('br');
  try {
    const nodes: Record<string, BgpNode> = {
      node1: node(1, { labels: { reflector: 'yes' }, routeReflectorClusterId: '244.0.0.1' as Address }),
      node2: node(2),
      node3: node(3),
    };
    const peers = {
      reflectors: { peerSelector: 'has(reflector)' },
      tor: { address: '192.0.2.253', asNumber: 65001, node: 'node2' },
    };
    const settings = { mesh: false };
    for (const number of [1, 2, 3]) {
      await all.add(`node${number}`, 'near', [`192.0.2.${number}/24`]);
      await all.ip(`node${number}`, ...blackhole(`10.65.${number}.0/26`, 111));
      await all.start(`node${number}`, ours({ nodes, node: `node${number}`, peers, settings }));
    }
    await all.add('tor', 'near', ['192.0.2.253/24']);
    const session = 'neighbor 192.0.2.2 as 64512; ipv4 { import all; export where source = RTS_STATIC; };';
    await all.start('tor', router('192.0.2.253', 65001, ['route 10.70.0.0/16 blackhole;'], [session]));
    await all.established('node1', 'node2', 'node3', 'tor');
    await within(
      'node 3 reaches node 2 directly',
      ['10.65.1.0/26 via 192.0.2.1', '10.65.2.0/26 via 192.0.2.2'],
      () => all.learned('node3'),
    );
    await within(
      'node 2 has what the router says as well',
      ['10.65.1.0/26 via 192.0.2.1', '10.65.3.0/26 via 192.0.2.3', '10.70.0.0/16 via 192.0.2.253'],
      () => all.learned('node2'),
    );
    await within('the router hears of node 2 alone', ['10.65.2.0/26'], () =>
      prefixesOf(all, 'tor', 'where source = RTS_BGP'),
    );
  } finally {
    await all.close();
  }
});

test('nodes behind a router reach each other by the way that the host has there', async () => {
  const all = await Speakers.create('bf');
  try {
    const nodes: Record<string, BgpNode> = {
      node1: node(1),
      node2: node(2, { address4: parseAddress('198.51.100.2') }),
    };
    await all.add('node1', 'near', ['192.0.2.1/24']);
    await all.add('node2', 'far', ['198.51.100.2/24']);
    await all.ip('node1', 'route', 'add', 'default', 'via', '192.0.2.254');
    await all.ip('node2', 'route', 'add', 'default', 'via', '198.51.100.254');
    const networks = { node1: '192.0.2.0/24', node2: '198.51.100.0/24' } as const;
    for (const [i, name] of (['node1', 'node2'] as const).entries()) {
      await all.ip(name, ...blackhole(`10.65.${i + 1}.0/26`, 111));
      const isOnLink = (address: Address) => cidrContains(parseCidr(networks[name]), address);
      await all.start(name, ours({ nodes, node: name, isOnLink }));
    }
    await all.established('node1', 'node2');
    await within('node 1 goes by its router', ['10.65.2.0/26 via 192.0.2.254'], () => all.learned('node1'));
    await within('node 2 goes by its own', ['10.65.1.0/26 via 198.51.100.254'], () => all.learned('node2'));
    assert.deepEqual(
      await prefixesOf(all, 'node2', 'where source = RTS_BGP'),
      ['10.65.1.0/26'],
      'neither network nor default route of the other is announced',
    );
  } finally {
    await all.close();
  }
});

test('a session goes on when others come, filters and communities change and templates get other names', async () => {
  const all = await Speakers.create('bc');
  try {
    const nodes: Record<string, BgpNode> = { node1: node(1), node2: node(2) };
    for (const number of [1, 2]) {
      await all.add(`node${number}`, 'near', [`192.0.2.${number}/24`]);
      await all.ip(`node${number}`, ...blackhole(`10.65.${number}.0/26`, 111));
      await all.start(`node${number}`, ours({ nodes, node: `node${number}` }));
    }
    await all.established('node1', 'node2');
    await within('node 2 has the block', ['10.65.1.0/26 via 192.0.2.1'], () => all.learned('node2'));
    const sessions = async () => parseSessions(await all.ask('node1', 'show protocols all'));
    const [before] = await sessions();
    const changed = {
      nodes: { ...nodes, node3: node(3), node4: node(4) },
      // Sorts before the mesh, so its template is the first.
      peers: { tor: { address: '192.0.2.253', asNumber: 65001, exportFilters: ['some'] } },
      filters: { some: { rules: [{ action: 'reject', prefixes: ['10.65.0.0/17 le 32'] }] } },
      settings: { communities: ['64512:77'] },
      pools: [...pools, '10.66.0.0/16'],
    };
    // `since` has seconds: a session that began anew within the one in which it began would go unnoticed.
    await new Promise((wake) => setTimeout(wake, 1100));
    await all.configure('node1', ours(changed));
    await eventually('node 2 hears of the community', 5000, async () =>
      (await all.ask('node2', 'show route 10.65.1.0/26 all')).includes('(64512,77)'),
    );
    const after = (await sessions()).find(({ protocol }) => protocol === before?.protocol);
    assert.deepEqual([after?.state, after?.since], ['Established', before?.since]);
    assert.equal((await sessions()).length, 4);
  } finally {
    await all.close();
  }
});
