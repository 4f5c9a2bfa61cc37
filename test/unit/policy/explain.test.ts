/** The interpreter of chains against the meaning of the rules themselves, on random profiles, policies and packets. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Address, type Cidr, cidrContains, familyOf } from '../../../src/model/ip.ts';
import type { Policy } from '../../../src/model/policy.ts';
import type { Profile } from '../../../src/model/profile.ts';
import { type Match, policyRuleSchema, type Rule, ruleFamily, ruleOf } from '../../../src/model/rule.ts';
import { parseSelector, selects } from '../../../src/model/selector.ts';
import { PolicyEngine } from '../../../src/policy/engine.ts';
import { Explainer, type Packet } from '../../../src/policy/explain.ts';
import { labelsArbitrary, policyArbitrary, profileArbitrary } from './arbitrary.ts';

interface Party {
  readonly addresses: readonly Address[];
  readonly profiles: readonly string[];
  readonly labels: Record<string, string>;
}

interface World {
  readonly profiles: Readonly<Record<string, Profile>>;
  readonly policies: Readonly<Record<string, Policy>>;
  readonly office: readonly Cidr[];
  readonly parties: readonly [Party, Party];
}

/** Rules that apply often: few conditions, about these two parties. */
const oneMatch = fc.oneof(
  { weight: 6, arbitrary: fc.constant({}) },
  fc.record({ protocol: fc.constantFrom('tcp', 'udp', 47) }),
  fc.constant({ '!protocol': 'tcp' }),
  fc.record({
    protocol: fc.constant('tcp'),
    dst_ports: fc.constantFrom([22], ['80:90', 22], [0, '1024:65535']),
  }),
  fc.record({ protocol: fc.constant('tcp'), '!dst_ports': fc.constantFrom([22], ['80:90', 65535]) }),
  fc.record({ protocol: fc.constant('icmp'), '!icmp_type': fc.nat(254) }),
  fc.record({ ip_version: fc.constantFrom(4, 6) }),
);
const oneEnd = fc.tuple(
  fc.constantFrom('src', 'dst', '!src', '!dst'),
  fc.oneof(
    fc.tuple(fc.constant('tag'), fc.constantFrom('web', 'db')),
    fc.tuple(fc.constant('set'), fc.constantFrom('office', 'office', 'office', 'partners')),
    fc.tuple(fc.constant('selector'), fc.constantFrom('all()', 'has(role)', 'role != "db"')),
  ),
);
const rules = (actions: readonly string[]): fc.Arbitrary<Rule[]> =>
  fc.array(
    fc
      .tuple(fc.constantFrom(...actions), oneMatch, fc.option(oneEnd, { freq: 2 }))
      .map(([action, match, end]) =>
        ruleOf(
          policyRuleSchema.parse({ action, ...match, ...(end && { [`${end[0]}_${end[1][0]}`]: end[1][1] }) }),
        ),
      ),
    { minLength: 1, maxLength: 4 },
  );
const ofProfile = rules(['allow', 'allow', 'allow', 'deny', 'log']);
const ofPolicy = rules(['allow', 'pass', 'pass', 'deny', 'log']);
const profile: fc.Arbitrary<Profile> = fc.oneof(
  { weight: 1, arbitrary: profileArbitrary },
  {
    weight: 6,
    arbitrary: fc.record({ tags: fc.subarray(['web', 'db']), inbound: ofProfile, outbound: ofProfile }),
  },
);
const policy: fc.Arbitrary<Policy> = fc.oneof(
  { weight: 1, arbitrary: policyArbitrary },
  {
    weight: 6,
    arbitrary: fc.record({
      order: fc.constantFrom(1, 2),
      selector: fc.constantFrom('all()', 'has(role)', 'zone == "db"').map((text) => parseSelector(text)),
      inbound: fc.option(ofPolicy),
      outbound: fc.option(ofPolicy),
    }),
  },
);

const parties = [0, 1].map((i) =>
  fc.record({
    addresses: fc.constant([`10.0.0.${i + 1}`, `fd00::${i + 1}`] as Address[]),
    profiles: fc.uniqueArray(fc.constantFrom('web', 'db'), { minLength: 1, maxLength: 2 }),
    labels: labelsArbitrary,
  }),
);
const worlds: fc.Arbitrary<World> = fc.record(
  {
    profiles: fc.record({ web: profile, db: profile }, { noNullPrototype: true }),
    policies: fc.dictionary(fc.constantFrom('a', 'b'), policy, { noNullPrototype: true }),
    office: fc.subarray(['10.0.0.1/32', '10.0.0.2/32', 'fd00::/64'] as Cidr[]),
    parties: fc.tuple(parties[0]!, parties[1]!),
  },
  { noNullPrototype: true },
);
const port = fc.oneof(fc.constantFrom(0, 22, 80, 65535), fc.nat(65535));
const packets = fc.record({
  family: fc.constantFrom(0, 1),
  content: fc.oneof(
    fc.record({ protocol: fc.constantFrom(6, 17, 132), sourcePort: port, destinationPort: port }),
    fc.record({ icmp: fc.record({ type: fc.nat(254), code: fc.nat(3) }) }),
    fc.record({ protocol: fc.constantFrom(4, 47, 89) }),
  ),
});

/** Says by the words of INTERFACES.md what should happen; knows neither chains nor sets. */
class Meaning {
  readonly #world: World;
  readonly #packet: Packet;

  constructor(world: World, packet: Packet) {
    this.#world = world;
    this.#packet = packet;
  }

  isAllowed(): boolean {
    const [source, destination] = this.#world.parties;
    return this.#decides(source, 'outbound') && this.#decides(destination, 'inbound');
  }

  #decides(party: Party, direction: 'inbound' | 'outbound'): boolean {
    const policies = Object.entries(this.#world.policies)
      .filter(([, policy]) => policy[direction] !== null && selects(policy.selector, party.labels))
      .sort(([a, one], [b, other]) => one.order - other.order || (a < b ? -1 : 1));
    const byPolicy = this.#first(policies.flatMap(([, policy]) => policy[direction] ?? []));
    if (policies.length > 0 && byPolicy !== 'pass') return byPolicy === 'allow';
    return this.#first(party.profiles.flatMap((name) => this.#world.profiles[name]![direction])) === 'allow';
  }

  #first(rules: readonly Rule[]): 'allow' | 'deny' | 'pass' {
    for (const rule of rules) {
      const family = ruleFamily(rule);
      if (rule.action === 'log' || (family !== null && family !== familyOf(this.#packet.source))) continue;
      // There is no set but office: who names another means anybody, and denies.
      const matches = rule.matches.filter((match) => match.kind !== 'set' || match.set === 'office');
      if (!matches.every((match) => this.#holds(match) !== match.negated)) continue;
      return matches.length < rule.matches.length ? 'deny' : rule.action;
    }
    return 'deny';
  }

  #holds(match: Match): boolean {
    const { protocol, icmp, sourcePort, destinationPort, source, destination } = this.#packet;
    if (match.kind === 'protocol') return protocol === match.protocol;
    if (match.kind === 'icmp')
      return icmp?.type === match.type && (match.code === null || icmp.code === match.code);
    const address = match.side === 'src' ? source : destination;
    const party = this.#world.parties.find(({ addresses }) => addresses.includes(address))!;
    switch (match.kind) {
      case 'net':
        return cidrContains(match.net, address);
      case 'set':
        return this.#world.office.some((net) => cidrContains(net, address));
      case 'tag':
        return party.profiles.some((name) => this.#world.profiles[name]!.tags.includes(match.tag));
      case 'selector':
        return selects(parseSelector(match.selector), party.labels);
      case 'ports': {
        const wanted = match.side === 'src' ? sourcePort : destinationPort;
        return wanted !== null && match.ports.some(({ from, to }) => from <= wanted && wanted <= to);
      }
    }
  }
}

test('chains do what the rules mean', () => {
  let allowed = 0;
  fc.assert(
    fc.property(worlds, fc.array(packets, { minLength: 1, maxLength: 8 }), (world, contents) => {
      const explainer = new Explainer();
      const engine = new PolicyEngine({ endpointToHost: 'drop' }, explainer);
      for (const [name, profile] of Object.entries(world.profiles)) engine.onProfile(name, profile);
      engine.onAddressSet('office', world.office);
      world.parties.forEach((party, i) => {
        engine.onEndpoint(`${i}`, { local: true, hostInterface: `nctl${i}`, ...party });
      });
      for (const [name, policy] of Object.entries(world.policies)) engine.onPolicy(name, policy);
      for (const { family, content } of contents) {
        const [source, destination] = world.parties.map(({ addresses }) => addresses[family]!);
        const packet: Packet = {
          source: source!,
          destination: destination!,
          inInterface: 'nctl0',
          outInterface: 'nctl1',
          protocol: family === 0 ? 1 : 58,
          sourcePort: null,
          destinationPort: null,
          icmp: null,
          ...content,
        };
        const expected = new Meaning(world, packet).isAllowed();
        if (expected) allowed++;
        assert.equal(explainer.judge('FORWARD', packet).verdict, expected ? 'accept' : 'drop');
        assert.equal(
          explainer.judge('FORWARD', { ...packet, inInterface: 'nctl1' }).verdict,
          'drop',
          'spoofed',
        );
      }
    }),
    { numRuns: 400 },
  );
  assert.ok(allowed > 50, `only ${allowed} packets were allowed: the rules or packets are not varied enough`);
});
