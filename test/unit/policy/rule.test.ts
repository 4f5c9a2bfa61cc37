/** The rule language as JSON: what it refuses, with which words; what it makes of what it accepts. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { NetctlError } from '../../../src/lib/errors.ts';
import {
  newProfile,
  parseProfileRecord,
  profileFromJson,
  profileRecord,
  profileToJson,
} from '../../../src/model/profile.ts';
import { ruleFamily, ruleFromJson, ruleJson } from '../../../src/model/rule.ts';
import { profileArbitrary, ruleArbitrary } from './arbitrary.ts';

const tcp = { protocol: 'tcp' };

const refused: [json: unknown, message: RegExp][] = [
  [null, /^rule: null is not valid: expected an object with the keys action, ip_version, protocol/],
  [[], /^rule: \[\] is not valid: expected an object/],
  [
    { source: 'a' },
    /^rule\.source: "a" is not valid: expected no such key; accepted are action, ip_version, /,
  ],
  [{ action: 'pass' }, /^rule\.action: "pass" is not valid: expected "allow", "deny" or "log"$/],
  [{ ip_version: 5 }, /^rule\.ip_version: 5 .* expected 4 or 6$/],
  [
    { protocol: 'http' },
    /^rule\.protocol: "http" .* expected tcp, udp, sctp, icmp, icmpv6 or a number from 1 to 255$/,
  ],
  [{ protocol: 0 }, /^rule\.protocol: 0 /],
  [{ protocol: 256 }, /^rule\.protocol: 256 /],
  [{ protocol: 6.5 }, /^rule\.protocol: 6\.5 /],
  [{ protocol: '06' }, /^rule\.protocol: "06" /],
  [{ protocol: 'toString' }, /^rule\.protocol: "toString" /],
  [{ src_net: '10.0.0.1/8' }, /^rule\.src_net: "10\.0\.0\.1\/8" .* no host bits set, as in 10\.0\.0\.0\/8$/],
  [{ src_net: '10.0.0.0/33' }, /^rule\.src_net: .* a prefix length from 0 to 32$/],
  [{ src_net: 10 }, /^rule\.src_net: 10 /],
  [{ src_tag: 'two words' }, /^rule\.src_tag: "two words" .* 1 to 40 letters/],
  [{ src_tag: 'x'.repeat(300) }, /^rule\.src_tag: "xxx.*\.\.\. is not valid: expected 1 to 40 letters/],
  [{ '!dst_tag': 'a"b' }, /^rule\["!dst_tag"\]: /],
  [{ ...tcp, dst_ports: [70000] }, /^rule\.dst_ports\[0\]: 70000 is not valid: expected 0 to 65535/],
  [{ ...tcp, dst_ports: [80, -1] }, /^rule\.dst_ports\[1\]: -1 /],
  [
    { ...tcp, dst_ports: ['8100:8000'] },
    /^rule\.dst_ports\[0\]: "8100:8000" .* first port is not the higher one$/,
  ],
  [{ ...tcp, dst_ports: ['80-90'] }, /^rule\.dst_ports\[0\]: "80-90" /],
  [{ ...tcp, dst_ports: [1.5] }, /^rule\.dst_ports\[0\]: 1\.5 /],
  [{ ...tcp, dst_ports: [] }, /^rule\.dst_ports: \[\] .* 1 to 256 ports or ranges$/],
  [{ ...tcp, dst_ports: 80 }, /^rule\.dst_ports: 80 .* a list of ports$/],
  [{ dst_ports: [80] }, /^rule\.dst_ports: \[80\] .* ports only together with "protocol": tcp, udp or sctp$/],
  [{ '!protocol': 'tcp', '!dst_ports': [80] }, /^rule\["!dst_ports"\]: \[80\] /],
  [{ protocol: 'icmp', src_ports: [80] }, /^rule\.src_ports: /],
  [{ ...tcp, icmp_type: 8 }, /^rule\.icmp_type: 8 .* only together with "protocol": icmp or icmpv6$/],
  [{ protocol: 'icmp', icmp_code: 1 }, /^rule\.icmp_code: 1 .* only together with icmp_type$/],
  [{ protocol: 'icmp', '!icmp_code': 1 }, /^rule\["!icmp_code"\]: 1 /],
  [
    { protocol: 'icmp', icmp_type: 255 },
    /^rule\.icmp_type: 255 is not valid: expected 0 to 254, or a name such as echo-request$/,
  ],
  [{ protocol: 'icmp', icmp_type: 'echo' }, /^rule\.icmp_type: "echo" /],
  [
    { protocol: 'icmp', icmp_type: 'packet-too-big' },
    /^rule\.icmp_type: "packet-too-big" .* one of echo-reply, /,
  ],
  [{ protocol: 'icmpv6', '!icmp_type': 'source-quench' }, /^rule\["!icmp_type"\]: "source-quench" /],
  [
    { ip_version: 6, src_net: '10.0.0.0/8' },
    /^rule\.src_net: "10\.0\.0\.0\/8" .* a prefix of IPv6, as ip_version says$/,
  ],
  [{ protocol: 'icmpv6', dst_net: '10.0.0.0/8' }, /^rule\.dst_net: .* a prefix of IPv6, as protocol says$/],
  [{ ip_version: 6, protocol: 'icmp' }, /^rule\.protocol: "icmp" .* a protocol of IPv6, as ip_version says$/],
  [{ ip_version: 4, protocol: 58 }, /^rule\.protocol: 58 /],
  [
    { src_net: '10.0.0.0/8', '!dst_net': 'fd00::/8' },
    /^rule\["!dst_net"\]: .* a prefix of IPv4, as src_net says$/,
  ],
  [{ comment: '' }, /^rule\.comment: "" .* 1 to 256 printable characters/],
  [{ comment: 'x'.repeat(257) }, /^rule\.comment: /],
  [{ comment: 'two\nlines' }, /^rule\.comment: /],
  [{ comment: 'say "x"' }, /^rule\.comment: /],
  [{ comment: 'back\\slash' }, /^rule\.comment: /],
  [{ comment: ' x' }, /^rule\.comment: /],
  [{ comment: 'right\u202eleft' }, /^rule\.comment: /],
];

describe('a rule is refused with path, value and what is accepted', () => {
  for (const [json, message] of refused) {
    test(JSON.stringify(json).slice(0, 70), () => {
      assert.throws(
        () => ruleFromJson(json),
        (error) => {
          assert(error instanceof NetctlError && error.code === 'INVALID');
          assert.match(error.message, message);
          return true;
        },
      );
    });
  }
});

const accepted: [json: unknown, canonical: unknown][] = [
  [{}, { action: 'allow' }],
  [{ action: null, src_tag: null, protocol: null, dst_ports: null }, { action: 'allow' }],
  [{ protocol: 6 }, { action: 'allow', protocol: 'tcp' }],
  [{ protocol: '47' }, { action: 'allow', protocol: 47 }],
  [
    { protocol: '17', src_ports: ['53', '1:1', '1:2'] },
    { action: 'allow', protocol: 'udp', src_ports: [53, 1, '1:2'] },
  ],
  [{ src_net: '10.1.2.3' }, { action: 'allow', src_net: '10.1.2.3/32' }],
  [{ src_net: 'FD00:0::/16' }, { action: 'allow', src_net: 'fd00::/16' }],
  [
    { action: 'log', protocol: 'icmp', icmp_type: 3, '!icmp_code': 4 },
    { action: 'log', protocol: 'icmp', icmp_type: 3, '!icmp_type': 3, '!icmp_code': 4 },
  ],
];

describe('a rule is accepted in its canonical form', () => {
  for (const [json, canonical] of accepted) {
    test(JSON.stringify(json), () => assert.deepEqual(ruleJson(ruleFromJson(json)), canonical));
  }

  test('JSON and value are the same rule', () => {
    fc.assert(fc.property(ruleArbitrary, (rule) => assert.deepEqual(ruleFromJson(ruleJson(rule)), rule)));
  });
});

describe('the family of a rule', () => {
  const rows: [json: unknown, family: 4 | 6 | null][] = [
    [{}, null],
    [{ ...tcp, dst_ports: [80] }, null],
    [{ ip_version: 6 }, 6],
    [{ '!src_net': '0.0.0.0/0' }, 4],
    [{ dst_net: 'fd00::/8' }, 6],
    [{ protocol: 1 }, 4],
    [{ protocol: 'icmpv6' }, 6],
    [{ '!protocol': 'icmp' }, null],
  ];
  for (const [json, family] of rows) {
    test(`${JSON.stringify(json)} → ${family}`, () => assert.equal(ruleFamily(ruleFromJson(json)), family));
  }
});

describe('a profile', () => {
  const file = (name: string): unknown => JSON.parse(readFileSync(`conf/examples/${name}.json`, 'utf8'));

  test('of the examples is read and written back', () => {
    for (const [name, id] of [
      ['web-rule', 'web'],
      ['app-rule', 'app'],
      ['db-rule', 'db'],
      ['db-rule-by-tag', 'db'],
    ] as const) {
      const json = file(name);
      assert.deepEqual(profileToJson(profileFromJson(json, id), id), { tags: [id], ...(json as object) });
    }
  });

  test('keeps the tags that it has when a file names none', () => {
    assert.deepEqual(profileFromJson(file('db-rule'), 'db', ['db', 'x']).tags, ['db', 'x']);
  });

  test('as new: inbound from its own tag, outbound anything', () => {
    assert.deepEqual(profileRecord(newProfile('web')), {
      tags: ['web'],
      inbound_rules: [{ action: 'allow', src_tag: 'web' }],
      outbound_rules: [{ action: 'allow' }],
    });
  });

  test('is the same after the store', () => {
    fc.assert(
      fc.property(profileArbitrary, (profile) => {
        assert.deepEqual(parseProfileRecord(JSON.parse(JSON.stringify(profileRecord(profile)))), profile);
      }),
    );
  });

  const ok = { id: 'db', inbound_rules: [], outbound_rules: [] };
  const faults: [json: unknown, message: RegExp][] = [
    [{ ...ok, id: 'web' }, /^id: "web" is not valid: expected the name of the profile, "db"$/],
    [
      { ...ok, rules: [] },
      /^rules: \[\] .* no such key; accepted are id, tags, inbound_rules, outbound_rules$/,
    ],
    [{ id: 'db', inbound_rules: [] }, /^outbound_rules: nothing given: expected a list of rules$/],
    [{ ...ok, tags: ['a', 'a'] }, /^tags: .* each tag once$/],
    [{ ...ok, tags: ['a b'] }, /^tags\[0\]: "a b" /],
    [
      { ...ok, inbound_rules: [{}, {}, { ...tcp, dst_ports: [70000] }] },
      /^inbound_rules\[2\]\.dst_ports\[0\]: 70000 is not valid: expected 0 to 65535/,
    ],
    [{ ...ok, outbound_rules: [{ '!src_nets': 1 }] }, /^outbound_rules\[0\]\["!src_nets"\]: 1 /],
    [{ ...ok, inbound_rules: [{ dst_ports: [1] }] }, /^inbound_rules\[0\]\.dst_ports: \[1\] /],
    [
      'x',
      /^value: "x" is not valid: expected an object with the keys id, tags, inbound_rules, outbound_rules$/,
    ],
  ];
  for (const [json, message] of faults) {
    test(`is refused: ${message.source.slice(0, 50)}`, () =>
      assert.throws(() => profileFromJson(json, 'db'), { message }));
  }
});
