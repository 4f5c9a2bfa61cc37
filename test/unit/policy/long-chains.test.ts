/** Chains of many rules in two parts. That packets meet the same fate is asked of the kernel (test/kernel/policy-random). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ruleFromJson } from '../../../src/model/rule.ts';
import { type Chain, type ChainRule, DROP, rule } from '../../../src/policy/chain.ts';
import { compileRule } from '../../../src/policy/compile-rule.ts';
import { cutLongChain, joinParts } from '../../../src/policy/long-chains.ts';
import { renderNftChain } from '../../../src/policy/render-nftables.ts';

const LONG = 8;
const textsOf = (chains: readonly Chain[]): [string, readonly string[]][] =>
  chains.map((chain) => [chain.name, renderNftChain(4, chain).texts]);

/** A rule for each, then the end. */
function chainOf(...rules: object[]): Chain {
  const origin = { kind: 'profile', name: 'web', direction: 'inbound' } as const;
  const compiled = rules.flatMap((json, index): ChainRule[] =>
    compileRule(ruleFromJson(json), 4, { kind: 'accept' }, 'why').map((each) => ({
      ...each,
      origin: { ...origin, index },
    })),
  );
  return { name: 'c', rules: [...compiled, rule([], DROP, 'none')] };
}

const to = (...ports: (number | string)[]) => ({ protocol: 'tcp', dst_ports: ports });
const accept = (ports: string): string => `th dport ${ports} meta l4proto 6 counter accept`;

test('a packet whose port is none of the first half’s walks over the second half only', () => {
  const chain = chainOf(to(80), to('81:89'), to(100), to(22), to(443), {}, to(5), to(6));
  assert.deepEqual(textsOf(cutLongChain(chain, LONG)), [
    [
      'c',
      [
        'th dport != { 22, 80-89, 100 } goto c.rest',
        ...['80', '81-89', '100', '22'].map(accept),
        'goto c.rest',
      ],
    ],
    ['c.rest', [accept('443'), 'counter accept', accept('5'), accept('6'), 'counter drop']],
  ]);
});

test('rules that ask for no port of the destination are not passed over', () => {
  const source = { protocol: 'tcp', src_ports: [80] };
  const none = { protocol: 'tcp', '!dst_ports': [80] };
  for (const other of [source, none, {}]) {
    const early = chainOf(to(1), to(2), to(3), other, to(4), to(5), to(6), to(7));
    assert.equal(cutLongChain(early, LONG).length, 1);
    const later = chainOf(...[1, 2, 3, 4].map((port) => to(port)), other, to(5), to(6), to(7), to(8), to(9));
    const [first, rest] = textsOf(cutLongChain(later, LONG));
    assert.equal(first![1].length, 6);
    assert.equal(rest![1].length, 7);
  }
});

test('what is short stays whole, and so does a chain that no user wrote', () => {
  assert.equal(cutLongChain(chainOf(to(1), to(2), to(3)), LONG).length, 1);
  const chain = chainOf(...Array.from({ length: 20 }, (_, i) => to(i)));
  assert.equal(cutLongChain(chain, LONG).length, 2);
  const rules = chain.rules.map(({ origin: _, ...each }) => each);
  assert.equal(cutLongChain({ name: 'nctl-published', rules }, LONG).length, 1);
});

test('counters of both parts are those of the whole, rule by rule', () => {
  const parts = new Map([
    ['c', [90, 1, 2, 91]],
    ['c.rest', [3, 4]],
    ['d', [5]],
  ]);
  assert.deepEqual(
    [...joinParts(parts)],
    [
      ['c', [1, 2, 3, 4]],
      ['d', [5]],
    ],
  );
});
