/** Random rules and profiles for property tests: all of the language, only what it accepts. */
import fc from 'fast-check';
import { addressFrom, type Cidr, type Family, networkOf } from '../../../src/model/ip.ts';
import type { Profile } from '../../../src/model/profile.ts';
import { type Rule, ruleFromJson } from '../../../src/model/rule.ts';

const TAGS = ['web', 'app', 'db', 'db-users', 'a.tag_with-a-long-name-of-40-characters.'];
const tag = fc.constantFrom(...TAGS);

const port = fc.integer({ min: 0, max: 65535 });
const ports = fc.array(
  fc.oneof(
    port,
    fc.tuple(port, port).map(([a, b]) => `${Math.min(a, b)}:${Math.max(a, b)}`),
  ),
  { minLength: 1, maxLength: 20 },
);

function net(family: Family): fc.Arbitrary<Cidr> {
  const bits = family === 4 ? 32 : 128;
  return fc
    .tuple(fc.bigInt({ min: 0n, max: (1n << BigInt(bits)) - 1n }), fc.integer({ min: 0, max: bits }))
    .map(([value, length]) => networkOf(addressFrom(family, value), length));
}

function maybe<T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> {
  return fc.option(value, { nil: undefined, freq: 3 });
}

function sides<T>(keys: string, value: fc.Arbitrary<T>): Record<string, fc.Arbitrary<T | undefined>> {
  return Object.fromEntries(['src', '!src', 'dst', '!dst'].map((side) => [`${side}_${keys}`, maybe(value)]));
}

const comment = fc.constantFrom('for the shop', 'größer', '100% $(reboot); #1 & more', 'x'.repeat(256));

/** JSON of a rule that speaks of at most one family. */
export const ruleJsonArbitrary: fc.Arbitrary<Record<string, unknown>> = fc
  .constantFrom<Family>(4, 6)
  .chain((family) => {
    const common = {
      action: maybe(fc.constantFrom('allow', 'deny', 'log')),
      ip_version: maybe(fc.constant(family)),
      comment: maybe(comment),
      ...sides('tag', tag),
      ...sides('net', net(family)),
    };
    const icmpType = fc.integer({ min: 0, max: 254 });
    const kinds = [
      fc.record({
        protocol: maybe(fc.constantFrom<string | number>(4, 47, '89', 'tcp')),
        '!protocol': maybe(fc.constant('udp')),
      }),
      fc.record({ protocol: fc.constantFrom('tcp', 'udp', 'sctp'), ...sides('ports', ports) }),
      fc.record({
        protocol: fc.constant(family === 4 ? 'icmp' : 'icmpv6'),
        icmp_type: icmpType,
        icmp_code: maybe(icmpType),
        '!icmp_type': maybe(icmpType),
        '!icmp_code': maybe(icmpType),
      }),
    ];
    return fc
      .tuple(fc.record(common), fc.oneof(...kinds))
      .map(([a, b]) =>
        Object.fromEntries(Object.entries({ ...a, ...b }).filter(([, value]) => value !== undefined)),
      );
  });

export const ruleArbitrary: fc.Arbitrary<Rule> = ruleJsonArbitrary.map((json) => ruleFromJson(json));

export const profileArbitrary: fc.Arbitrary<Profile> = fc.record(
  {
    tags: fc.uniqueArray(tag, { maxLength: 3 }),
    inbound: fc.array(ruleArbitrary, { maxLength: 4 }),
    outbound: fc.array(ruleArbitrary, { maxLength: 4 }),
  },
  { noNullPrototype: true },
);
