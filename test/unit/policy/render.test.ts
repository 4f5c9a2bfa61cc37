/** One rule, the lines that it comes to for IPv4 and IPv6, side by side. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ruleFromJson } from '../../../src/model/rule.ts';
import { compileRule } from '../../../src/policy/compile-rule.ts';
import { tagSet } from '../../../src/policy/names.ts';
import { renderChain } from '../../../src/policy/render-iptables.ts';
import { chainHashes, hashInRule, ruleComment } from '../../../src/policy/rule-hash.ts';

const tcp = { protocol: 'tcp' };
const web4 = tagSet(4, 'web');
const web6 = tagSet(6, 'web');
const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

const both = (line: string): [string[], string[]] => [[line], [line]];
const v4 = (...lines: string[]): [string[], string[]] => [lines, []];
const v6 = (...lines: string[]): [string[], string[]] => [[], lines];

const rows: [rule: object, lines: [v4: string[], v6: string[]]][] = [
  [{}, both('-j ACCEPT')],
  [{ action: 'deny' }, both('-j DROP')],
  [{ action: 'log' }, both('-m limit --limit 10/second --limit-burst 20 -j LOG --log-prefix "netctl:web "')],
  [{ ip_version: 4 }, v4('-j ACCEPT')],
  [{ ip_version: 6 }, v6('-j ACCEPT')],
  [tcp, both('-p tcp -j ACCEPT')],
  [{ protocol: 47 }, both('-p 47 -j ACCEPT')],
  [{ '!protocol': 'udp' }, both('! -p udp -j ACCEPT')],
  [{ ...tcp, '!protocol': 'udp' }, both('-p tcp -j ACCEPT')],
  [{ ...tcp, '!protocol': 6 }, v4()],
  [{ protocol: 'icmp' }, v4('-p icmp -j ACCEPT')],
  [{ protocol: 'icmpv6' }, v6('-p ipv6-icmp -j ACCEPT')],
  [{ protocol: 'icmp', icmp_type: 8 }, v4('-p icmp -m icmp --icmp-type 8 -j ACCEPT')],
  [
    { protocol: 'icmpv6', icmp_type: 1, '!icmp_code': 4 },
    v6('-p ipv6-icmp -m icmp6 --icmpv6-type 1 -m icmp6 ! --icmpv6-type 1/4 -j ACCEPT'),
  ],
  [{ protocol: 'icmp', '!icmp_type': 3, '!icmp_code': 0 }, v4('-p icmp -m icmp ! --icmp-type 3/0 -j ACCEPT')],
  [{ src_net: '10.0.0.0/8' }, v4('-s 10.0.0.0/8 -j ACCEPT')],
  [{ '!dst_net': '10.0.0.0/8' }, v4('! -d 10.0.0.0/8 -j ACCEPT')],
  [{ src_net: '0.0.0.0/0' }, v4('-j ACCEPT')],
  [{ dst_net: '::/0' }, v6('-j ACCEPT')],
  [{ '!src_net': '0.0.0.0/0' }, v4()],
  [{ '!dst_net': '::/0', src_net: 'fd00::/8' }, v6()],
  [
    { src_net: '10.0.0.0/8', '!src_net': '10.1.0.0/16' },
    v4('-s 10.0.0.0/8 -m iprange ! --src-range 10.1.0.0-10.1.255.255 -j ACCEPT'),
  ],
  [
    { dst_net: 'fd00::/8', '!dst_net': 'fd00::/120' },
    v6('-d fd00::/8 -m iprange ! --dst-range fd00::-fd00::ff -j ACCEPT'),
  ],
  [{ src_net: '::/0', '!src_net': 'fd00::/8' }, v6('! -s fd00::/8 -j ACCEPT')],
  [
    { src_tag: 'web' },
    [[`-m set --match-set ${web4} src -j ACCEPT`], [`-m set --match-set ${web6} src -j ACCEPT`]],
  ],
  [{ '!dst_tag': 'web', ip_version: 4 }, v4(`-m set ! --match-set ${web4} dst -j ACCEPT`)],
  [{ ...tcp, dst_ports: [80, '8000:8100'] }, both('-p tcp -m multiport --dports 80,8000:8100 -j ACCEPT')],
  [
    { protocol: 'sctp', '!src_ports': range(16), dst_ports: [1] },
    both(
      `-p sctp -m multiport ! --sports ${range(15)} -m multiport ! --sports 15 -m multiport --dports 1 -j ACCEPT`,
    ),
  ],
  [
    { ...tcp, ip_version: 4, dst_ports: range(31) },
    v4(
      `-p tcp -m multiport --dports ${range(15)} -j ACCEPT`,
      `-p tcp -m multiport --dports ${range(30).slice(15)} -j ACCEPT`,
      '-p tcp -m multiport --dports 30 -j ACCEPT',
    ),
  ],
  [
    { ...tcp, ip_version: 4, dst_ports: [...range(14), '20:30'] },
    v4(`-p tcp -m multiport --dports ${range(14)} -j ACCEPT`, '-p tcp -m multiport --dports 20:30 -j ACCEPT'),
  ],
  [
    { ...tcp, ip_version: 6, src_ports: range(16), dst_ports: range(16) },
    v6(
      `-p tcp -m multiport --sports ${range(15)} -m multiport --dports ${range(15)} -j ACCEPT`,
      `-p tcp -m multiport --sports ${range(15)} -m multiport --dports 15 -j ACCEPT`,
      `-p tcp -m multiport --sports 15 -m multiport --dports ${range(15)} -j ACCEPT`,
      '-p tcp -m multiport --sports 15 -m multiport --dports 15 -j ACCEPT',
    ),
  ],
];

describe('a rule and its lines', () => {
  for (const [json, lines] of rows) {
    test(JSON.stringify(json), () => assert.deepEqual([render(json, 4), render(json, 6)], lines));
  }
});

function render(json: object, family: 4 | 6): string[] {
  const rule = ruleFromJson(json);
  const verdict = {
    allow: { kind: 'accept' },
    deny: { kind: 'drop' },
    log: { kind: 'log', prefix: 'netctl:web ' },
    pass: { kind: 'goto', chain: 'nctl-pi-x' },
  } as const;
  const rules = compileRule(rule, family, verdict[rule.action], 'why');
  return renderChain({ name: 'c', rules }).lines.map((line) => {
    const [, conditions, end] = /^-A c (.*)-m comment --comment "netctl:[0-9a-f]{16} why" (.*)$/.exec(line)!;
    return `${conditions}${end}`;
  });
}

describe('the hash of a rule', () => {
  test('covers the chain, all rules before and the rule itself, not those after', () => {
    const [a, b, c] = chainHashes('x', ['1', '2', '3']);
    assert.deepEqual(chainHashes('x', ['1', '2']), [a, b]);
    for (const other of [chainHashes('y', ['1', '2', '3']), chainHashes('x', ['2', '1', '3'])]) {
      assert(!other.some((hash) => [a, b, c].includes(hash)));
    }
    assert.notEqual(chainHashes('x', ['1', '1'])[1], chainHashes('x', ['1', '1'])[0]);
  });

  test('is found in what iptables-save prints', () => {
    const comment = ruleComment('0123456789abcdef', 'web: allow "größe" \\ x'.padEnd(400, 'y'));
    assert.equal(comment.length, 255);
    assert.match(comment, /^netctl:0123456789abcdef web: allow \?gr\?\?e\? \? xy+$/);
    assert.equal(hashInRule(`-A c -m comment --comment "${comment}" -j DROP`), '0123456789abcdef');
    assert.equal(hashInRule('-A c -m comment --comment "netctl:short" -j DROP'), null);
    assert.equal(hashInRule('-A c -j DROP'), null);
  });
});
