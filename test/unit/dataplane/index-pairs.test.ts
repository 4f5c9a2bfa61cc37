/** Endpoints by the index of their interface: never by one that may be another interface's. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { IndexOwners, IndexPairs } from '../../../src/dataplane/index-pairs.ts';
import { hostInterfaceIndex } from '../../../src/model/attachment.ts';
import type { Family } from '../../../src/model/ip.ts';
import { twoOfOneIndex } from './same-index.ts';

type Data = number | null | undefined;

/** The elements of one family, and of the other one beside it. */
const told = (family: Family = 4) => {
  const there = new Map<string, unknown>();
  const owners = new IndexOwners();
  const elementsOf = (of: Family, tell: (pair: string, data: unknown) => void) => {
    const elements = new Map<string, number | null>();
    const pairs = new IndexPairs(of, owners, () => elements, tell);
    return (element: string, data: Data): void => {
      const before = elements.get(element);
      if (data === undefined) elements.delete(element);
      else elements.set(element, data);
      pairs.change(element, data, before);
    };
  };
  const change = elementsOf(family, (pair, data) => {
    if (data === undefined) there.delete(pair);
    else there.set(pair, data);
  });
  const changeOther = elementsOf(family === 4 ? 6 : 4, () => {});
  return { there, change, changeOther };
};

test('single addresses on interfaces of ours, by an index above all that are numbered in another way', () => {
  const { there, change } = told();
  for (const member of ['10.0.0.1/32,nctla', '10.0.0.2,nctla']) change(member, null);
  change('10.1.0.0/16,nctla', null);
  change('10.0.0.9/32,cali1', null);
  const index = hostInterfaceIndex('nctla');
  assert(index >= 2 ** 30 && index < 2 ** 31);
  assert.deepEqual([...there.keys()], [`10.0.0.1,${index}`, `10.0.0.2,${index}`]);
  change('10.0.0.1/32,nctla', undefined);
  assert.deepEqual([...there.keys()], [`10.0.0.2,${index}`]);
});

test('an index that belongs to two names is nobody’s, until one of them is gone', () => {
  const { there, change } = told();
  const [one, two] = twoOfOneIndex();
  change(`10.0.0.1/32,${one}`, null);
  change(`10.0.0.2/32,${two}`, null);
  assert.deepEqual([...there.keys()], []);
  change(`10.0.0.1/32,${one}`, undefined);
  assert.deepEqual([...there.keys()], [`10.0.0.2,${hostInterfaceIndex(two)}`]);
});

test('nor if the other name has addresses of the other family only', () => {
  const { there, change, changeOther } = told();
  const [one, two] = twoOfOneIndex();
  change(`10.0.0.1/32,${one}`, null);
  changeOther(`fd00::1/128,${two}`, null);
  assert.deepEqual([...there.keys()], []);
  changeOther(`fd00::1/128,${two}`, undefined);
  assert.deepEqual([...there.keys()], [`10.0.0.1,${hostInterfaceIndex(one)}`]);
  changeOther(`fd00::1/128,${one}`, null);
  assert.equal(there.size, 1);
});

test('a prefix of IPv6 is no single address, however its length is written', () => {
  const { there, change } = told(6);
  change('fd00::/32,nctla', null);
  assert.equal(there.size, 0);
  change('fd00::1/128,nctla', null);
  assert.deepEqual([...there.keys()], [`fd00::1,${hostInterfaceIndex('nctla')}`]);
});

test('what is said of a pair changes with it', () => {
  const { there, change } = told();
  const pair = `10.0.0.1,${hostInterfaceIndex('nctla')}`;
  change('10.0.0.1,nctla', 7);
  assert.equal(there.get(pair), 7);
  change('10.0.0.1,nctla', 8);
  assert.equal(there.get(pair), 8);
  change('10.0.0.1,nctla', undefined);
  assert.equal(there.size, 0);
});

test('whatever comes and goes, in whichever order', () => {
  const names = [...twoOfOneIndex(), 'nctlother', 'cali1'];
  const step = fc.record({
    name: fc.constantFrom(...names),
    address: fc.constantFrom('10.0.0.1', '10.0.0.2'),
    data: fc.constantFrom(null, 7, undefined),
    isOther: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const { there, change, changeOther } = told();
      const data = new Map<string, number | null>();
      const others = new Set<string>();
      for (const { name, address, data: now, isOther } of steps) {
        const key = `${address},${name}`;
        if (isOther && others.has(name) === (now === undefined)) {
          changeOther(`fd00::1/128,${name}`, now);
          if (now === undefined) others.delete(name);
          else others.add(name);
        } else if (!isOther) {
          change(key, now);
          if (now === undefined) data.delete(key);
          else data.set(key, now);
        }
        const holders = new Set([...Array.from(data.keys(), (each) => each.split(',')[1]!), ...others]);
        const expected = [...data].flatMap(([each, value]) => {
          const [of, by] = each.split(',') as [string, string];
          const index = hostInterfaceIndex(by);
          const isShared = [...holders].some((other) => other !== by && hostInterfaceIndex(other) === index);
          return isShared || by === 'cali1' ? [] : [[`${of},${index}`, value] as const];
        });
        assert.deepEqual(new Map([...there].sort()), new Map(expected.sort()));
      }
    }),
  );
});
