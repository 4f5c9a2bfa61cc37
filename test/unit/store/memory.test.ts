/** The in-memory store: the contract, and its failures on request. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { MemoryStore } from '../../../src/store/memory.ts';
import { describeStore } from './store-contract.ts';
import { commit, hasCode, put, Recorder, until } from './support.ts';

describeStore('memory store', async () => {
  const store = new MemoryStore();
  return { store, compact: async () => store.compact(), dispose: () => store.close() };
});

describe('memory store, failing on request', () => {
  test('each operation fails once, having done nothing', async () => {
    const store = new MemoryStore();
    for (const operation of ['get', 'list', 'transact', 'watch'] as const) store.failNext(operation);
    assert.equal(store.failuresLeft(), 4);
    await assert.rejects(store.get('a'), hasCode('STORE_UNAVAILABLE'));
    await assert.rejects(store.list(''), hasCode('STORE_UNAVAILABLE'));
    await assert.rejects(store.transact([], [put('a')]), hasCode('STORE_UNAVAILABLE'));
    const recorder = new Recorder();
    store.watch('', 0, recorder);
    await until(() => recorder.ends.length === 1, 'the end of the watch');
    assert.ok(hasCode('STORE_UNAVAILABLE')(recorder.ends[0]));
    assert.equal(store.failuresLeft(), 0);
    assert.equal(await store.get('a'), null);
    assert.equal(await commit(store, put('a')), 1);
  });

  test('ambiguous: the answer is lost, the transaction and its event are not', async () => {
    const store = new MemoryStore();
    const recorder = new Recorder();
    store.watch('', 0, recorder);
    store.failNext('transact', 'ambiguous');
    await assert.rejects(
      store.transact([{ kind: 'absent', key: 'a' }], [put('a', 1)]),
      hasCode('STORE_UNAVAILABLE'),
    );
    assert.deepEqual(await store.get('a'), { key: 'a', value: 1, created: 1, modified: 1 });
    await until(() => recorder.changeSets.length === 1, 'the event');
  });

  test('only a transaction can be ambiguous', () => {
    assert.throws(() => new MemoryStore().failNext('get', 'ambiguous'), hasCode('BUG'));
  });

  test('watches end when told to, and can be opened again where they stood', async () => {
    const store = new MemoryStore();
    const [first, second] = [new Recorder(), new Recorder()];
    store.watch('', 0, first);
    await commit(store, put('a'));
    await until(() => first.changeSets.length === 1, 'the first change');
    store.endWatches();
    assert.equal(first.ends.length, 1);
    await commit(store, put('b'));
    store.watch('', first.changeSets[0]!.revision, second);
    await until(() => second.changeSets.length === 1, 'the second change');
    assert.deepEqual([first.keys(), second.keys()], [['a'], ['b']]);
  });
});
