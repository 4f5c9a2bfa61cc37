/** The syncer on the in-memory store: what it says is always the store's state, whatever fails on the way. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { NetctlError } from '../../../src/lib/errors.ts';
import { MemoryStore } from '../../../src/store/memory.ts';
import type { Change, Entry } from '../../../src/store/store.ts';
import { Syncer, type SyncListener, type SyncStatus } from '../../../src/store/syncer.ts';
import { ManualClock } from './manual-clock.ts';
import { aWhile, commit, put, remove, until } from './support.ts';

/** Keeps what a syncer says, as one log and as the picture that it makes. */
class Listener implements SyncListener {
  readonly log: string[] = [];
  readonly picture = new Map<string, Entry>();
  readonly statuses: SyncStatus[] = [];
  throwNext = false;

  onUpdates(updates: readonly Change[]): void {
    if (this.throwNext) {
      this.throwNext = false;
      throw new Error('the listener failed');
    }
    this.log.push(
      updates.map(({ key, entry }) => `${key}=${entry ? JSON.stringify(entry.value) : 'gone'}`).join(' '),
    );
    for (const { key, entry } of updates) {
      if (entry) this.picture.set(key, entry);
      else this.picture.delete(key);
    }
  }
  onInSync(): void {
    this.log.push('in sync');
  }
  onStatus(status: SyncStatus): void {
    this.statuses.push(status);
  }
  isInSync(): boolean {
    return this.statuses.at(-1)!.inSync;
  }
}

function start(store: MemoryStore, prefix = '') {
  const clock = new ManualClock();
  const listener = new Listener();
  const syncer = new Syncer({ store, prefix, clock, listener, random: () => 1 });
  return { clock, listener, syncer };
}

const inSync = (listener: Listener) => until(() => listener.isInSync(), 'in sync');
const outOfSync = (listener: Listener) => until(() => !listener.isInSync(), 'out of sync');

describe('syncer', () => {
  test('snapshot, in-sync once, then changes, of its prefix', async () => {
    const store = new MemoryStore();
    await commit(store, put('p/b', 1), put('p/a', 2), put('q', 3));
    const { listener, syncer } = start(store, 'p/');
    await inSync(listener);
    assert.deepEqual(listener.log, ['p/a=2 p/b=1', 'in sync']);
    await commit(store, remove('p/a'), put('p/c', 4), put('q', 5));
    await until(() => listener.log.length === 3, 'the change');
    assert.equal(listener.log[2], 'p/a=gone p/c=4');
    syncer.stop();
  });

  test('an empty store is in sync without updates', async () => {
    const { listener, syncer } = start(new MemoryStore());
    await inSync(listener);
    assert.deepEqual(listener.log, ['in sync']);
    syncer.stop();
  });

  test('after a watch that ended by compaction it says the differences only', async () => {
    const store = new MemoryStore();
    await commit(store, put('same', 1), put('changed', 1), put('vanished', 1), put('remade', 1));
    const { listener, clock, syncer } = start(store);
    await inSync(listener);
    store.endWatches(new NetctlError('STORE_COMPACTED', 'compacted'));
    await commit(store, put('changed', 2), remove('vanished'), remove('remade'), put('new', 1));
    await commit(store, put('remade', 1));
    store.compact();
    await aWhile();
    assert.equal(listener.log.length, 2, 'nothing is said before the new snapshot');
    assert.equal(listener.picture.size, 4, 'nothing is gone because the store could not be watched');
    clock.advance(100);
    await inSync(listener);
    assert.deepEqual(listener.log.slice(2), ['vanished=gone changed=2 new=1 remade=1']);
    await commit(store, put('new', 2));
    await until(() => listener.log.length === 4, 'the next change');
    syncer.stop();
  });

  test('a snapshot without differences is silent, and in-sync is signalled once', async () => {
    const store = new MemoryStore();
    await commit(store, put('a'));
    const { listener, clock, syncer } = start(store);
    await inSync(listener);
    store.endWatches();
    clock.advance(100);
    await inSync(listener);
    assert.deepEqual(listener.log, ['a="a"', 'in sync']);
    syncer.stop();
  });

  test('failures back off up to 10 s, and the status says since when and why', async () => {
    const store = new MemoryStore();
    for (let count = 0; count < 9; count++) store.failNext('list');
    const { listener, clock, syncer } = start(store);
    const began = clock.now();
    const delays: number[] = [];
    for (let count = 0; count < 9; count++) {
      await until(() => clock.waiting().length === 1, 'the timer');
      const delay = clock.waiting()[0]!;
      delays.push(delay);
      clock.advance(delay);
    }
    assert.deepEqual(delays, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    assert.deepEqual(syncer.status(), { inSync: false, since: began, reason: 'list failed on request' });
    await inSync(listener);
    assert.deepEqual(syncer.status(), { inSync: true });
    assert.equal(store.failuresLeft(), 0);
    syncer.stop();
  });

  test('watches that end at once back off as well; one that held for 10 s starts anew', async () => {
    const store = new MemoryStore();
    for (let count = 0; count < 3; count++) store.failNext('watch');
    const { listener, clock, syncer } = start(store);
    for (const delay of [100, 200, 400]) {
      await until(() => clock.waiting().length === 1, 'the timer');
      assert.deepEqual(clock.waiting(), [delay]);
      clock.advance(delay);
    }
    await inSync(listener);
    clock.advance(10_000);
    store.endWatches();
    await outOfSync(listener);
    assert.deepEqual(clock.waiting(), [100]);
    const status = listener.statuses.at(-1)!;
    assert.ok(!status.inSync);
    assert.deepEqual([status.since, status.reason], [clock.now(), 'the connection to the store was lost']);
    syncer.stop();
  });

  test('a listener that throws is told the same again', async () => {
    const store = new MemoryStore();
    const { listener, clock, syncer } = start(store);
    await inSync(listener);
    listener.throwNext = true;
    await commit(store, put('a', 1));
    await outOfSync(listener);
    clock.advance(100);
    await inSync(listener);
    assert.deepEqual(listener.log, ['in sync', 'a=1']);
    syncer.stop();
  });

  test('a listener that throws at the in-sync signal gets it again, and changes once', async () => {
    const store = new MemoryStore();
    const listener = new Listener();
    const clock = new ManualClock();
    const signal = listener.onInSync.bind(listener);
    listener.onInSync = () => {
      listener.onInSync = signal;
      throw new Error('the listener failed');
    };
    const syncer = new Syncer({ store, prefix: '', clock, listener, random: () => 1 });
    await until(() => clock.waiting().length === 1, 'the timer');
    clock.advance(100);
    await inSync(listener);
    await commit(store, put('a', 1));
    await aWhile();
    assert.deepEqual(listener.log, ['in sync', 'a=1']);
    syncer.stop();
  });

  test('after stop nothing is said, whether it was reading, following or waiting', async () => {
    const store = new MemoryStore();
    await commit(store, put('a'));
    const reading = start(store);
    reading.syncer.stop();
    const following = start(store);
    await inSync(following.listener);
    following.syncer.stop();
    store.failNext('list');
    const waiting = start(store);
    await until(() => waiting.clock.waiting().length === 1, 'the timer');
    waiting.syncer.stop();
    waiting.syncer.stop();
    const before = [reading, following, waiting].map(
      ({ listener }) => listener.log.length + listener.statuses.length,
    );
    await commit(store, put('b'));
    store.endWatches();
    for (const { clock } of [reading, following, waiting]) clock.advance(100_000);
    await aWhile();
    const afterwards = [reading, following, waiting].map(
      ({ listener }) => listener.log.length + listener.statuses.length,
    );
    assert.deepEqual(afterwards, before);
    assert.deepEqual(waiting.clock.waiting(), []);
  });

  test('a store put back from an older copy is told whole', async () => {
    const store = new MemoryStore();
    for (const key of ['a', 'b']) await commit(store, put(key, 1));
    let current = store;
    const behindOneName = new Proxy(store, {
      get: (_, name) => {
        const member = Reflect.get(current, name);
        return typeof member === 'function' ? member.bind(current) : member;
      },
    });
    const { listener, clock, syncer } = start(behindOneName);
    await inSync(listener);
    current = new MemoryStore();
    await commit(current, put('a', 2));
    store.endWatches();
    clock.advance(100);
    await inSync(listener);
    assert.deepEqual(listener.log.slice(2), ['b=gone a=2']);
    syncer.stop();
  });

  test('whatever is written and whatever fails: the picture ends as the store, and no update is idle', async () => {
    const key = fc.constantFrom('a', 'b', 'c');
    const step = fc.oneof(
      { weight: 4, arbitrary: fc.tuple(fc.constant('put' as const), key) },
      { weight: 2, arbitrary: fc.tuple(fc.constant('delete' as const), key) },
      fc.constantFrom(
        ['compact'] as const,
        ['end'] as const,
        ['fail list'] as const,
        ['fail watch'] as const,
        ['wait'] as const,
      ),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        const store = new MemoryStore();
        const { listener, clock, syncer } = start(store);
        for (const [index, [kind, name]] of steps.entries()) {
          if (kind === 'put') await commit(store, put(name, index));
          else if (kind === 'delete') await commit(store, remove(name));
          else if (kind === 'compact') store.compact();
          else if (kind === 'end') store.endWatches();
          else if (kind === 'fail list') store.failNext('list');
          else if (kind === 'fail watch') store.failNext('watch');
          else clock.advance(150);
        }
        const { entries } = await settledList(store, clock);
        await until(
          () => {
            clock.advance(10_000);
            return isEqual([...listener.picture.values()], entries);
          },
          `the picture ${JSON.stringify(entries)}, not ${JSON.stringify([...listener.picture.values()])}`,
        );
        assert.equal(listener.log.filter((line) => line === 'in sync').length, 1);
        syncer.stop();
      }),
      { numRuns: 60 },
    );
  });
});

/** The store's state, when the failures that were asked for are used up. */
async function settledList(store: MemoryStore, clock: ManualClock) {
  for (;;) {
    store.endWatches();
    clock.advance(10_000);
    await aWhile();
    if (store.failuresLeft() === 0) return store.list('');
  }
}

function isEqual(picture: Entry[], entries: readonly Entry[]): boolean {
  return JSON.stringify(picture.sort((a, b) => (a.key < b.key ? -1 : 1))) === JSON.stringify(entries);
}
