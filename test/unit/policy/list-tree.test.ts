/** The tree that finds an endpoint's list in iptables: the same list as the flat chain, whatever came and went before. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Chain } from '../../../src/policy/chain.ts';
import { compileDispatch } from '../../../src/policy/compile.ts';
import { ListTree } from '../../../src/policy/list-tree.ts';
import { chains, listChains, listSet } from '../../../src/policy/names.ts';

/** What an output holds after all calls; of chains told again, the last. */
class Kernel {
  readonly sets = new Map<string, Set<string>>();
  readonly chains = new Map<string, Chain>();

  set(name: string, spec: object | null): void {
    if (spec !== null) {
      this.sets.set(name, new Set());
      return;
    }
    for (const { rules } of this.chains.values())
      for (const { conditions } of rules)
        assert(
          !conditions.some((each) => each.kind === 'set' && each.set === name),
          `${name} is still named`,
        );
    this.sets.delete(name);
  }

  member(set: string, member: string, present: boolean): void {
    const members = this.sets.get(set)!;
    assert.notEqual(members.has(member), present, `${set} ${member} is no difference`);
    if (present) members.add(member);
    else members.delete(member);
  }

  chain(family: number, name: string, chain: Chain | null): void {
    const key = `${family} ${name}`;
    if (chain === null) this.chains.delete(key);
    else this.chains.set(key, chain);
  }

  /** Where a new packet of the pair ends; how many sets were asked. */
  follow(chain: string, pair: string): { end: string; asked: number } {
    let asked = 0;
    for (let name = chain; ; ) {
      const { rules } = this.chains.get(`4 ${name}`) ?? { rules: null };
      if (rules === null) return { end: name, asked };
      const applies = rules.find(({ conditions }) =>
        conditions.every((each) => {
          assert(each.kind === 'set');
          asked++;
          return this.sets.get(each.set)!.has(pair);
        }),
      )!;
      if (applies.verdict.kind !== 'goto') return { end: applies.verdict.kind, asked };
      name = applies.verdict.chain;
    }
  }
}

test('each endpoint finds its list, one without is dropped, and nothing is left when all are gone', () => {
  const step = fc.record({ endpoint: fc.nat(5), list: fc.option(fc.nat(30)) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const kernel = new Kernel();
      const tree = new ListTree(kernel);
      const lists = new Map<number, Set<number>>();
      const dispatch = (): void => {
        const ids = [...lists.keys()].map((list) => `l${list}`).sort();
        for (const chain of compileDispatch(4, ids)) tree.chain(4, chain.name, chain);
      };
      const leave = (endpoint: number, list: number): void => {
        tree.member(listSet(4, `l${list}`), `${endpoint}`, false);
        lists.get(list)!.delete(endpoint);
        if (lists.get(list)!.size > 0) return;
        lists.delete(list);
        dispatch();
        tree.set(listSet(4, `l${list}`), null);
      };
      const at = new Map<number, number>();
      const check = (): void => {
        for (let endpoint = 0; endpoint < 6; endpoint++) {
          const list = at.get(endpoint);
          for (const [chain, end] of [
            [chains.from, listChains.outbound],
            [chains.host, listChains.host],
            [chains.to, listChains.inbound],
          ] as const)
            assert.equal(
              kernel.follow(chain, `${endpoint}`).end,
              list === undefined ? 'drop' : end(`l${list}`),
            );
        }
      };
      dispatch();
      for (const { endpoint, list } of [
        ...steps,
        ...[0, 1, 2, 3, 4, 5].map((endpoint) => ({ endpoint, list: null })),
      ]) {
        const before = at.get(endpoint);
        if (before === (list ?? undefined)) continue;
        if (list !== null) {
          if (!lists.has(list)) {
            lists.set(list, new Set());
            tree.set(listSet(4, `l${list}`), { type: 'net,iface', family: 4 });
            dispatch();
          }
          lists.get(list)!.add(endpoint);
          tree.member(listSet(4, `l${list}`), `${endpoint}`, true);
          at.set(endpoint, list);
        } else at.delete(endpoint);
        if (before !== undefined) leave(endpoint, before);
        check();
      }
      assert.deepEqual([...kernel.sets.keys()], []);
      assert.deepEqual([...kernel.chains.keys()].sort(), ['4 nctl-from', '4 nctl-host', '4 nctl-to']);
    }),
  );
});

test('with a hundred lists, a packet asks few sets', () => {
  const kernel = new Kernel();
  const tree = new ListTree(kernel);
  const ids = Array.from({ length: 100 }, (_, i) => `l${String(i).padStart(2, '0')}`);
  for (const id of ids) tree.set(listSet(4, id), { type: 'net,iface', family: 4 });
  for (const id of ids) tree.member(listSet(4, id), id, true);
  for (const chain of compileDispatch(4, ids)) tree.chain(4, chain.name, chain);
  const asked = ids.map((id) => kernel.follow(chains.from, id).asked);
  assert(Math.max(...asked) <= 30, `${Math.max(...asked)}`);
  assert(asked.reduce((sum, each) => sum + each, 0) / ids.length <= 13);
});
