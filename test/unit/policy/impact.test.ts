/** What a change of policy would change: told in words, and never less than what happens. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { Address, Cidr } from '../../../src/model/ip.ts';
import { type Policy, policyFromJson } from '../../../src/model/policy.ts';
import { type Profile, profileFromJson } from '../../../src/model/profile.ts';
import { PolicyEngine } from '../../../src/policy/engine.ts';
import { Explainer } from '../../../src/policy/explain.ts';
import { type Impact, impactOf } from '../../../src/policy/impact.ts';
import type { ImpactEndpoint, PolicyDefinitions } from '../../../src/policy/impact-parties.ts';
import { labelsArbitrary, netsArbitrary, policyArbitrary, profileArbitrary } from './arbitrary.ts';

interface Given {
  readonly profiles?: Readonly<Record<string, object>>;
  readonly policies?: Readonly<Record<string, object>>;
  readonly sets?: Readonly<Record<string, readonly string[]>>;
}

function definitions({ profiles = {}, policies = {}, sets = {} }: Given): PolicyDefinitions {
  return {
    profiles: new Map(
      Object.entries(profiles).map(([name, json]) => [name, profileFromJson({ ...json, id: name }, name)]),
    ),
    policies: new Map(Object.entries(policies).map(([name, json]) => [name, policyFromJson(json)])),
    addressSets: new Map(Object.entries(sets).map(([name, nets]) => [name, nets as readonly Cidr[]])),
  };
}

function endpoint(id: string, address: string, profile: string, labels = {}): ImpactEndpoint {
  return { id, addresses: [address as Address], profiles: [profile], labels };
}

function impact(
  before: PolicyDefinitions,
  after: PolicyDefinitions,
  endpoints: readonly ImpactEndpoint[],
): Impact {
  const work = impactOf(before, after, endpoints);
  for (;;) {
    const step = work.next();
    if (step.done) return step.value;
  }
}

const told = ({ changes }: Impact): string[] =>
  changes.map(
    ({ source, destination, traffic, before, after }) =>
      `${source.name} ${source.endpoints} → ${destination.name} ${destination.endpoints}: ${traffic} ${before} → ${after}`,
  );

describe('the impact of a change', () => {
  const endpoints = [
    endpoint('w1', '10.0.0.1', 'web'),
    endpoint('w2', '10.0.0.2', 'web'),
    endpoint('d1', '10.0.0.3', 'db', { role: 'db' }),
  ];
  const profile = (inbound: object[], tags: string[] = []) => ({
    tags,
    inbound_rules: inbound,
    outbound_rules: [{ action: 'allow' }],
  });
  const base = {
    web: profile([{ src_tag: 'web' }], ['web']),
    db: profile([{ src_tag: 'web', protocol: 'tcp', dst_ports: [3306] }]),
  };

  test('nothing changes: nothing is told', () => {
    const given = definitions({ profiles: base });
    assert.deepEqual(impact(given, given, endpoints), { changes: [], more: 0, complete: true });
    // Another text with the same meaning: the chains differ, no answer does.
    const other = definitions({
      profiles: { ...base, web: profile([{ src_tag: 'web', comment: 'ours' }], ['web']) },
    });
    assert.deepEqual(told(impact(given, other, endpoints)), []);
  });

  test('ports, in ranges, for those whom they concern', () => {
    const after = {
      ...base,
      db: profile([
        { src_tag: 'web', protocol: 'tcp', dst_ports: ['3300:3310', 5432] },
        { src_tag: 'web', protocol: 'icmp', icmp_type: 8 },
      ]),
    };
    assert.deepEqual(
      told(impact(definitions({ profiles: base }), definitions({ profiles: after }), endpoints)),
      ['web 2 → db 1: tcp 3300:3305,3307:3310,5432, icmp type 8 code 0 denied → allowed'],
    );
  });

  test('a policy that denies, told for parties within one, between two and from outside', () => {
    const all = {
      closed: { selector: 'all()', inbound_rules: [{ action: 'pass', src_net: '192.0.2.0/24' }] },
    };
    const open = { web: profile([{ action: 'allow' }], ['web']), db: base.db };
    assert.deepEqual(
      told(
        impact(definitions({ profiles: open }), definitions({ profiles: open, policies: all }), endpoints),
      ),
      [
        'web 2 → web 2: all traffic allowed → denied',
        'web 2 → db 1: tcp 3306 allowed → denied',
        'db 1 → web 2: all traffic allowed → denied',
        'elsewhere (IPv4) 0 → web 2: all traffic allowed → denied',
      ],
    );
  });

  test('an address set that gains a prefix', () => {
    const profiles = { db: profile([{ src_set: 'office' }]) };
    const [before, after] = [['192.0.2.0/24'], ['192.0.2.0/24', '203.0.113.0/24']].map((office) =>
      definitions({ profiles, sets: { office } }),
    );
    assert.deepEqual(told(impact(before!, after!, [endpoints[2]!])), [
      'address set office 0 → db 1: all traffic denied → allowed',
    ]);
  });

  test('a tag that a profile loses', () => {
    const after = { ...base, web: { ...base.web, tags: [] } };
    assert.deepEqual(
      told(impact(definitions({ profiles: base }), definitions({ profiles: after }), endpoints)),
      ['web 2 → web 2: all traffic allowed → denied', 'web 2 → db 1: tcp 3306 allowed → denied'],
    );
  });

  test('a thousand endpoints of few kinds, as fast as a few', () => {
    const many = Array.from({ length: 1000 }, (_, i) =>
      endpoint(`e${i}`, `10.1.${i >> 8}.${i & 255}`, i % 2 ? 'web' : 'db', { instance: `${i}` }),
    );
    const after = { ...base, db: profile([]) };
    const { changes, complete } = impact(
      definitions({ profiles: base }),
      definitions({ profiles: after }),
      many,
    );
    assert.equal(complete, true);
    assert.deepEqual(
      changes.map(({ source, destination }) => [
        source.endpoints,
        destination.endpoints,
        source.examples.length,
      ]),
      [[500, 500, 3]],
    );
  });

  test('no changed answer is left out, none is made up', () => {
    const side = fc.record({
      profiles: fc.record({ one: profileArbitrary, two: profileArbitrary }),
      policies: fc.record({ base: policyArbitrary }),
      office: netsArbitrary,
    });
    const definitionsFrom = ({
      profiles,
      policies,
      office,
    }: {
      profiles: Record<string, Profile>;
      policies: Record<string, Policy>;
      office: Cidr[];
    }): PolicyDefinitions => ({
      profiles: new Map(Object.entries(profiles)),
      policies: new Map(Object.entries(policies)),
      addressSets: new Map([['office', office]]),
    });
    fc.assert(
      fc.property(
        side,
        side,
        fc.array(fc.tuple(fc.constantFrom('one', 'two'), labelsArbitrary), { minLength: 2, maxLength: 3 }),
        fc.array(
          fc.record({
            protocol: fc.constantFrom(1, 6, 17, 47),
            port: fc.nat(65535),
            source: fc.nat(65535),
            type: fc.nat(254),
          }),
          { minLength: 5, maxLength: 20 },
        ),
        (a, b, kinds, packets) => {
          const [before, after] = [definitionsFrom(a), definitionsFrom(b)];
          const all = kinds.map(([profile, labels], i) =>
            endpoint(`e${i}`, `10.0.0.${i + 1}`, profile, labels),
          );
          const { changes, complete } = impact(before, after, all);
          if (!complete || changes.length === 200) return;
          const [now, then] = [before, after].map((each) => explainerOf(each, all));
          for (const from of all) {
            for (const to of all) {
              if (from === to) continue;
              for (const { protocol, port, source, type } of packets) {
                const carries = protocol === 6 || protocol === 17;
                const packet = {
                  source: from.addresses[0]!,
                  destination: to.addresses[0]!,
                  inInterface: `nctl${from.id}`,
                  outInterface: `nctl${to.id}`,
                  protocol,
                  sourcePort: carries ? source : null,
                  destinationPort: carries ? port : null,
                  icmp: protocol === 1 ? { type, code: 0 } : null,
                };
                const [was, willBe] = [now!, then!].map((each) =>
                  each.judge('FORWARD', packet).verdict === 'drop' ? 'denied' : 'allowed',
                );
                if (was === willBe) continue;
                const isTold = changes.some(
                  (change) =>
                    change.before === was &&
                    change.after === willBe &&
                    change.source.examples.includes(from.id) &&
                    change.destination.examples.includes(to.id),
                );
                assert(
                  isTold,
                  `${from.id} → ${to.id} ${JSON.stringify(packet)}: ${was} → ${willBe}, told ${told({ changes, more: 0, complete }).join('; ')}`,
                );
              }
            }
          }
        },
      ),
      { numRuns: 10 },
    );
  });
});

function explainerOf(
  { profiles, policies, addressSets }: PolicyDefinitions,
  all: readonly ImpactEndpoint[],
): Explainer {
  const explainer = new Explainer();
  const engine = new PolicyEngine({ endpointToHost: 'drop' }, explainer);
  for (const [name, profile] of profiles) engine.onProfile(name, profile);
  for (const [name, policy] of policies) engine.onPolicy(name, policy);
  for (const [name, nets] of addressSets) engine.onAddressSet(name, nets);
  for (const each of all)
    engine.onEndpoint(each.id, { ...each, local: true, hostInterface: `nctl${each.id}` });
  return explainer;
}
