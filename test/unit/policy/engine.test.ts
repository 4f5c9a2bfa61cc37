/** The policy engine: its output is a function of the current state, however that came about. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { addressSetFromJson } from '../../../src/model/address-set.ts';
import type { HostEndpoint } from '../../../src/model/host-endpoint.ts';
import type { Address, Cidr } from '../../../src/model/ip.ts';
import { type BrokenPolicy, type Policy, policyFromJson } from '../../../src/model/policy.ts';
import { newProfile, type Profile } from '../../../src/model/profile.ts';
import { ruleFromJson } from '../../../src/model/rule.ts';
import type { PolicyEndpoint } from '../../../src/policy/endpoint-members.ts';
import { PolicyEngine } from '../../../src/policy/engine.ts';
import {
  addressSet,
  endpointSet,
  extraSourceSet,
  listChains,
  listId,
  listSet,
  selectorSet,
  tagSet,
} from '../../../src/policy/names.ts';
import type { PolicyOutput } from '../../../src/policy/output.ts';
import {
  labelsArbitrary,
  netsArbitrary,
  policyArbitrary,
  profileArbitrary,
  selectorArbitrary,
} from './arbitrary.ts';
import { Recorder } from './recorder.ts';

type Step =
  | { kind: 'profile'; name: string; profile: Profile | null }
  | { kind: 'policy'; name: string; policy: Policy | BrokenPolicy | null }
  | { kind: 'pool'; name: string; pool: { cidr: Cidr; natOutgoing: boolean } | null }
  | { kind: 'host endpoint'; name: string; host: HostEndpoint | null }
  | { kind: 'address set'; name: string; nets: Cidr[] | null }
  | { kind: 'endpoint'; id: string; endpoint: PolicyEndpoint | null }
  | { kind: 'retire' };

const names = fc.constantFrom('web', 'app', 'db', 'gone');
const endpoints = fc.record({
  local: fc.boolean(),
  hostInterface: fc.constantFrom('nctl0', 'nctl1', 'veth0'),
  addresses: fc.array(fc.constantFrom('10.0.0.1', '10.0.0.2', 'fd00::1') as fc.Arbitrary<Address>, {
    maxLength: 3,
  }),
  profiles: fc.array(names, { maxLength: 3 }),
  labels: labelsArbitrary,
  extraSources: fc.array(fc.constantFrom('10.9.0.0/24', '10.0.0.1/32', '::/0') as fc.Arbitrary<Cidr>, {
    maxLength: 2,
  }),
});
const broken = selectorArbitrary.map((selector): BrokenPolicy => ({ order: 1, selector, broken: 'by hand' }));
const steps: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constant('profile' as const),
    name: names,
    profile: fc.option(profileArbitrary, { freq: 4 }),
  }),
  fc.record({
    kind: fc.constant('endpoint' as const),
    id: fc.constantFrom('a', 'b', 'c'),
    endpoint: fc.option(endpoints, { freq: 3 }),
  }),
  fc.record({
    kind: fc.constant('policy' as const),
    name: fc.constantFrom('base', 'more'),
    policy: fc.oneof({ weight: 3, arbitrary: policyArbitrary }, broken, fc.constant(null)),
  }),
  fc.record({
    kind: fc.constant('pool' as const),
    name: fc.constantFrom('one', 'two'),
    pool: fc.option(
      fc.record({
        cidr: fc.constantFrom('10.0.0.0/16', '10.1.0.0/16', 'fd00::/64') as fc.Arbitrary<Cidr>,
        natOutgoing: fc.boolean(),
      }),
      { freq: 3 },
    ),
  }),
  fc.record({
    kind: fc.constant('host endpoint' as const),
    name: fc.constantFrom('uplink', 'rest'),
    host: fc.option(
      fc.record({
        interface: fc.constantFrom('eth0', '*'),
        labels: labelsArbitrary,
        profiles: fc.uniqueArray(names, { maxLength: 2 }),
      }),
      { freq: 3 },
    ),
  }),
  fc.record({
    kind: fc.constant('address set' as const),
    name: fc.constantFrom('office', 'partners'),
    nets: fc.option(netsArbitrary, { freq: 3 }),
  }),
  fc.constant({ kind: 'retire' as const }),
);

function start(): { engine: PolicyEngine; output: Recorder } {
  const output = new Recorder();
  return { engine: new PolicyEngine({ endpointToHost: 'drop' }, output), output };
}

function take(engine: PolicyEngine, step: Step): void {
  if (step.kind === 'profile') engine.onProfile(step.name, step.profile);
  else if (step.kind === 'endpoint') engine.onEndpoint(step.id, step.endpoint);
  else if (step.kind === 'pool') engine.onPool(step.name, step.pool);
  else if (step.kind === 'host endpoint') engine.onHostEndpoint(step.name, step.host);
  else if (step.kind === 'policy') engine.onPolicy(step.name, step.policy);
  else if (step.kind === 'address set') engine.onAddressSet(step.name, step.nets);
  else engine.retire();
}

describe('the policy engine', () => {
  test('comes to the same output as one that is told the final state only', () => {
    fc.assert(
      fc.property(fc.array(steps, { maxLength: 30 }), fc.boolean(), (sequence, backwards) => {
        const { engine, output } = start();
        for (const step of sequence) take(engine, step);
        engine.retire();
        engine.retire();

        const final = new Map<string, Step>();
        for (const step of sequence) {
          if (step.kind !== 'retire') final.set(`${step.kind} ${'id' in step ? step.id : step.name}`, step);
        }
        const fresh = start();
        const last = [...final.values()];
        for (const step of backwards ? last.reverse() : last) take(fresh.engine, step);
        // An endpoint told before its policies has been on another list.
        fresh.engine.retire();
        fresh.engine.retire();
        assert.deepEqual(output.state(), fresh.output.state());
      }),
      { numRuns: 300 },
    );
  });

  test('says nothing when told the same again', () => {
    fc.assert(
      fc.property(fc.array(steps, { maxLength: 10 }), steps, (sequence, step) => {
        fc.pre(step.kind !== 'retire');
        const { engine, output } = start();
        for (const each of sequence) take(engine, each);
        take(engine, step);
        const calls = output.calls;
        take(engine, structuredClone(step));
        assert.equal(output.calls, calls);
      }),
    );
  });

  test('leaves nothing when all are gone', () => {
    fc.assert(
      fc.property(fc.array(steps, { maxLength: 20 }), (sequence) => {
        const { engine, output } = start();
        for (const step of sequence) take(engine, step);
        for (const id of ['a', 'b', 'c']) engine.onEndpoint(id, null);
        for (const name of ['web', 'app', 'db', 'gone']) engine.onProfile(name, null);
        for (const name of ['base', 'more']) engine.onPolicy(name, null);
        for (const name of ['one', 'two']) engine.onPool(name, null);
        for (const name of ['uplink', 'rest']) engine.onHostEndpoint(name, null);
        for (const name of ['office', 'partners']) engine.onAddressSet(name, null);
        engine.retire();
        engine.retire();
        assert.deepEqual(output.state(), start().output.state());
      }),
    );
  });
});

const web = (address: string, local = true): PolicyEndpoint => ({
  local,
  hostInterface: `nctl${address}`,
  addresses: [address as Address],
  profiles: ['web'],
});

const both = ['10.0.0.1', 'fd00::1'] as Address[];

describe('what an endpoint costs', () => {
  test('with a known list: its members, no set, no chain', () => {
    const { engine, output } = start();
    engine.onProfile('web', newProfile('web'));
    engine.onEndpoint('a', web('10.0.0.1'));
    const { calls, structureCalls } = output;
    engine.onEndpoint('b', web('10.0.0.2'));
    assert.equal(output.calls - calls, 3);
    engine.onEndpoint('b', null);
    assert.equal(output.calls - calls, 6);
    assert.equal(output.structureCalls, structureCalls);
  });

  test('nothing in a family in which it has no address', () => {
    const { engine, output } = start();
    const chainsOf6 = () => [...output.chains.keys()].filter((key) => key.startsWith('6 ')).length;
    const before = chainsOf6();
    engine.onEndpoint('a', web('10.0.0.1'));
    assert.equal(chainsOf6(), before);
    engine.onEndpoint('a', { ...web('10.0.0.1'), addresses: both });
    assert.equal(chainsOf6(), before + 3);
  });

  test('a list among a thousand that comes: chains are told, not worked out', () => {
    let made = 0;
    const output: PolicyOutput = { set() {}, member() {}, chain: () => void made++ };
    const engine = new PolicyEngine({ endpointToHost: 'drop' }, output);
    const chainsFor = (from: number, to: number): number => {
      const before = made;
      for (let i = from; i < to; i++)
        engine.onEndpoint(`${i}`, { ...web(`10.0.${i >> 8}.${i & 255}`), profiles: [`p${i}`] });
      return made - before;
    };
    chainsFor(0, 1);
    const few = chainsFor(1, 11);
    assert(few >= 60);
    chainsFor(11, 1000);
    assert.equal(chainsFor(1000, 1010), few, 'as many among a thousand lists as among ten');
  });

  test('the last of a list leaves it in place until two calls of retire find it unused', () => {
    const { engine, output } = start();
    engine.onProfile('web', newProfile('web'));
    engine.onEndpoint('a', web('10.0.0.1'));
    const { structureCalls } = output;
    engine.onEndpoint('a', null);
    engine.retire();
    engine.onEndpoint('b', web('10.0.0.2'));
    engine.onEndpoint('b', null);
    engine.retire();
    assert.equal(output.structureCalls, structureCalls);
    engine.retire();
    assert(!output.sets.has(listSet(4, listId(['web']))));
    assert(!output.chains.has(`4 ${listChains.outbound(listId(['web']))}`));
  });

  test('one of another node: only its tags', () => {
    const { engine, output } = start();
    engine.onProfile('web', newProfile('web'));
    engine.onEndpoint('far', web('10.9.0.1', false));
    assert(!output.sets.has(tagSet(4, 'web')), 'no rule here names the tag');
    engine.onEndpoint('a', web('10.0.0.1'));
    assert.deepEqual(output.sets.get(tagSet(4, 'web'))!.members, new Set(['10.0.0.1/32', '10.9.0.1/32']));
    engine.onEndpoint('far', null);
    assert.deepEqual(output.sets.get(tagSet(4, 'web'))!.members, new Set(['10.0.0.1/32']));
  });
});

describe('a profile that is missing', () => {
  test('denies in its place, both ways and in both families', () => {
    const { engine, output } = start();
    engine.onEndpoint('a', { ...web('10.0.0.1'), addresses: both, profiles: ['gone', 'web'] });
    engine.onProfile('web', newProfile('web'));
    const list = listId(['gone', 'web']);
    for (const chain of [
      `4 nctl-in-${list}`,
      `4 nctl-out-${list}`,
      `6 nctl-in-${list}`,
      `6 nctl-out-${list}`,
    ]) {
      assert.deepEqual(output.chains.get(chain)!.rules, [
        { conditions: [], verdict: { kind: 'drop' }, comment: 'profile gone is missing or invalid' },
      ]);
    }
  });
});

const db = (address: string): PolicyEndpoint => ({ ...web(address), labels: { role: 'db' } });
const inbound = (profiles: string[], policies: string[]): string =>
  `4 ${listChains.inbound(listId(profiles, policies))}`;

/** What a chain says, a line a rule. */
function lines(output: Recorder, chain: string): string[] {
  return (output.chains.get(chain)?.rules ?? []).map(({ verdict, comment }) => {
    const to = verdict.kind === 'goto' ? ` ${verdict.chain.slice(0, 7)}` : '';
    return `${verdict.kind}${to} ${comment}`;
  });
}

describe('policies', () => {
  const policy = (order: number, rules: object[]): Policy =>
    policyFromJson({ order, selector: 'role == "db"', inbound_rules: rules });

  test('stand before the profiles, by order and then by name, for those whom their selector picks', () => {
    const { engine, output } = start();
    engine.onProfile('web', newProfile('web'));
    engine.onPolicy('b', policy(1, [{ action: 'deny', protocol: 'udp' }]));
    engine.onPolicy('a', policy(1, [{ action: 'pass', protocol: 'tcp' }]));
    engine.onPolicy('first', policy(0.5, [{ action: 'allow', src_selector: 'has(admin)' }]));
    engine.onEndpoint('a', web('10.0.0.1'));
    engine.onEndpoint('b', db('10.0.0.2'));
    const list = listId(['web'], ['a', 'b', 'first']);
    assert.deepEqual(lines(output, inbound(['web'], ['a', 'b', 'first'])), [
      'accept policy first: allow from selector (has(admin))',
      `goto ${listChains.inboundPassed(list).slice(0, 7)} policy a: pass tcp`,
      'drop policy b: deny udp',
      'drop no policy decided',
    ]);
    const profile = ['accept web: allow from tag web', 'drop no profile matched'];
    assert.deepEqual(lines(output, `4 ${listChains.inboundPassed(list)}`), profile);
    assert.deepEqual(lines(output, inbound(['web'], [])), profile);
    // No policy speaks of what goes out.
    assert.equal(output.chains.get(`4 ${listChains.outbound(list)}`)!.rules.length, 2);
    assert(!output.chains.has(`4 ${listChains.outboundPassed(list)}`));
    assert.deepEqual(output.sets.get(listSet(4, list))!.members, new Set(['10.0.0.2/32,nctl10.0.0.2']));

    engine.onPolicy('first', policy(2, []));
    assert.match(lines(output, inbound(['web'], ['a', 'b', 'first']))[0]!, /policy a/);
  });

  test('one that is broken denies whom it picks, in its place, and nobody else', () => {
    const { engine, output } = start();
    engine.onProfile('web', newProfile('web'));
    engine.onEndpoint('a', web('10.0.0.1'));
    engine.onEndpoint('b', db('10.0.0.2'));
    const { selector } = policy(2, []);
    engine.onPolicy('ok', policy(1, [{ action: 'allow', protocol: 'tcp' }]));
    engine.onPolicy('bad', { order: 2, selector, broken: 'by hand' });
    assert.deepEqual(lines(output, inbound(['web'], ['bad', 'ok'])), [
      'accept policy ok: allow tcp',
      'drop policy bad is invalid',
    ]);
    assert.equal(lines(output, inbound(['web'], [])).length, 2);
  });

  test('a change of labels moves one endpoint: members, no chain', () => {
    const { engine, output } = start();
    engine.onProfile('web', newProfile('web'));
    engine.onPolicy('base', policy(1, [{ action: 'allow', src_selector: 'role == "db"' }]));
    for (const [i, endpoint] of [web('10.0.0.1'), db('10.0.0.2'), web('10.0.0.3')].entries())
      engine.onEndpoint(`${i}`, endpoint);
    assert.deepEqual(output.sets.get(selectorSet(4, 'role == "db"'))!.members, new Set(['10.0.0.2/32']));
    const { calls, structureCalls } = output;
    engine.onEndpoint('2', db('10.0.0.3'));
    // Into the other list, out of its own, into the selector's set.
    assert.equal(output.calls - calls, 3);
    assert.equal(output.structureCalls, structureCalls);
  });
});

describe('an address set', () => {
  test('fills one set for all rules that name it, by differences', () => {
    const { engine, output } = start();
    engine.onEndpoint('a', { ...web('10.0.0.1'), addresses: both });
    const rules = ruleFromJson({ action: 'deny', src_set: 'office', protocol: 'tcp' });
    engine.onProfile('web', { ...newProfile('web'), inbound: [rules] });
    engine.onAddressSet(
      'office',
      addressSetFromJson({ nets: ['10.1.0.0/16', '10.1.2.0/24', '0.0.0.0/0', 'fd00::1'] }),
    );
    assert.deepEqual(
      output.sets.get(addressSet(4, 'office'))!.members,
      new Set(['0.0.0.0/1', '128.0.0.0/1']),
    );
    const { calls } = output;
    engine.onAddressSet('office', addressSetFromJson({ nets: ['0.0.0.0/0', 'fd00::1', 'fd00::2'] }));
    assert.equal(output.calls - calls, 1);
  });

  test('that is missing denies what its rules could have spoken of', () => {
    const { engine, output } = start();
    engine.onEndpoint('a', web('10.0.0.1'));
    const allow = ruleFromJson({ action: 'allow', '!src_set': 'office', protocol: 'tcp' });
    engine.onProfile('web', { ...newProfile('web'), inbound: [allow] });
    const [first] = output.chains.get(inbound(['web'], []))!.rules;
    assert.deepEqual(first!.conditions, [{ kind: 'protocol', protocol: 6, negated: false }]);
    assert.equal(first!.verdict.kind, 'drop');
    engine.onAddressSet('office', []);
    assert.equal(output.chains.get(inbound(['web'], []))!.rules[0]!.verdict.kind, 'accept');
    engine.onAddressSet('office', null);
    assert.deepEqual(output.chains.get(inbound(['web'], []))!.rules[0], first);
  });
});

test('an extra source may send like an address, and its packets need no connection', () => {
  const { engine, output } = start();
  const before = output.state();
  engine.onProfile('web', newProfile('web'));
  engine.onEndpoint('a', { ...web('10.0.0.1'), extraSources: ['192.0.2.0/30' as Cidr] });
  const pair = '192.0.2.0/30,nctl10.0.0.1';
  for (const set of [endpointSet(4), extraSourceSet(4), listSet(4, listId(['web']))])
    assert(output.sets.get(set)!.members.has(pair), set);
  const forward = output.chains.get('4 nctl-FORWARD')!.rules.map(({ comment }) => comment);
  assert.deepEqual(forward.slice(0, 4), [
    'known connection',
    'spoofed source or unknown interface',
    'from an extra source of an endpoint',
    'of no connection',
  ]);
  engine.onEndpoint('a', null);
  engine.onProfile('web', null);
  engine.retire();
  engine.retire();
  assert.deepEqual(output.state(), before);
});
