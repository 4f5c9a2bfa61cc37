/**
 * Random worlds of policy, and what the words of the language say should happen in them: knows neither chains nor sets, so that
 * it can judge both the interpreter of chains and the kernel.
 *
 * In: nothing but addresses to speak of. Out: arbitraries, and a Meaning that judges the first packet of a connection.
 */
import fc from 'fast-check';
import { type Address, type Cidr, cidrContains, familyOf, networkOf } from '../../../src/model/ip.ts';
import type { Policy } from '../../../src/model/policy.ts';
import type { Profile } from '../../../src/model/profile.ts';
import { type Match, policyRuleSchema, type Rule, ruleFamily, ruleOf } from '../../../src/model/rule.ts';
import { parseSelector, selects } from '../../../src/model/selector.ts';
import type { Packet } from '../../../src/policy/explain.ts';
import { labelsArbitrary, policyArbitrary, profileArbitrary } from './arbitrary.ts';

/** One endpoint. */
export interface Party {
  readonly addresses: readonly Address[];
  /** A name that no profile has denies. */
  readonly profiles: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
}

export interface World {
  readonly profiles: Readonly<Record<string, Profile>>;
  readonly policies: Readonly<Record<string, Policy>>;
  /** The address set of this name; there is no other. */
  readonly office: readonly Cidr[];
  readonly parties: readonly Party[];
}

/** @param parties addresses of each endpoint @param others addresses that rules may speak of besides */
export function worldArbitrary(
  parties: readonly (readonly Address[])[],
  others: readonly Address[] = [],
): fc.Arbitrary<World> {
  const nets = netsAround([...parties.flat(), ...others]);
  const profile = profileAbout(nets);
  return fc.record(
    {
      profiles: fc.record({ web: profile, db: profile }, { noNullPrototype: true }),
      policies: fc.dictionary(fc.constantFrom('a', 'b'), policyAbout(nets), { noNullPrototype: true }),
      office: fc.subarray(
        nets.filter((net) => !net.endsWith('/0')),
        { maxLength: 4 },
      ),
      parties: fc.tuple(
        ...parties.map((addresses) =>
          fc.record({
            addresses: fc.constant(addresses),
            profiles: fc.uniqueArray(
              fc.constantFrom('web', 'db', 'web', 'db', 'web', 'db', 'web', 'db', 'gone'),
              {
                minLength: 1,
                maxLength: 2,
              },
            ),
            labels: labelsArbitrary,
          }),
        ),
      ),
    },
    { noNullPrototype: true },
  );
}

/** Says by the words of the language what should happen. */
export class Meaning {
  readonly #world: World;
  readonly #packet: Packet;

  constructor(world: World, packet: Packet) {
    this.#world = world;
    this.#packet = packet;
  }

  /** Both ends that are endpoints must allow it. */
  isAllowed(): boolean {
    return this.maySend() && this.mayReceive();
  }

  /** Its source, where that is an endpoint, allows it. */
  maySend(): boolean {
    return this.#decides(this.#packet.source, 'outbound');
  }

  /** Its destination, where that is an endpoint, allows it. */
  mayReceive(): boolean {
    return this.#decides(this.#packet.destination, 'inbound');
  }

  #decides(address: Address, direction: 'inbound' | 'outbound'): boolean {
    const party = this.#partyOf(address);
    if (party === undefined) return true;
    const policies = Object.entries(this.#world.policies)
      .filter(([, policy]) => policy[direction] !== null && selects(policy.selector, party.labels))
      .sort(([a, one], [b, other]) => one.order - other.order || (a < b ? -1 : 1));
    const byPolicy = this.#first(policies.flatMap(([, policy]) => policy[direction] ?? []));
    if (policies.length > 0 && byPolicy !== 'pass') return byPolicy === 'allow';
    for (const name of party.profiles) {
      const profile = this.#world.profiles[name];
      if (profile === undefined) return false;
      const decided = this.#first(profile[direction]);
      if (decided !== null) return decided === 'allow';
    }
    return false;
  }

  /** null: no rule applies. */
  #first(rules: readonly Rule[]): 'allow' | 'deny' | 'pass' | null {
    for (const rule of rules) {
      const family = ruleFamily(rule);
      if (rule.action === 'log' || (family !== null && family !== familyOf(this.#packet.source))) continue;
      // There is no set but office: who names another means anybody, and denies.
      const matches = rule.matches.filter((match) => match.kind !== 'set' || match.set === 'office');
      if (!matches.every((match) => this.#holds(match) !== match.negated)) continue;
      return matches.length < rule.matches.length ? 'deny' : rule.action;
    }
    return null;
  }

  #holds(match: Match): boolean {
    const { protocol, icmp, sourcePort, destinationPort, source, destination } = this.#packet;
    if (match.kind === 'protocol') return protocol === match.protocol;
    if (match.kind === 'icmp')
      return icmp?.type === match.type && (match.code === null || icmp.code === match.code);
    const address = match.side === 'src' ? source : destination;
    const party = this.#partyOf(address);
    switch (match.kind) {
      case 'net':
        return cidrContains(match.net, address);
      case 'set':
        return this.#world.office.some((net) => cidrContains(net, address));
      case 'tag':
        return (party?.profiles ?? []).some(
          (name) => this.#world.profiles[name]?.tags.includes(match.tag) ?? false,
        );
      case 'selector':
        return party !== undefined && selects(parseSelector(match.selector), party.labels);
      case 'ports': {
        const wanted = match.side === 'src' ? sourcePort : destinationPort;
        return wanted !== null && match.ports.some(({ from, to }) => from <= wanted && wanted <= to);
      }
    }
  }

  #partyOf(address: Address): Party | undefined {
    return this.#world.parties.find(({ addresses }) => addresses.includes(address));
  }
}

/** Each address alone and in wider prefixes, and everything. */
function netsAround(addresses: readonly Address[]): Cidr[] {
  const lengths = { 4: [32, 30, 24, 8, 0], 6: [128, 126, 64, 16, 0] };
  const nets = addresses.flatMap((address) =>
    lengths[familyOf(address)].map((length) => networkOf(address, length)),
  );
  return [...new Set(nets)];
}

/** Rules that apply often: few conditions, about the parties. */
const oneMatch = fc.oneof(
  { weight: 6, arbitrary: fc.constant({}) },
  fc.record({ protocol: fc.constantFrom('tcp', 'udp', 'tcp', 89) }),
  fc.record({ '!protocol': fc.constantFrom('tcp', 'udp', 1, 58) }),
  {
    weight: 4,
    arbitrary: fc.record({
      protocol: fc.constantFrom('tcp', 'udp'),
      dst_ports: fc.constantFrom(
        [22],
        ['80:90'],
        ['80:90', 22],
        [0, '1024:65535'],
        Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? 20 + i : `${100 * i}:${100 * i + 50}`)),
      ),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      protocol: fc.constant('tcp'),
      '!dst_ports': fc.constantFrom([22], ['80:90'], ['80:90', 65535]),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      protocol: fc.constantFrom('tcp', 'udp'),
      src_ports: fc.constantFrom(['1024:40000'], [53]),
      '!src_ports': fc.constantFrom([1024], ['2000:3000', 80]),
    }),
  },
  fc.record({ protocol: fc.constant('icmp'), '!icmp_type': fc.constantFrom(8, 13) }),
  fc.record({
    protocol: fc.constantFrom('icmp', 'icmpv6'),
    icmp_type: fc.constantFrom(8, 128),
    icmp_code: fc.constantFrom(0, 1),
  }),
  fc.record({
    protocol: fc.constantFrom('icmp', 'icmpv6'),
    '!icmp_type': fc.constantFrom(8, 128),
    '!icmp_code': fc.constantFrom(0, 1),
  }),
  fc.record({ ip_version: fc.constantFrom(4, 6) }),
);

function rulesAbout(nets: readonly Cidr[], actions: readonly string[]): fc.Arbitrary<Rule[]> {
  const end = fc.tuple(
    fc.constantFrom('src', 'dst', '!src', '!dst'),
    fc.oneof(
      fc.tuple(fc.constant('tag'), fc.constantFrom('web', 'db')),
      fc.tuple(fc.constant('set'), fc.constantFrom('office', 'office', 'office', 'partners')),
      fc.tuple(fc.constant('selector'), fc.constantFrom('all()', 'has(role)', 'role != "db"')),
      fc.tuple(fc.constant('net'), fc.constantFrom(...nets)),
    ),
  );
  const ends = fc
    .oneof({ weight: 2, arbitrary: fc.constant([]) }, fc.array(end, { minLength: 1, maxLength: 2 }))
    .map((chosen) => Object.fromEntries(chosen.map(([side, [what, value]]) => [`${side}_${what}`, value])));
  const one = fc
    .tuple(fc.constantFrom(...actions), oneMatch, ends)
    .map(([action, match, more]) => policyRuleSchema.safeParse({ action, ...match, ...more }))
    // A prefix of one family and ICMP of the other, say, are refused.
    .filter(({ success }) => success)
    .map(({ data }) => ruleOf(data!));
  return fc.array(one, { minLength: 1, maxLength: 4 });
}

function profileAbout(nets: readonly Cidr[]): fc.Arbitrary<Profile> {
  const rules = rulesAbout(nets, ['allow', 'allow', 'allow', 'deny', 'log']);
  return fc.oneof(
    { weight: 1, arbitrary: profileArbitrary },
    {
      weight: 6,
      arbitrary: fc.record({ tags: fc.subarray(['web', 'db']), inbound: rules, outbound: rules }),
    },
  );
}

function policyAbout(nets: readonly Cidr[]): fc.Arbitrary<Policy> {
  const rules = rulesAbout(nets, ['allow', 'pass', 'pass', 'deny', 'log']);
  return fc.oneof(
    { weight: 1, arbitrary: policyArbitrary },
    {
      weight: 6,
      arbitrary: fc.record({
        order: fc.constantFrom(1, 2),
        selector: fc.constantFrom('all()', 'has(role)', 'zone == "db"').map((text) => parseSelector(text)),
        inbound: fc.option(rules),
        outbound: fc.option(rules),
      }),
    },
  );
}
