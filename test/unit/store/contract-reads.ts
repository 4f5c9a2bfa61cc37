/**
 * The contract of the store, part one: get, list and values.
 *
 * In: a factory of empty stores. Out: tests, registered where it is called. Never: anything that only one adapter has.
 */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { compareKeys } from '../../../src/store/key-order.ts';
import type { Json, Store } from '../../../src/store/store.ts';
import { commit, hasCode, put, Recorder, remove, type Subject, until } from './support.ts';

export function describeReads(open: () => Promise<Subject>): void {
  let subject: Subject;
  let store: Store;
  beforeEach(async () => {
    subject = await open();
    store = subject.store;
  });
  afterEach(() => subject.dispose());

  describe('get and list', () => {
    test('an empty store is at revision 0', async () => {
      assert.equal(await store.get('a'), null);
      assert.deepEqual(await store.list(''), { revision: 0, entries: [] });
    });

    test('a put is read back with its revisions', async () => {
      const first = await commit(store, put('a', 1));
      const second = await commit(store, put('a', 2), put('b', 3));
      assert.deepEqual([first, second], [1, 2]);
      assert.deepEqual(await store.get('a'), { key: 'a', value: 2, created: 1, modified: 2 });
      assert.deepEqual(await store.list(''), {
        revision: 2,
        entries: [
          { key: 'a', value: 2, created: 1, modified: 2 },
          { key: 'b', value: 3, created: 2, modified: 2 },
        ],
      });
    });

    test('a key that was deleted and made again has a new created revision', async () => {
      await commit(store, put('a'));
      await commit(store, remove('a'));
      assert.equal(await store.get('a'), null);
      const revision = await commit(store, put('a'));
      const entry = await store.get('a');
      assert.deepEqual([entry?.created, entry?.modified], [revision, revision]);
    });

    test('lists are in the order of bytes, not of UTF-16', async () => {
      const keys = ['a', 'a/', 'a/b', 'a0', 'b', 'é', '\ud7ff', '\uffff', '\u{1f600}', 'a\u{10ffff}', 'A'];
      await commit(store, ...keys.map((key) => put(key)));
      const listed = (await store.list('')).entries.map((entry) => entry.key);
      assert.deepEqual(listed, [
        'A',
        'a',
        'a/',
        'a/b',
        'a0',
        'a\u{10ffff}',
        'b',
        'é',
        '\ud7ff',
        '\uffff',
        '\u{1f600}',
      ]);
    });

    const keys = [
      'a',
      'a/',
      'a/b',
      'a/b/c',
      'a0',
      'ab',
      'a\u{10ffff}',
      'a\u{10ffff}z',
      'b',
      '\ud7ff!',
      '\ue000',
      '%',
      'a%',
      'a_',
    ];
    for (const prefix of [...keys, '', 'a/b/', 'A', 'zz', '\u{10ffff}', '\ud7ff']) {
      test(`prefix ${JSON.stringify(prefix)} finds the keys that begin with it`, async () => {
        await commit(store, ...keys.map((key) => put(key)));
        const listed = (await store.list(prefix)).entries.map((entry) => entry.key);
        assert.deepEqual(listed, keys.filter((key) => key.startsWith(prefix)).sort(compareKeys));
      });
    }

    test('a long list is of one revision, whatever is written meanwhile', async () => {
      const names = Array.from({ length: 2500 }, (_, index) => `k/${String(index).padStart(5, '0')}`);
      await commit(store, ...names.map((key) => put(key, 0)));
      let writing = true;
      const writer = (async () => {
        for (let count = 1; writing; count++) {
          await commit(
            store,
            put('k/00000', count),
            put('k/02499', count),
            count % 2 ? put('k/x') : remove('k/x'),
          );
        }
      })();
      for (let round = 0; round < 20; round++) {
        const { revision, entries } = await store.list('k/');
        const count = entries.find((entry) => entry.key === 'k/00000')!.value as number;
        assert.equal(entries.find((entry) => entry.key === 'k/02499')!.value, count);
        assert.equal(revision, count + 1);
        assert.equal(entries.length, 2500 + (count % 2));
        assert.deepEqual(
          entries.map((entry) => entry.key).sort(compareKeys),
          entries.map((entry) => entry.key),
        );
      }
      writing = false;
      await writer;
    });
  });

  describe('values', () => {
    const deep = (depth: number): Json => (depth === 0 ? 'floor' : { in: [deep(depth - 1)] });
    const values: Record<string, Json> = {
      null: null,
      'empty text': '',
      unicode: { 'ключ \u{1f600}': 'é\u0000\u2028\ud800' },
      numbers: [0, -1, 1.5, Number.MAX_SAFE_INTEGER, 1e300, 5e-324],
      nesting: deep(100),
      'names that JavaScript treats apart': JSON.parse('{"__proto__": 1, "constructor": 2, "1": 3}'),
      'long text': 'x'.repeat(100_000),
    };
    for (const [name, value] of Object.entries(values)) {
      test(`${name}: read as written`, async () => {
        await commit(store, put('a', value));
        assert.deepEqual((await store.get('a'))?.value, value);
      });
    }

    for (const [name, value] of Object.entries<unknown>({
      undefined: undefined,
      'undefined inside': { a: undefined },
      'not a number': [Number.NaN],
      infinity: Number.POSITIVE_INFINITY,
      date: new Date(0),
      bigint: 1n,
      function: () => 1,
      hole: new Array(1),
    })) {
      test(`${name}: refused, nothing is written`, async () => {
        await assert.rejects(
          store.transact([], [put('b'), { kind: 'put', key: 'a', value: value as Json }]),
          hasCode('BUG'),
        );
        assert.deepEqual(await store.list(''), { revision: 0, entries: [] });
      });
    }

    test('no value is shared: neither with the writer, nor between readers, nor between watchers', async () => {
      const [one, two] = [new Recorder(), new Recorder()];
      const value = { list: [1] };
      store.watch('', 0, one);
      store.watch('', 0, two);
      const written = commit(store, put('a', value));
      value.list.push(2);
      await written;
      await until(() => one.changeSets.length + two.changeSets.length === 2, 'both watchers');
      const reads = [
        (await store.get('a'))!,
        (await store.list('')).entries[0]!,
        one.changeSets[0]!.changes[0]!.entry!,
        two.changeSets[0]!.changes[0]!.entry!,
      ];
      for (const read of reads) {
        assert.deepEqual(read.value, { list: [1] });
        (read.value as { list: number[] }).list.push(3);
      }
      assert.deepEqual((await store.get('a'))?.value, { list: [1] });
    });
  });
}
