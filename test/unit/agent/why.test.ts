/** Why one party reaches another: hosts, rules and verdicts out of the records of the store. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Why, type WhyQuery } from '../../../src/agent/why.ts';
import type { Entry, Json } from '../../../src/store/store.ts';

const tcp = (port: number): WhyQuery['protocol'] => ({ number: 6, port });

function endpoint(
  addresses: string[],
  profiles: string[],
  labels: Record<string, string> = {},
): Record<string, Json> {
  return {
    network: 'edge',
    containerId: `container-${profiles[0]}`,
    interface: 'eth0',
    kind: 'routed',
    hostInterface: `nctl${profiles[0]}`,
    mac: '02:00:00:00:00:01',
    mtuBytes: 1500,
    addresses,
    profiles,
    labels,
    netns: { path: '/run/netns/a', device: 4, inode: 77 },
    bootId: 'b',
    createdAt: '2026-01-02T03:04:05.000Z',
  };
}

/** On a wire. */
function macvlan(addresses: string[], profiles: string[], hostAccess: string): Json {
  const subnets = addresses.map(() => ({ prefixLength: 24, gateway: null }));
  const mode = { mode: 'bridge', duplicateDetection: 'off', defaultRoute: true };
  return {
    ...endpoint(addresses, profiles),
    containerId: `wired-${profiles[0]}`,
    kind: 'macvlan',
    hostInterface: `nctlm${addresses[0]}`.slice(0, 15),
    macvlan: { parent: 'eth1', vlan: null, hostAccess, subnets, ...mode },
  };
}

const node = (address4: string): Json => ({
  address4,
  address6: null,
  version: '0',
  startedAt: '2026-01-02T03:04:05.000Z',
});

const records: Record<string, Json> = {
  'nodes/node1': node('192.0.2.1'),
  'nodes/node2': node('192.0.2.2'),
  'endpoints/node1/aaaa1111': endpoint(['10.0.0.1', 'fd00::1'], ['web']),
  'endpoints/node1/bbbb2222': endpoint(['10.0.0.2'], ['db']),
  'endpoints/node2/cccc3333': endpoint(['10.0.1.3'], ['far'], { guarded: 'yes' }),
  'endpoints/node1/dddd4444': macvlan(['10.1.0.4'], ['web'], 'none'),
  'endpoints/node1/eeee5555': macvlan(['10.1.0.5'], ['db'], 'veth'),
  'endpoints/node2/ffff6666': macvlan(['10.1.0.6'], ['db'], 'none'),
  'profiles/web': {
    tags: ['web'],
    inbound_rules: [],
    outbound_rules: [{ action: 'deny', protocol: 'udp' }, { action: 'allow' }],
  },
  'profiles/db': {
    tags: [],
    inbound_rules: [
      { action: 'log' },
      { action: 'allow', protocol: 'tcp', src_tag: 'web', dst_ports: [3306] },
    ],
    outbound_rules: [],
  },
  'profiles/far': { tags: [], inbound_rules: [{ action: 'allow', protocol: 'tcp' }], outbound_rules: [] },
  'policies/guard': {
    order: 1,
    selector: 'has(guarded)',
    inbound_rules: [{ action: 'deny', protocol: 'tcp', dst_ports: [22] }, { action: 'pass' }],
  },
  'host-endpoints/node2/uplink': { interface: '*', labels: {}, profiles: ['far'] },
};
const entries = Object.entries(records).map(
  ([key, value], i) => ({ key, value, created: i, modified: i }) as unknown as Entry,
);
const why = new Why(entries, 'node1', { endpointToHost: 'drop', failsafe: { inbound: [], outbound: [] } });

/** `node1 accept: profile db inbound 2`, or the text of what decided where no rule did. */
function ask(source: string, destination: string, protocol: WhyQuery['protocol']): string[] {
  const { allowed, hosts } = why.answer({ source, destination, protocol });
  const lines = hosts.map(({ node, container, verdict, rules }) => {
    const origins = rules.flatMap(({ origin }) =>
      origin === null ? [] : [`${origin.kind} ${origin.name} ${origin.direction} ${origin.position}`],
    );
    const decided = rules.at(-1)?.origin === null ? [rules.at(-1)!.text] : [];
    return `${container ?? node} ${verdict}: ${[...origins, ...decided].join(', ')}`;
  });
  return [allowed ? 'allowed' : 'dropped', ...lines];
}

describe('why', () => {
  const rows: [source: string, destination: string, protocol: WhyQuery['protocol'], expected: string[]][] = [
    [
      'aaaa',
      'container-db',
      tcp(3306),
      ['allowed', 'node1 accept: profile web outbound 2, profile db inbound 1, profile db inbound 2'],
    ],
    [
      'aaaa',
      '10.0.0.2',
      tcp(22),
      ['dropped', 'node1 drop: profile web outbound 2, profile db inbound 1, no profile matched'],
    ],
    ['aaaa', 'bbbb', { number: 17, port: 53 }, ['dropped', 'node1 drop: profile web outbound 1']],
    ['bbbb', 'aaaa', 'icmp', ['dropped', 'node1 drop: no profile matched']],
    [
      'aaaa',
      'cccc',
      tcp(80),
      [
        'allowed',
        'node1 accept: profile web outbound 2, to elsewhere',
        'node2 accept: policy guard inbound 2, profile far inbound 1',
      ],
    ],
    [
      '10.0.0.1',
      '10.0.1.3',
      tcp(22),
      ['dropped', 'node1 accept: profile web outbound 2, to elsewhere', 'node2 drop: policy guard inbound 1'],
    ],
    ['203.0.113.9', 'cccc', 'icmp', ['dropped', 'node2 drop: policy guard inbound 2, no profile matched']],
    ['aaaa', 'host', tcp(80), ['dropped', 'node1 drop: this host takes nothing from endpoints']],
    ['host', 'bbbb', tcp(80), ['allowed', 'node1 left: ']],
    ['203.0.113.9', 'node2', { number: 17, port: 53 }, ['dropped', 'node2 drop: no profile matched']],
    ['203.0.113.9', '192.0.2.2', tcp(53), ['allowed', 'node2 left: profile far inbound 1']],
    // On a wire, siblings, and hosts by it: each end in its own container.
    [
      'dddd',
      'eeee',
      tcp(3306),
      [
        'allowed',
        'dddd4444 accept: profile web outbound 2, allowed',
        'eeee5555 accept: profile db inbound 1, profile db inbound 2',
      ],
    ],
    ['dddd', 'ffff', { number: 17, port: 53 }, ['dropped', 'dddd4444 drop: profile web outbound 1']],
    ['203.0.113.9', 'ffff', 'icmp', ['dropped', 'ffff6666 drop: profile db inbound 1, no profile matched']],
    [
      'dddd',
      'bbbb',
      tcp(3306),
      [
        'allowed',
        'dddd4444 accept: profile web outbound 2, allowed',
        'node1 accept: profile db inbound 1, profile db inbound 2',
      ],
    ],
    // By the pair, the host decides alone.
    [
      'aaaa',
      'eeee',
      tcp(3306),
      ['allowed', 'node1 accept: profile web outbound 2, profile db inbound 1, profile db inbound 2'],
    ],
    [
      'aaaa',
      'dddd',
      tcp(80),
      ['dropped', 'node1 accept: profile web outbound 2, to elsewhere', 'dddd4444 drop: no profile matched'],
    ],
    ['host', 'eeee', tcp(80), ['allowed', 'node1 left: ']],
    [
      'eeee',
      'host',
      tcp(80),
      ['dropped', 'eeee5555 accept: judged by the host', 'node1 drop: no profile matched'],
    ],
    [
      'dddd',
      'host',
      tcp(80),
      ['dropped', 'dddd4444 drop: a macvlan and its own host do not hear each other (hostAccess: none)'],
    ],
  ];
  for (const [source, destination, protocol, expected] of rows)
    test(`${source} → ${destination} ${JSON.stringify(protocol)}`, () =>
      assert.deepEqual(ask(source, destination, protocol), expected));

  test('records that cannot be read in full deny, and their tags stay what they are', () => {
    const options = { endpointToHost: 'drop', failsafe: { inbound: [], outbound: [] } } as const;
    const decided = (more: Record<string, Json>, from: string, to: string): string => {
      const others = entries.filter(({ key }) => !(key in more));
      const own = Object.entries(more).map(
        ([key, value]) => ({ key, value, modified: 1 }) as unknown as Entry,
      );
      const asked = new Why([...others, ...own], 'node1', options, () => 'eth0');
      const hosts = asked.answer({ source: from, destination: to, protocol: tcp(80) }).hosts;
      return `${hosts.at(-1)?.verdict}: ${hosts.at(-1)?.rules.at(-1)?.text}`;
    };
    const broken = { interface: 'eth0', labels: {}, profiles: ['open'], later: 1 };
    const all = { order: 1, selector: 'all()', inbound_rules: [{ action: 'allow' }] };
    const records = { 'host-endpoints/node1/up': broken, 'policies/all': all };
    assert.equal(decided(records, '203.0.113.9', '192.0.2.1'), 'drop: no profile matched');

    const allowAll = {
      tags: [],
      inbound_rules: [{ action: 'allow' }],
      outbound_rules: [{ action: 'allow' }],
    };
    const deny = { ...allowAll, inbound_rules: [{ action: 'deny', src_tag: 'sick' }, { action: 'allow' }] };
    const profiles = {
      'profiles/first': allowAll,
      'profiles/guarded': deny,
      'profiles/sick': { tags: ['sick'], inbound_rules: [], outbound_rules: [{ action: 'unknown' }] },
      'endpoints/node1/f1111111': endpoint(['10.65.9.1'], ['first', 'sick']),
      'endpoints/node1/f2222222': endpoint(['10.65.9.2'], ['guarded']),
    };
    assert.equal(decided(profiles, '10.65.9.1', '10.65.9.2'), 'drop: guarded: deny from tag sick');
    const one = { ...profiles, 'endpoints/node1/f1111111': endpoint(['10.65.9.1'], ['sick']) };
    assert.match(decided(one, '10.65.9.1', '10.65.9.2'), /^drop: sick: deny comment .*invalid/);
  });

  test('a host endpoint decides about what comes and goes by its interface', () => {
    const guarded = { interface: 'eth0', labels: {}, profiles: ['far'] };
    const own = [...entries, { key: 'host-endpoints/node1/up', value: guarded } as unknown as Entry];
    const options = { endpointToHost: 'drop', failsafe: { inbound: [], outbound: [] } } as const;
    const decided = (way: (address: string) => string | null, from: string, to: string): string => {
      const asked = new Why(own, 'node1', options, way);
      const [host] = asked.answer({
        source: from,
        destination: to,
        protocol: { number: 17, port: 53 },
      }).hosts;
      return `${host?.verdict}: ${host?.rules.map(({ text }) => text).join(', ')}`;
    };
    const eth0 = (): string => 'eth0';
    assert.equal(decided(eth0, '203.0.113.9', '192.0.2.1'), 'drop: host interface eth0, no profile matched');
    assert.match(decided(eth0, '192.0.2.1', '203.0.113.9'), /^drop: host interface eth0/);
    assert.equal(
      decided(() => 'eth1', '203.0.113.9', '192.0.2.1'),
      'left: no host endpoint',
    );
    // Nobody knows the way: the one interface that a host endpoint names.
    assert.match(
      decided(() => null, '203.0.113.9', '192.0.2.1'),
      /^drop: host interface eth0/,
    );
  });

  test('a published port leads to its endpoint, whose rules decide', () => {
    const publishing = { ...endpoint(['10.0.0.2'], ['db']), portMappings: [] as Json[] };
    publishing.portMappings.push({ protocol: 'tcp', hostPort: 13306, containerPort: 3306, hostIP: null });
    const published = entries.map((entry) =>
      entry.key === 'endpoints/node1/bbbb2222' ? { ...entry, value: publishing as Json } : entry,
    );
    const options = { endpointToHost: 'drop', failsafe: { inbound: [], outbound: [] } } as const;
    const asked = new Why(published, 'node1', options);
    const told = (source: string, destination: string, port: number): string =>
      asked
        .answer({ source, destination, protocol: tcp(port) })
        .hosts.map(
          ({ node, verdict, rules }) =>
            `${node} ${verdict} ${rules[0]?.verdict}, ${rules.at(-1)?.origin?.name ?? rules.at(-1)?.text}`,
        )
        .join('; ');
    assert.equal(told('aaaa', 'host', 13306), 'node1 accept to port 3306 of 10.0.0.2, db');
    assert.equal(
      told('203.0.113.9', 'host', 13306),
      'node1 drop to port 3306 of 10.0.0.2, no profile matched',
    );
    assert.match(told('aaaa', 'host', 13307), /^node1 drop goto nctl-host, this host takes nothing/);
  });

  const refused: [source: string, destination: string, message: RegExp][] = [
    ['nobody', 'aaaa', /there is no endpoint or node nobody/],
    ['203.0.113.9', '203.0.113.8', /neither 203/],
    ['fd00::1', 'bbbb', /no addresses of the same family/],
    ['container', 'aaaa', /may mean aaaa1111, bbbb2222, cccc3333/],
  ];
  for (const [source, destination, message] of refused)
    test(`${source} → ${destination} is refused`, () =>
      assert.throws(() => ask(source, destination, 'icmp'), { message }));
});
