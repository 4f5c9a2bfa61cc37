/** Records what a PolicyEngine tells: the state that its calls add up to; strict about their order. */
import assert from 'node:assert/strict';
import type { Family } from '../../../src/model/ip.ts';
import { type Chain, setsOfChain } from '../../../src/policy/chain.ts';
import type { PolicyOutput, SetSpec } from '../../../src/policy/output.ts';

export class Recorder implements PolicyOutput {
  readonly sets = new Map<string, SetSpec & { members: Set<string> }>();
  readonly chains = new Map<string, Chain>();
  calls = 0;
  structureCalls = 0;

  set(name: string, spec: SetSpec | null): void {
    this.calls++;
    this.structureCalls++;
    if (spec === null) {
      for (const chain of this.chains.values())
        assert(!setsOfChain(chain).has(name), `${name} gone but named by ${chain.name}`);
      assert(this.sets.delete(name), `${name} was not there`);
    } else {
      assert(!this.sets.has(name), `${name} told twice`);
      this.sets.set(name, { ...spec, members: new Set() });
    }
  }

  member(name: string, member: string, present: boolean): void {
    this.calls++;
    const set = this.sets.get(name);
    assert(set, `member of unknown set ${name}`);
    assert.notEqual(set.members.has(member), present, `${name} ${member} is no difference`);
    if (present) set.members.add(member);
    else set.members.delete(member);
  }

  chain(family: Family, name: string, chain: Chain | null): void {
    this.calls++;
    this.structureCalls++;
    const key = `${family} ${name}`;
    if (chain === null) {
      assert(this.chains.delete(key), `${key} was not there`);
      return;
    }
    for (const set of setsOfChain(chain)) assert(this.sets.has(set), `${key} names unknown set ${set}`);
    assert.notDeepEqual(this.chains.get(key), chain, `${key} is no difference`);
    this.chains.set(key, chain);
  }

  /** Comparable: all in order. */
  state(): unknown {
    const sorted = <T>(map: ReadonlyMap<string, T>): [string, T][] =>
      [...map].sort(([a], [b]) => (a < b ? -1 : 1));
    return {
      sets: sorted(this.sets).map(([name, set]) => [name, set.type, set.family, [...set.members].sort()]),
      chains: sorted(this.chains),
    };
  }
}
