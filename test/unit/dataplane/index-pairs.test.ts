/** Endpoints by the index of their interface: never by one that may be another interface's. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IndexPairs } from '../../../src/dataplane/index-pairs.ts';
import { hostInterfaceIndex } from '../../../src/model/attachment.ts';

const told = () => {
  const there = new Set<string>();
  const pairs = new IndexPairs((pair, isThere) => {
    assert.equal(there.has(pair), !isThere);
    if (isThere) there.add(pair);
    else there.delete(pair);
  });
  return { there, pairs };
};

/** Found by trying: about one name in 40,000 has an index of another one before. */
function twoOfOneIndex(): [string, string] {
  const names = new Map<number, string>();
  for (let i = 0; ; i++) {
    const name = `nctl${i.toString(16).padStart(11, '0')}`;
    const other = names.get(hostInterfaceIndex(name));
    if (other !== undefined) return [other, name];
    names.set(hostInterfaceIndex(name), name);
  }
}

test('single addresses on interfaces of ours, by an index above all that are numbered in another way', () => {
  const { there, pairs } = told();
  for (const member of ['10.0.0.1/32,nctla', '10.0.0.2/32,nctla', 'fd00::1/128,nctla'])
    pairs.change(member, true);
  pairs.change('10.1.0.0/16,nctla', true);
  pairs.change('10.0.0.9/32,cali1', true);
  const index = hostInterfaceIndex('nctla');
  assert(index >= 2 ** 30 && index < 2 ** 31);
  assert.deepEqual([...there], [`10.0.0.1,${index}`, `10.0.0.2,${index}`, `fd00::1,${index}`]);
  pairs.change('10.0.0.1/32,nctla', false);
  assert.deepEqual([...there], [`10.0.0.2,${index}`, `fd00::1,${index}`]);
});

test('an index that belongs to two names is nobody’s, until one of them is gone', () => {
  const { there, pairs } = told();
  const [one, two] = twoOfOneIndex();
  pairs.change(`10.0.0.1/32,${one}`, true);
  pairs.change(`10.0.0.2/32,${two}`, true);
  assert.deepEqual([...there], []);
  pairs.change(`10.0.0.1/32,${one}`, false);
  assert.deepEqual([...there], [`10.0.0.2,${hostInterfaceIndex(two)}`]);
});
