/** Random rules and profiles for property tests: all of the language, only what it accepts. */
import fc from 'fast-check';
import { widest } from '../../../src/model/address-set.ts';
import { addressFrom, type Cidr, type Family, networkOf } from '../../../src/model/ip.ts';
import type { Policy } from '../../../src/model/policy.ts';
import type { Profile } from '../../../src/model/profile.ts';
import { policyRuleSchema, type Rule, ruleFromJson, ruleOf } from '../../../src/model/rule.ts';
import { type Selector, selectorText } from '../../../src/model/selector.ts';

const TAGS = ['web', 'app', 'db', 'db-users', 'a.tag_with-a-long-name-of-40-characters.'];
const tag = fc.constantFrom(...TAGS);

const key = fc.constantFrom('role', 'zone', 'app.example/tier', 'in', 'not', 'all', 'has');
const value = fc.constantFrom('db', 'web', 'a b', '', '(', '&&', 'größer', '100%');

/** Trees as the parser makes them, of texts that it takes. */
export const selectorArbitrary: fc.Arbitrary<Selector> = fc
  .letrec<{
    one: Selector;
    and: Selector;
    any: Selector;
  }>((tie) => ({
    one: fc.oneof(
      { maxDepth: 3, depthSize: 'small' },
      fc.constant<Selector>({ kind: 'all' }),
      fc.record({ kind: fc.constant('has' as const), key }),
      fc.record({
        kind: fc.constant('in' as const),
        key,
        values: fc.uniqueArray(value, { minLength: 1, maxLength: 3 }).map((values) => values.sort()),
        negated: fc.boolean(),
      }),
      fc.record({ kind: fc.constant('not' as const), of: tie('any') }),
    ),
    and: fc.oneof(
      { maxDepth: 3 },
      tie('one'),
      fc
        .array(tie('any'), { minLength: 2, maxLength: 3 })
        .filter((of) => of.every(({ kind }) => kind !== 'and'))
        .map((of): Selector => ({ kind: 'and', of })),
    ),
    any: fc.oneof(
      { maxDepth: 3 },
      tie('and'),
      fc
        .array(tie('and'), { minLength: 2, maxLength: 3 })
        .filter((of) => of.every(({ kind }) => kind !== 'or'))
        .map((of): Selector => ({ kind: 'or', of })),
    ),
  }))
  .any.filter((selector) => selectorText(selector).length <= 1024);

export const labelsArbitrary = fc.dictionary(key, value, { maxKeys: 3, noNullPrototype: true });

const SELECTORS = [
  'all()',
  'role == "db"',
  'has(zone) && role != "web"',
  '!(role in {"a b", "db"}) || has(in)',
];

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
      ...sides('selector', fc.constantFrom(...SELECTORS)),
      ...sides('set', fc.constantFrom('office', 'partners')),
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

const policyRules = fc.array(
  fc
    .tuple(ruleJsonArbitrary, fc.boolean())
    .map(([json, passes]) => ruleOf(policyRuleSchema.parse(passes ? { ...json, action: 'pass' } : json))),
  { maxLength: 3 },
);

export const policyArbitrary: fc.Arbitrary<Policy> = fc.record(
  {
    order: fc.constantFrom(1, 2),
    selector: selectorArbitrary,
    inbound: fc.option(policyRules, { freq: 3 }),
    outbound: fc.option(policyRules, { freq: 3 }),
  },
  { noNullPrototype: true },
);

export const netsArbitrary: fc.Arbitrary<Cidr[]> = fc
  .array(fc.oneof(net(4), net(6)), { maxLength: 5 })
  .map(widest);

export const profileArbitrary: fc.Arbitrary<Profile> = fc.record(
  {
    tags: fc.uniqueArray(tag, { maxLength: 3 }),
    inbound: fc.array(ruleArbitrary, { maxLength: 4 }),
    outbound: fc.array(ruleArbitrary, { maxLength: 4 }),
  },
  { noNullPrototype: true },
);
