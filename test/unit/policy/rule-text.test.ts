/** The rule language as words of the command line. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ruleJson } from '../../../src/model/rule.ts';
import { parseRuleText, ruleText } from '../../../src/model/rule-text.ts';
import { ruleArbitrary } from './arbitrary.ts';

const rows: [text: string, json: unknown][] = [
  ['allow', { action: 'allow' }],
  ['deny ipv6', { action: 'deny', ip_version: 6 }],
  [
    'allow tcp from tag app to ports 3306',
    { action: 'allow', protocol: 'tcp', src_tag: 'app', dst_ports: [3306] },
  ],
  [
    'log udp from ports 1,5:7 tag a cidr 10.0.0.0/8 to tag b cidr 10.1.0.0/16',
    {
      action: 'log',
      protocol: 'udp',
      src_ports: [1, '5:7'],
      src_tag: 'a',
      src_net: '10.0.0.0/8',
      dst_tag: 'b',
      dst_net: '10.1.0.0/16',
    },
  ],
  ['allow icmp type echo-request', { action: 'allow', protocol: 'icmp', icmp_type: 8 }],
  ['deny icmpv6 not type neighbour-solicitation', { action: 'deny', protocol: 'icmpv6', '!icmp_type': 135 }],
  ['allow icmp type 8 code 0', { action: 'allow', protocol: 'icmp', icmp_type: 8, icmp_code: 0 }],
  ['deny 47 to cidr fd00::/8', { action: 'deny', protocol: 47, dst_net: 'fd00::/8' }],
  [
    'deny not tcp from not tag a not cidr 10.0.0.0/8 comment all but a',
    { action: 'deny', '!protocol': 'tcp', '!src_tag': 'a', '!src_net': '10.0.0.0/8', comment: 'all but a' },
  ],
  ['allow icmp type 8 from tag a', { action: 'allow', protocol: 'icmp', icmp_type: 8, src_tag: 'a' }],
  ['allow tcp from ! ports 22', { action: 'allow', protocol: 'tcp', '!src_ports': [22] }],
];

describe('words of a rule', () => {
  for (const [text, json] of rows) {
    test(text, () => assert.deepEqual(ruleJson(parseRuleText(text.split(' '))), json));
  }

  test('every rule has a text that reads back as the same rule', () => {
    fc.assert(
      fc.property(ruleArbitrary, (rule) => assert.deepEqual(parseRuleText(ruleText(rule).split(' ')), rule)),
    );
  });
});

const refused: [text: string, message: RegExp][] = [
  ['', /^rule: "" .* allow, deny or log first$/],
  ['permit tcp', /^rule: "permit" /],
  ['allow ports 80', /^rule: "ports" .* "from" or "to" before/],
  ['allow tcp to ports', /^rule: "tcp to ports" .* ports such as 80,443,1000:2000 at the end$/],
  ['allow tcp to ports 80,x', /^rule\.dst_ports\[1\]: "x" /],
  ['allow tcp to ports 70000', /^rule\.dst_ports\[0\]: "70000" .* 0 to 65535/],
  ['allow tcp udp', /^rule: "udp" .* protocol once only$/],
  ['allow http', /^rule\.protocol: "http" /],
  ['allow to ports 80', /^rule\.dst_ports: .* ports only together with/],
  ['allow icmp type echo', /icmp_type: "echo" .* a name such as echo-request$/],
  ['allow from not', /^rule: "from not" .* what not to match at the end$/],
  ['allow from cidr 10.0.0.1/8', /^rule\.src_net: .* 10\.0\.0\.0\/8$/],
  ['allow comment', /^rule\.comment: "" /],
];

describe('words that are refused', () => {
  for (const [text, message] of refused) {
    test(text, () => assert.throws(() => parseRuleText(text === '' ? [] : text.split(' ')), { message }));
  }
});
