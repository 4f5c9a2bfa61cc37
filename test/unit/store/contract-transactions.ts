/**
 * The contract of the store, part two: transactions, decided one by one and all or nothing.
 *
 * In: a factory of empty stores. Out: tests, registered where it is called. Never: anything that only one adapter has.
 */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import fc from 'fast-check';
import { compareKeys } from '../../../src/store/key-order.ts';
import type { ChangeSet, Compare, Entry, Store, Write } from '../../../src/store/store.ts';
import {
  absent,
  commit,
  hasCode,
  modified,
  present,
  put,
  Recorder,
  remove,
  type Subject,
  until,
} from './support.ts';

export function describeTransactions(open: () => Promise<Subject>): void {
  let subject: Subject;
  let store: Store;
  beforeEach(async () => {
    subject = await open();
    store = subject.store;
  });
  afterEach(() => subject.dispose());

  describe('transactions', () => {
    test('compares: absent, present, modified', async () => {
      const revision = await commit(store, put('a'));
      const held: Compare[][] = [
        [absent('b')],
        [present('a')],
        [modified('a', revision)],
        [absent('b'), present('a')],
      ];
      for (const compares of held) assert.ok((await store.transact(compares, [])).committed);
      const failing: [Compare[], string, string[]?][] = [
        [[absent('a')], 'a'],
        [[present('b')], 'b'],
        [[modified('a', revision + 1)], 'a'],
        [[modified('b', revision)], 'b'],
        [[modified('b', 0)], 'b'],
        [[present('a'), absent('b'), present('c'), absent('a')], 'c', ['a']],
      ];
      for (const [compares, failed, others] of failing) {
        const refusal = { committed: false, failed, ...(others === undefined ? {} : { others }) };
        assert.deepEqual(await store.transact(compares, [put('z')]), refusal);
      }
      assert.equal(await store.get('z'), null);
      assert.equal((await store.list('')).revision, revision);
    });

    test('compares: unwritten, of all keys that begin with a prefix', async () => {
      const unwritten = (key: string, revision: number): Compare => ({ kind: 'unwritten', key, revision });
      const nothing = await commit(store, put('k'));
      const first = await commit(store, put('k/a'));
      const second = await commit(store, put('k/b'), put('k0'));
      const last = await commit(store, put('other'), remove('k0'));
      for (const held of [
        unwritten('k/', second),
        unwritten('k/b', second),
        unwritten('k/', last + 1000),
        unwritten('none/', 0),
        unwritten('k0', nothing),
      ])
        assert.ok((await store.transact([held], [])).committed, JSON.stringify(held));
      for (const [compare, failed] of [
        [unwritten('k/', first), 'k/b'],
        [unwritten('k/a', nothing), 'k/a'],
        [unwritten('o', 0), 'other'],
      ] as const)
        assert.deepEqual(await store.transact([compare], [put('z')]), { committed: false, failed });
      const written = await commit(store, put('k/a'));
      const both = [absent('none'), unwritten('k/', second), present('none')];
      const refusal = { committed: false, failed: 'k/a', others: ['none'] };
      assert.deepEqual(await store.transact(both, [put('z')]), refusal);
      assert.ok((await store.transact([unwritten('k/', written)], [put('k/c')])).committed);
      await commit(store, remove('k/c'));
      assert.ok((await store.transact([unwritten('k/', written)], [])).committed, 'deletions are not seen');
      assert.equal(await store.get('z'), null);
    });

    test('of two that both make the first key under a prefix one is refused', async () => {
      const results = await Promise.all(
        ['k/a', 'k/b', 'k/c'].map((key) =>
          store.transact([{ kind: 'unwritten', key: 'k/', revision: 0 }], [put(key)]),
        ),
      );
      assert.equal(results.filter(({ committed }) => committed).length, 1);
      assert.equal((await store.list('k/')).entries.length, 1);
    });

    test('a key written twice is refused, and nothing is written', async () => {
      await assert.rejects(store.transact([], [put('b'), put('a'), remove('a')]), hasCode('BUG'));
      assert.deepEqual(await store.list(''), { revision: 0, entries: [] });
    });

    for (const key of ['', 'a\0b', '\ud800']) {
      test(`the key ${JSON.stringify(key)} is refused`, async () => {
        await assert.rejects(store.transact([], [put(key)]), hasCode('BUG'));
        await assert.rejects(store.transact([absent(key)], []), hasCode('BUG'));
        await assert.rejects(store.get(key), hasCode('BUG'));
      });
    }

    test('deleting an absent key changes nothing and takes no revision', async () => {
      await commit(store, put('a'));
      assert.equal(await commit(store, remove('b')), 1);
      assert.equal(await commit(store), 1);
      assert.equal(await commit(store, remove('b'), put('c')), 2);
      assert.equal((await store.list('')).revision, 2);
    });

    test('transactions handed in together are decided in order', async (t) => {
      if (subject.inOrder === false) {
        t.skip('this store decides them in any order');
        return;
      }
      const results = await Promise.all([
        store.transact([absent('a')], [put('a', 1)]),
        store.transact([absent('a')], [put('a', 2), put('b')]),
        store.transact([present('a')], [remove('a')]),
        store.transact([absent('a')], [put('a', 3)]),
      ]);
      assert.deepEqual(results, [
        { committed: true, revision: 1 },
        { committed: false, failed: 'a' },
        { committed: true, revision: 2 },
        { committed: true, revision: 3 },
      ]);
      assert.deepEqual((await store.list('')).entries, [{ key: 'a', value: 3, created: 3, modified: 3 }]);
    });

    test('of many that compare one revision of a key, exactly one wins', async () => {
      await commit(store, put('counter', 0));
      const wins: number[] = [];
      const increment = async () => {
        for (let done = false; !done; ) {
          const entry = (await store.get('counter'))!;
          const next = (entry.value as number) + 1;
          const result = await store.transact([modified('counter', entry.modified)], [put('counter', next)]);
          done = result.committed;
          if (done) wins.push(next);
        }
      };
      await Promise.all(Array.from({ length: 25 }, increment));
      assert.deepEqual(
        wins.sort((a, b) => a - b),
        Array.from({ length: 25 }, (_, index) => index + 1),
      );
      assert.equal((await store.get('counter'))?.value, 25);
    });

    test('any sequence agrees with a plain map', async () => {
      const key = fc.constantFrom('a', 'b', 'b/c', '\u{1f600}');
      const compare = fc.oneof(
        key.map(absent),
        key.map(present),
        fc.tuple(key, fc.nat(12)).map(([name, revision]) => modified(name, revision)),
      );
      const write = fc.oneof(
        fc.tuple(key, fc.nat(9)).map(([name, value]) => put(name, value)),
        key.map(remove),
      );
      const transaction = fc.record({
        compares: fc.array(compare, { maxLength: 2 }),
        writes: fc.uniqueArray(write, { maxLength: 3, selector: (one) => one.key }),
      });
      await fc.assert(
        fc.asyncProperty(fc.array(transaction, { maxLength: 15 }), async (transactions) => {
          const fresh = await open();
          try {
            await agrees(fresh.store, transactions);
          } finally {
            await fresh.dispose();
          }
        }),
        { numRuns: 40 },
      );
    });
  });
}

/** Runs the transactions on the store and on a map, and compares answers, contents and the watch. */
async function agrees(store: Store, transactions: { compares: Compare[]; writes: Write[] }[]): Promise<void> {
  const model = new Map<string, Entry>();
  const expected: ChangeSet[] = [];
  let revision = 0;
  const recorder = new Recorder();
  store.watch('', 0, recorder);
  for (const { compares, writes } of transactions) {
    const [failed, ...others] = compares.filter(({ key, ...compare }) => {
      const entry = model.get(key);
      if (compare.kind === 'modified') return entry?.modified !== compare.revision;
      return (compare.kind === 'present') !== (entry !== undefined);
    });
    const result = await store.transact(compares, writes);
    if (failed) {
      const more = others.length === 0 ? {} : { others: others.map(({ key }) => key) };
      assert.deepEqual(result, { committed: false, failed: failed.key, ...more });
      continue;
    }
    const effective = writes.filter((write) => write.kind === 'put' || model.has(write.key));
    if (effective.length > 0) revision += 1;
    assert.deepEqual(result, { committed: true, revision });
    const changes = effective.map((write) => {
      if (write.kind === 'delete') return { key: write.key, entry: null };
      const created = model.get(write.key)?.created ?? revision;
      return { key: write.key, entry: { key: write.key, value: write.value, created, modified: revision } };
    });
    for (const { key, entry } of changes) {
      if (entry) model.set(key, entry);
      else model.delete(key);
    }
    if (changes.length > 0) {
      expected.push({ revision, changes: changes.sort((a, b) => compareKeys(a.key, b.key)) });
    }
  }
  const entries = [...model.values()].sort((a, b) => compareKeys(a.key, b.key));
  assert.deepEqual(await store.list(''), { revision, entries });
  await until(() => recorder.changeSets.length >= expected.length, 'the watch');
  assert.deepEqual(recorder.changeSets, expected);
}
