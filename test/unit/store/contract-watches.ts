/**
 * The contract of the store, part three: watches, and closing.
 *
 * In: a factory of empty stores. Out: tests, registered where it is called. Never: anything that only one adapter has.
 */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import type { Entry, Json, Revision, Store, Watch } from '../../../src/store/store.ts';
import { aWhile, commit, hasCode, present, put, Recorder, remove, type Subject, until } from './support.ts';

export function describeWatches(open: () => Promise<Subject>): void {
  let subject: Subject;
  let store: Store;
  beforeEach(async () => {
    subject = await open();
    store = subject.store;
  });
  afterEach(() => subject.dispose());

  describe('watches', () => {
    let watches: Watch[] = [];
    const watch = (prefix: string, after: Revision, recorder = new Recorder()): Recorder => {
      watches.push(store.watch(prefix, after, recorder));
      return recorder;
    };
    afterEach(() => {
      for (const one of watches) one.close();
      watches = [];
    });

    test('from 0: every change set, as one, in the order of keys', async () => {
      await commit(store, put('b', 1), put('a', 2));
      const recorder = watch('', 0);
      await commit(store, remove('a'));
      await commit(store, put('b', 3));
      await until(() => recorder.changeSets.length === 3, 'three change sets');
      const entry = (key: string, value: Json, created: Revision, at: Revision): Entry => ({
        key,
        value,
        created,
        modified: at,
      });
      assert.deepEqual(recorder.changeSets, [
        {
          revision: 1,
          changes: [
            { key: 'a', entry: entry('a', 2, 1, 1) },
            { key: 'b', entry: entry('b', 1, 1, 1) },
          ],
        },
        { revision: 2, changes: [{ key: 'a', entry: null }] },
        { revision: 3, changes: [{ key: 'b', entry: entry('b', 3, 1, 3) }] },
      ]);
    });

    test('after a revision: from the next one on', async () => {
      for (const key of ['a', 'b', 'c']) await commit(store, put(key));
      const [two, three] = [watch('', 2), watch('', 3)];
      await until(() => two.changeSets.length === 1, 'revision 3');
      await commit(store, put('d'));
      await until(() => two.changeSets.length === 2 && three.changeSets.length === 1, 'revision 4');
      assert.deepEqual([two.revisions(), three.revisions()], [[3, 4], [4]]);
    });

    test('of a prefix: only its keys, and change sets without any are left out', async () => {
      const recorder = watch('a/', 0);
      await commit(store, put('a'), put('a0'));
      await commit(store, put('a/1'), put('b'));
      await commit(store, put('b'));
      await commit(store, put('a/\u{10ffff}'));
      await until(() => recorder.changeSets.length === 2, 'two change sets');
      await aWhile();
      assert.deepEqual(recorder.revisions(), [2, 4]);
      assert.deepEqual(recorder.keys(), ['a/1', 'a/\u{10ffff}']);
    });

    test('each change once and in order while many write', async () => {
      const recorders = [watch('', 0)];
      const write = async (name: string) => {
        for (let count = 0; count < 40; count++) {
          await commit(store, put(`${name}/${count}`));
          if (count % 10 === 0) recorders.push(watch('', 0));
        }
      };
      await Promise.all(['a', 'b', 'c', 'd', 'e'].map(write));
      const all = Array.from({ length: 200 }, (_, index) => index + 1);
      for (const recorder of recorders) {
        await until(() => recorder.changeSets.length >= 200, '200 change sets');
        assert.deepEqual(recorder.revisions(), all);
      }
    });

    test('a long way behind: nothing is skipped', async () => {
      await Promise.all(Array.from({ length: 1000 }, (_, index) => commit(store, put(`k${index}`))));
      const recorder = watch('', 0);
      await until(() => recorder.changeSets.length === 1000, '1000 change sets');
      assert.deepEqual(
        recorder.revisions(),
        Array.from({ length: 1000 }, (_, index) => index + 1),
      );
    });

    test('failed transactions and empty ones are not seen', async () => {
      const recorder = watch('', 0);
      await store.transact([present('x')], [put('a')]);
      await commit(store, remove('x'));
      await commit(store, put('b'));
      await until(() => recorder.changeSets.length === 1, 'one change set');
      assert.deepEqual(recorder.keys(), ['b']);
    });

    test('no callback within the call to watch, and none after close', async () => {
      await commit(store, put('a'));
      const recorder = new Recorder();
      const one = store.watch('', 0, recorder);
      assert.equal(recorder.changeSets.length, 0);
      one.close();
      one.close();
      await commit(store, put('b'));
      await aWhile();
      assert.deepEqual([recorder.changeSets, recorder.ends], [[], []]);
    });

    test('closed inside a callback: that was the last, other watches go on', async () => {
      const seen: Revision[] = [];
      for (const key of ['a', 'b', 'c']) await commit(store, put(key));
      const closing: Watch = store.watch('', 0, {
        onChanges: ({ revision }) => {
          seen.push(revision);
          closing.close();
        },
        onEnd: (error) => assert.fail(error),
      });
      const other = watch('', 0);
      await until(() => seen.length > 0 && other.changeSets.length === 3, 'both watches');
      await aWhile();
      assert.deepEqual(seen, [1]);
    });

    test('a callback may write and watch', async () => {
      const inner = new Recorder();
      const outer = store.watch('a', 0, {
        onChanges: () => {
          watch('b', 0, inner);
          void commit(store, put('b'));
        },
        onEnd: (error) => assert.fail(error),
      });
      watches.push(outer);
      await commit(store, put('a'));
      await until(() => inner.changeSets.length === 1, 'the inner watch');
    });

    test('a watcher that throws has lost a change: its watch ends, others go on', async () => {
      const ends: Error[] = [];
      let calls = 0;
      store.watch('', 0, {
        onChanges: () => {
          calls += 1;
          throw new Error('no');
        },
        onEnd: (error) => ends.push(error),
      });
      const other = watch('', 0);
      await commit(store, put('a'));
      await commit(store, put('b'));
      await until(() => ends.length > 0 && other.changeSets.length === 2, 'both watches');
      assert.equal(calls, 1);
      assert.deepEqual(
        ends.map((error) => error.message),
        ['unexpected error: no'],
      );
    });

    test('from before a compaction: ends with STORE_COMPACTED; reads and later watches are as before', async () => {
      for (const key of ['a', 'b', 'c', 'd']) await commit(store, put(key));
      await subject.compact();
      const early = watch('', 1);
      await until(() => early.ends.length === 1, 'its end');
      assert.ok(hasCode('STORE_COMPACTED')(early.ends[0]));
      assert.deepEqual(early.changeSets, []);
      const { revision, entries } = await store.list('');
      for (const key of ['a', 'b', 'c', 'd'])
        assert.ok(
          entries.some((entry) => entry.key === key),
          key,
        );
      const late = watch('', revision);
      await commit(store, put('e'));
      await until(() => late.changeSets.length === 1, 'the new change');
      assert.deepEqual(late.revisions(), [revision + 1]);
    });

    test('an `after` that is no revision is refused', () => {
      for (const after of [-1, 0.5, Number.NaN]) assert.throws(() => watch('', after), hasCode('BUG'));
    });
  });

  test('a closed store refuses, ends its watches, and has committed what was handed in', async () => {
    const recorder = new Recorder();
    store.watch('', 0, recorder);
    const last = store.transact([], [put('a')]);
    await store.close();
    await store.close();
    assert.deepEqual(await last, { committed: true, revision: 1 });
    assert.ok(hasCode('STORE_UNAVAILABLE')(recorder.ends[0]));
    await assert.rejects(store.get('a'), hasCode('STORE_UNAVAILABLE'));
    await assert.rejects(store.list(''), hasCode('STORE_UNAVAILABLE'));
    await assert.rejects(store.transact([], [put('a')]), hasCode('STORE_UNAVAILABLE'));
  });
}
