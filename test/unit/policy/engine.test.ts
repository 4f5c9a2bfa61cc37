/** The policy engine: its output is a function of the current state, however that came about. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { Address } from '../../../src/model/ip.ts';
import { newProfile, type Profile } from '../../../src/model/profile.ts';
import { type PolicyEndpoint, PolicyEngine } from '../../../src/policy/engine.ts';
import { listChains, listId, listSet, tagSet } from '../../../src/policy/names.ts';
import { profileArbitrary } from './arbitrary.ts';
import { Recorder } from './recorder.ts';

type Step =
  | { kind: 'profile'; name: string; profile: Profile | null }
  | { kind: 'endpoint'; id: string; endpoint: PolicyEndpoint | null }
  | { kind: 'retire' };

const names = fc.constantFrom('web', 'app', 'db', 'gone');
const endpoints = fc.record({
  local: fc.boolean(),
  hostInterface: fc.constantFrom('nctl0', 'nctl1'),
  addresses: fc.array(fc.constantFrom('10.0.0.1', '10.0.0.2', 'fd00::1') as fc.Arbitrary<Address>, {
    maxLength: 3,
  }),
  profiles: fc.array(names, { maxLength: 3 }),
});
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
  fc.constant({ kind: 'retire' as const }),
);

function start(): { engine: PolicyEngine; output: Recorder } {
  const output = new Recorder();
  return { engine: new PolicyEngine({ endpointToHost: 'drop' }, output), output };
}

function take(engine: PolicyEngine, step: Step): void {
  if (step.kind === 'profile') engine.onProfile(step.name, step.profile);
  else if (step.kind === 'endpoint') engine.onEndpoint(step.id, step.endpoint);
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
          if (step.kind === 'profile') final.set(`profile ${step.name}`, step);
          if (step.kind === 'endpoint') final.set(`endpoint ${step.id}`, step);
        }
        const fresh = start();
        const last = [...final.values()];
        for (const step of backwards ? last.reverse() : last) take(fresh.engine, step);
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
    engine.onEndpoint('a', { ...web('10.0.0.1'), profiles: ['gone', 'web'] });
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
