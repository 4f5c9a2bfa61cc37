/** One rule, what it comes to in nftables for IPv4 and IPv6. That the kernel holds what the text says is asked in test/kernel. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { type Address, families } from '../../../src/model/ip.ts';
import { profileFromJson } from '../../../src/model/profile.ts';
import { ruleFromJson } from '../../../src/model/rule.ts';
import { compileBase, compileDispatch } from '../../../src/policy/compile.ts';
import { compileRule } from '../../../src/policy/compile-rule.ts';
import { PolicyEngine } from '../../../src/policy/engine.ts';
import { addressSet, listChains, listSet, tagSet } from '../../../src/policy/names.ts';
import { renderBaseChains, renderNftChain } from '../../../src/policy/render-nftables.ts';
import { hashInComment } from '../../../src/policy/rule-hash.ts';
import { nftScript } from './nft-script.ts';
import { Recorder } from './recorder.ts';

const tcp = { protocol: 'tcp' };
const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

const both = (text: string): [string[], string[]] => [[text], [text]];
const v4 = (...texts: string[]): [string[], string[]] => [texts, []];
const v6 = (...texts: string[]): [string[], string[]] => [[], texts];

const rows: [rule: object, texts: [v4: string[], v6: string[]]][] = [
  [{}, both('counter accept')],
  [{ action: 'deny' }, both('counter drop')],
  [{ action: 'log' }, both('limit rate 10/second burst 20 packets log prefix "netctl:web "')],
  [{ ip_version: 6 }, v6('counter accept')],
  [tcp, both('meta l4proto 6 counter accept')],
  [{ '!protocol': 'udp' }, both('meta l4proto != 17 counter accept')],
  [{ protocol: 'icmp', icmp_type: 8 }, v4('meta l4proto 1 icmp type 8 counter accept')],
  [
    { protocol: 'icmp', icmp_type: 3, icmp_code: 4 },
    v4('meta l4proto 1 icmp type 3 icmp code 4 counter accept'),
  ],
  [
    { protocol: 'icmpv6', icmp_type: 1, '!icmp_code': 4 },
    v6('meta l4proto 58 icmpv6 type 1 @th,0,16 != 0x0104 counter accept'),
  ],
  [{ protocol: 'icmp', '!icmp_type': 3 }, v4('meta l4proto 1 icmp type != 3 counter accept')],
  [{ src_net: '10.0.0.0/8' }, v4('ip saddr 10.0.0.0/8 counter accept')],
  [{ '!dst_net': '10.0.0.1' }, v4('ip daddr != 10.0.0.1/32 counter accept')],
  [{ src_net: '0.0.0.0/0' }, v4('counter accept')],
  [{ '!src_net': '0.0.0.0/0' }, v4()],
  [
    { dst_net: 'fd00::/8', '!dst_net': 'fd00::/121' },
    v6('ip6 daddr fd00::/8 ip6 daddr != fd00::/121 counter accept'),
  ],
  [
    { src_tag: 'web' },
    [[`ip saddr @${tagSet(4, 'web')} counter accept`], [`ip6 saddr @${tagSet(6, 'web')} counter accept`]],
  ],
  [{ '!dst_set': 'office', ip_version: 4 }, v4(`ip daddr != @${addressSet(4, 'office')} counter accept`)],
  [{ ...tcp, dst_ports: [80] }, both('th dport 80 meta l4proto 6 counter accept')],
  [{ ...tcp, '!dst_ports': ['80:90'] }, both('th dport != 80-90 meta l4proto 6 counter accept')],
  [
    { ...tcp, dst_ports: [8000, '80:90', 91, '85:88'] },
    both('th dport { 80-91, 8000 } meta l4proto 6 counter accept'),
  ],
  // iptables needs three, or six, rules for these.
  [
    { ...tcp, ip_version: 4, dst_ports: range(31).map((n) => 2 * n) },
    v4(
      `th dport { ${range(31)
        .map((n) => 2 * n)
        .join(', ')} } meta l4proto 6 counter accept`,
    ),
  ],
  [
    {
      protocol: 'sctp',
      '!src_ports': [...range(16).map((n) => 3 * n)],
      dst_ports: ['1:65535'],
      src_ports: [1, 5],
    },
    both(
      `th sport != { ${range(16)
        .map((n) => 3 * n)
        .join(', ')} } th sport { 1, 5 } th dport 1-65535 meta l4proto 132 counter accept`,
    ),
  ],
];

describe('a rule and its text', () => {
  for (const [json, texts] of rows) {
    test(JSON.stringify(json), () => {
      const shown = ([4, 6] as const).map((family) => render(json, family).map(withoutOrder));
      assert.deepEqual(
        shown,
        texts.map((each) => each.map(withoutOrder)),
      );
    });
  }
});

/** The conditions of a rule stand in no order that means something. */
function withoutOrder(text: string): string {
  return text
    .split(/ (?=ip |ip6 |th |icmp|@th|counter)/)
    .sort()
    .join(' ');
}

function render(json: object, family: 4 | 6): readonly string[] {
  const rule = ruleFromJson(json);
  const verdict = {
    allow: { kind: 'accept' },
    pass: { kind: 'drop' },
    deny: { kind: 'drop' },
    log: { kind: 'log', prefix: 'netctl:web ' },
  } as const;
  const origin = { kind: 'profile', name: 'web', direction: 'inbound', index: 0 } as const;
  const rules = compileRule(rule, family, verdict[rule.action], 'why').map((each) => ({ ...each, origin }));
  return renderNftChain(family, { name: 'c', rules }).texts;
}

test('two rules that were written as two stay two', () => {
  const rule = ruleFromJson({ ...tcp, dst_ports: [80], comment: 'same' });
  const rules = [0, 1].flatMap((index) =>
    compileRule(rule, 4, { kind: 'accept' }, 'why').map((each) => ({
      ...each,
      origin: { kind: 'profile', name: 'web', direction: 'inbound', index } as const,
    })),
  );
  assert.equal(renderNftChain(4, { name: 'c', rules }).rules.length, 2);
});

test('however many lists there are, one rule finds the chain, and the mark is what it was', () => {
  const lists = range(50).map((n) => `list-${n}`);
  const [from] = compileDispatch(4, lists);
  const { rules, texts, dispatch } = renderNftChain(4, from!);
  assert.equal(rules.length, 2);
  assert.equal(
    texts[0],
    'meta mark set iifname . ip saddr map @nctl-list-of meta mark set meta mark meta mark vmap @nctl-from-by-list',
  );
  assert.deepEqual(
    dispatch,
    lists.map((list) => [listSet(4, list), listChains.outbound(list)]),
  );
  const kinds = rules[0]!.expressions.map((expression) => expression.kind);
  assert.deepEqual(kinds, ['meta', 'payload', 'meta', 'map', 'mark-set', 'meta', 'mark-set', 'verdict-map']);
  const saved = rules[0]!.expressions[2];
  const restored = rules[0]!.expressions[6];
  assert(saved?.kind === 'meta' && saved.key === 'mark');
  assert(restored?.kind === 'mark-set' && restored.from === saved.to);
});

const byIndex = (side: 'iif' | 'oif', address: string, chain: string): string =>
  `meta mark set ${side} . ${address} map @nctl-list-of-index meta mark set meta mark meta mark vmap @${chain}-by-list`;

test('before an interface is asked for its name, its index tells the list', () => {
  const entries = compileBase(6, { extraSources: true, foreign: true });
  const leading = entries.map(({ name, rules }) => {
    const { texts, dispatch } = renderNftChain(6, { name, rules });
    assert.deepEqual(dispatch, []);
    return [name, texts.filter((text) => text.includes('nctl-to'))];
  });
  const index = byIndex('oif', 'ip6 daddr', 'nctl-to');
  assert.deepEqual(leading, [
    ['nctl-FORWARD', []],
    ['nctl-FORWARD-to', [index, 'counter goto nctl-to']],
    ['nctl-INPUT', []],
    [
      'nctl-allowed',
      [
        index,
        'oifname "nctl*" counter goto nctl-to',
        'oifname . ip6 daddr @nctl6-foreign counter goto nctl-to',
      ],
    ],
  ]);
  const [by] = renderNftChain(6, entries.find(({ name }) => name === 'nctl-FORWARD-to')!).rules.slice(-2);
  // A register of 16 bytes holds the index and three quarters of the address, the next one the rest.
  assert.deepEqual(by!.expressions.slice(0, 2), [
    { kind: 'meta', key: 'oif', to: 8 },
    { kind: 'payload', base: 'network', offsetBytes: 24, lengthBytes: 16, to: 9 },
  ]);
});

const empty = (isThere: (chain: string) => boolean) => (name: string) =>
  isThere(name) ? { name, rules: [] } : undefined;

test('base chains lead only to chains that are there', () => {
  const names = (isThere: (chain: string) => boolean): string[] =>
    renderBaseChains(4, empty(isThere)).map(({ name }) => name);
  assert.deepEqual(
    names((chain) => chain === 'nctl-INPUT'),
    ['input'],
  );
  assert.deepEqual(
    names(() => false),
    [],
  );
  assert.deepEqual(
    renderBaseChains(
      4,
      empty(() => true),
    ).find(({ name }) => name === 'postrouting')?.hook,
    {
      type: 'nat',
      hook: 'postrouting',
      priority: 100,
    },
  );
});

test('known connections are accepted before the goto, and only with a source of the interface: by its index, behind it by its name', () => {
  for (const family of families) {
    const entries = compileBase(family, { extraSources: false, foreign: false });
    const chainOf = (name: string) => entries.find((chain) => chain.name === name);
    const base = renderBaseChains(family, chainOf);
    const address = family === 4 ? 'ip saddr' : 'ip6 saddr';
    const known = `iif . ${address} @nctl-by-index ct state related,established accept`;
    const byName = `ct state related,established iifname . ${address} @nctl${family}-ep accept`;
    const textsOf = (name: string) => base.find((chain) => chain.name === name)!.texts;
    assert.deepEqual(textsOf('forward'), [
      known,
      `ct state new ${byIndex('iif', address, 'nctl-from')}`,
      'iifname "nctl*" goto nctl-FORWARD',
      'oifname "nctl*" ct state related,established accept',
      'oifname "nctl*" goto nctl-FORWARD-to',
    ]);
    assert.deepEqual(textsOf('input'), [known, 'iifname "nctl*" goto nctl-INPUT']);
    for (const chain of entries) {
      const { texts } = renderNftChain(family, chain);
      const asked = texts.filter((text) => text.includes('established'));
      const isFrom = chain.name === 'nctl-FORWARD' || chain.name === 'nctl-INPUT';
      assert.deepEqual(asked, isFrom ? [byName] : [], chain.name);
    }
  }
});

test('a comment carries the hash and is as long as nft takes', () => {
  const rules = [
    { conditions: [], verdict: { kind: 'drop' }, comment: `web: "größe" ${'x'.repeat(300)}` } as const,
  ];
  const { rules: rendered, hashes } = renderNftChain(4, { name: 'c', rules });
  assert.match(rendered[0]!.comment, /^netctl:[0-9a-f]{16} web: \?gr\?\?e\? x+$/);
  assert.equal(rendered[0]!.comment.length, 127);
  assert.equal(hashInComment(rendered[0]!.comment), hashes[0]);
  assert.equal(hashInComment('netctl:short'), null);
});

test('web-app-db.nft', () => {
  const output = new Recorder();
  const engine = new PolicyEngine({ endpointToHost: 'drop' }, output);
  for (const [i, name] of ['web', 'app', 'db'].entries()) {
    const json = JSON.parse(readFileSync(`conf/examples/${name}-rule.json`, 'utf8'));
    engine.onProfile(name, profileFromJson(json, name));
    engine.onEndpoint(name, {
      local: name !== 'db',
      hostInterface: `nctl${name}`,
      addresses: [`10.0.0.${i + 1}`, `fd00::${i + 1}`] as Address[],
      profiles: [name],
    });
  }
  const path = 'test/unit/policy/golden/web-app-db.nft';
  if (process.env['UPDATE_GOLDEN'] === '1') writeFileSync(path, nftScript(output));
  assert.equal(nftScript(output), readFileSync(path, 'utf8'));
});
