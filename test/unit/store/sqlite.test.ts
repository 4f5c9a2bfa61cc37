/** The SQLite store: the contract, and what only a file has: reopening, locks, modes, damage, compaction. */
import assert from 'node:assert/strict';
import {
  chmodSync,
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, describe, test } from 'node:test';
import { SqliteStore } from '../../../src/store/sqlite.ts';
import { type LogFlush, WalFlush } from '../../../src/store/wal-flush.ts';
import { describeStore } from './store-contract.ts';
import { aWhile, commit, hasCode, put, Recorder, remove, until } from './support.ts';

const directory = mkdtempSync(join(tmpdir(), 'netctl-store-'));
after(() => rmSync(directory, { recursive: true }));
let files = 0;
const freshPath = () => join(directory, `${files++}`, 'netctl.db');

const mode = (path: string) => (statSync(path).mode & 0o777).toString(8);
const unavailable = (pattern: RegExp) => (error: unknown) =>
  hasCode('STORE_UNAVAILABLE')(error) && pattern.test((error as Error).message);

describeStore('SQLite store', async () => {
  const store = new SqliteStore({ path: freshPath(), keepRevisions: 1500 });
  return {
    store,
    compact: async () => {
      await Promise.all(Array.from({ length: 2000 }, (_, count) => commit(store, put('filler', count))));
      await aWhile();
    },
    dispose: () => store.close(),
  };
});

/** A disk that takes its time, and may fail. */
class SlowDisk implements LogFlush {
  readonly #flushes: PromiseWithResolvers<void>[] = [];

  get isBusy(): boolean {
    return this.#flushes.length > 0;
  }

  flush(): Promise<void> {
    const flush = Promise.withResolvers<void>();
    this.#flushes.push(flush);
    return flush.promise;
  }

  end(error?: Error): void {
    const flush = this.#flushes.shift()!;
    if (error === undefined) flush.resolve();
    else flush.reject(error);
  }

  async close(): Promise<void> {}
}

describe('SQLite store, and the disk', () => {
  const manner = { flushed: 'soon' } as const;

  test('no answer and no watch before the disk has it; an early answer for who asks for one, but no watch', async () => {
    const wal = new SlowDisk();
    const store = new SqliteStore({ path: freshPath(), wal });
    const recorder = new Recorder();
    store.watch('', 0, recorder);
    let answered = false;
    const slow = commit(store, put('a', 1)).then(() => {
      answered = true;
    });
    await aWhile();
    assert.deepEqual([answered, recorder.changeSets.length], [false, 0]);
    const early = await store.transact([], [put('b', 2)], manner);
    assert.deepEqual(early, { committed: true, revision: 2 });
    // What another store has waits for no disk, but keeps its place.
    await store.transact([], [put('c', 3)], { flushed: false });
    let durable = false;
    const flushed = store.flush().then(() => {
      durable = true;
    });
    await aWhile();
    assert.deepEqual([answered, durable, recorder.changeSets.length], [false, false, 0]);
    wal.end();
    await slow;
    await until(() => recorder.changeSets.length === 1, 'the first change');
    await aWhile();
    assert.deepEqual([durable, recorder.changeSets.length], [false, 1]);
    wal.end();
    await flushed;
    await until(() => recorder.changeSets.length === 3, 'all changes');
    await store.close();
  });

  test('a list waits for the disk; a watch from a revision that waits is no revision from another world', async () => {
    const wal = new SlowDisk();
    const store = new SqliteStore({ path: freshPath(), wal });
    await store.transact([], [put('a', 1)], manner);
    const recorder = new Recorder();
    store.watch('', 1, recorder);
    let listed = false;
    const list = store.list('').then((snapshot) => {
      listed = true;
      return snapshot;
    });
    await aWhile();
    assert.deepEqual([recorder.ends, listed], [[], false]);
    wal.end();
    assert.equal((await list).revision, 1);
    await store.transact([], [put('b', 2)], manner);
    wal.end();
    await until(() => recorder.changeSets.length === 1, 'the change after the snapshot');
    await store.close();
  });

  test('a disk that fails ends the store: nobody knows what it has', async () => {
    const wal = new SlowDisk();
    const store = new SqliteStore({ path: freshPath(), wal });
    const recorder = new Recorder();
    store.watch('', 0, recorder);
    await store.transact([], [put('a', 1)], manner);
    const late = commit(store, put('b', 2));
    late.catch(() => undefined);
    await aWhile();
    wal.end(Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' }));
    wal.end();
    await assert.rejects(store.flush(), unavailable(/i\/o error/));
    await assert.rejects(late, unavailable(/i\/o error/));
    await assert.rejects(commit(store, put('c', 3)), unavailable(/i\/o error/));
    assert.equal(recorder.changeSets.length, 0);
    assert.equal(recorder.ends.length, 1);
    await store.close();
  });

  test('flushes that are asked for during one share the next', async () => {
    const path = join(directory, 'log');
    writeFileSync(path, 'x');
    const wal = new WalFlush(path);
    const first = wal.flush();
    assert.ok(wal.isBusy);
    assert.equal(wal.flush(), wal.flush());
    await first;
    assert.ok(wal.isBusy, 'what was asked for during it is not on the disk yet');
    await wal.flush();
    await wal.close();
    assert.equal(wal.isBusy, false);
    await assert.rejects(new WalFlush(join(directory, 'none')).flush(), { code: 'ENOENT' });
  });
});

describe('SQLite store, as a file', () => {
  test('what was committed is there after closing and opening, and a watch goes on where it stood', async () => {
    const path = freshPath();
    let store = new SqliteStore({ path });
    const recorder = new Recorder();
    store.watch('', 0, recorder);
    await commit(store, put('a', 1), put('b', 2));
    await until(() => recorder.changeSets.length === 1, 'the first change');
    await commit(store, remove('b'));
    await store.close();

    store = new SqliteStore({ path });
    assert.deepEqual(await store.list(''), {
      revision: 2,
      entries: [{ key: 'a', value: 1, created: 1, modified: 1 }],
    });
    const resumed = new Recorder();
    store.watch('', 1, resumed);
    assert.equal(await commit(store, put('c', 3)), 3);
    await until(() => resumed.changeSets.length === 2, 'the rest');
    assert.deepEqual(resumed.revisions(), [2, 3]);
    assert.deepEqual(resumed.keys(), ['b', 'c']);
    await store.close();
  });

  test('the revision goes on although everything was deleted', async () => {
    const path = freshPath();
    let store = new SqliteStore({ path });
    await commit(store, put('a'));
    await commit(store, remove('a'));
    await store.close();
    store = new SqliteStore({ path });
    assert.deepEqual(await store.list(''), { revision: 2, entries: [] });
    await store.close();
  });

  test('a watch from a revision that this file has not reached (put back from a copy) ends with STORE_COMPACTED', async () => {
    const store = new SqliteStore({ path: freshPath() });
    const recorder = new Recorder();
    store.watch('', 7, recorder);
    await until(() => recorder.ends.length === 1, 'its end');
    assert.ok(hasCode('STORE_COMPACTED')(recorder.ends[0]));
    await store.close();
  });

  test('compaction keeps at least the revisions asked for, and its bound lasts through a restart', async () => {
    const path = freshPath();
    let store = new SqliteStore({ path, keepRevisions: 100 });
    await Promise.all(Array.from({ length: 1000 }, (_, index) => commit(store, put(`k${index % 7}`, index))));
    await aWhile();
    const bounds = async () => {
      const oldest = async (after: number) => {
        const recorder = new Recorder();
        store.watch('', after, recorder);
        await until(() => recorder.ends.length + recorder.changeSets.length > 0, 'an answer');
        return recorder.ends.length === 0;
      };
      return [await oldest(700), await oldest(900)];
    };
    assert.deepEqual(await bounds(), [false, true]);
    await store.close();
    store = new SqliteStore({ path, keepRevisions: 100 });
    assert.deepEqual(await bounds(), [false, true]);
    assert.equal((await store.list('')).entries.length, 7);
    await store.close();
  });

  test('a long list that compaction overtakes is still of one revision', async () => {
    const store = new SqliteStore({ path: freshPath(), keepRevisions: 1 });
    await commit(
      store,
      ...Array.from({ length: 20_000 }, (_, index) => put(`k${String(index).padStart(5, '0')}`, 0)),
    );
    const listing = store.list('');
    await Promise.all(
      Array.from({ length: 600 }, (_, index) => commit(store, put(`k${String(index).padStart(5, '0')}`, 1))),
    );
    const during = await listing;
    const atRest = await store.list('');
    const expected = atRest.entries.map((entry) =>
      entry.modified <= during.revision ? entry : { ...entry, value: 0, modified: 1 },
    );
    assert.deepEqual(during.entries, expected);
    await store.close();
  });

  test('an error in the middle of a group undoes the group, and the store goes on', async () => {
    const path = freshPath();
    const store = await poisonedStore(path);
    const recorder = new Recorder();
    store.watch('', 0, recorder);
    await commit(store, put('before'));
    const group = ['a', 'poison', 'b'].map((key) =>
      assert.rejects(commit(store, put(key)), /poisoned on purpose/),
    );
    await Promise.all(group);
    assert.deepEqual(
      (await store.list('')).entries.map((entry) => entry.key),
      ['before'],
    );
    assert.equal(await commit(store, put('after')), 2);
    await until(() => recorder.changeSets.length === 2, 'both changes');
    assert.deepEqual(recorder.keys(), ['before', 'after']);
    await store.close();
    const reopened = new SqliteStore({ path });
    assert.equal((await reopened.list('')).revision, 2);
    await reopened.close();
  });

  test('what another store has is answered at once; a commit that fails is made up for, and no revision is given out twice', async () => {
    const path = freshPath();
    const store = await poisonedStore(path);
    const recorder = new Recorder();
    store.watch('', 0, recorder);
    const mirrored = { flushed: false } as const;
    assert.equal(await commit(store, put('own')), 1);
    const first = store.transact([{ kind: 'absent', key: 'first' }], [put('first', 1)], mirrored);
    const beaten = store.transact([{ kind: 'absent', key: 'first' }], [put('first', 2)], mirrored);
    const second = store.transact([], [put('second', 2)], mirrored);
    const failing = assert.rejects(commit(store, put('poison')), /poisoned on purpose/);
    const behind = store.transact([], [put('behind', 3)], mirrored);
    const lost = assert.rejects(behind, /poisoned on purpose/);
    assert.deepEqual(
      [await first, await beaten, await second],
      [
        { committed: true, revision: 2 },
        { committed: false, failed: 'first' },
        { committed: true, revision: 3 },
      ],
    );
    assert.equal((await store.get('first'))?.modified, 2);
    assert.deepEqual(recorder.keys(), []);
    await failing;
    await lost;
    assert.deepEqual([(await store.get('first'))?.value, (await store.get('second'))?.modified], [1, 3]);
    await until(() => recorder.changeSets.length === 3, 'what was made up for');
    assert.deepEqual(recorder.keys(), ['own', 'first', 'second']);
    await store.transact([], [put('third', 3)], mirrored);
    const again = assert.rejects(commit(store, put('poison')), /poisoned on purpose/);
    await again;
    assert.equal(await commit(store, remove('first')), 5);
    assert.equal((await store.list('')).revision, 5);
    await store.transact([], [put('last')], mirrored);
    await store.close();
    const reopened = new SqliteStore({ path });
    const { revision, entries } = await reopened.list('');
    assert.deepEqual(
      [revision, ...entries.map(({ key, modified }) => `${key} ${modified}`)],
      [6, 'last 6', 'own 1', 'second 3', 'third 4'],
    );
    await reopened.close();
  });

  test('the WAL is moved into the database between commits, so that it stays small', async () => {
    const path = freshPath();
    const store = new SqliteStore({ path });
    for (let count = 0; count < 60; count++) await commit(store, put('a', String(count).repeat(250_000)));
    await aWhile();
    assert.ok(
      statSync(`${path}-wal`).size < 24 * 1024 * 1024,
      `WAL of ${statSync(`${path}-wal`).size} bytes`,
    );
    assert.equal((await store.get('a'))?.value, '59'.repeat(250_000));
    await store.close();
  });

  test('a second opener is refused at once, and the first goes on', async () => {
    const path = freshPath();
    const store = new SqliteStore({ path });
    const refusal = unavailable(/netctl\.db cannot be opened: another process has it open/);
    assert.throws(() => new SqliteStore({ path }), refusal);
    await commit(store, put('a'));
    assert.throws(() => new SqliteStore({ path }), refusal);
    await commit(store, put('b'));
    await store.close();
    const next = new SqliteStore({ path });
    assert.equal((await next.list('')).entries.length, 2);
    await next.close();
  });

  test('directory and files are for the owner only, an existing file too', async () => {
    const path = freshPath();
    const store = new SqliteStore({ path });
    await commit(store, put('a'));
    assert.equal(mode(join(path, '..')), '700');
    const names = readdirSync(join(path, '..'));
    assert.deepEqual(names.sort(), ['netctl.db', 'netctl.db-wal']);
    for (const name of names) assert.equal(mode(join(path, '..', name)), '600', name);
    await store.close();
    chmodSync(path, 0o644);
    await new SqliteStore({ path }).close();
    assert.equal(mode(path), '600');
  });

  test('a newer version is refused', async () => {
    const path = freshPath();
    await new SqliteStore({ path }).close();
    withDatabase(path, 'PRAGMA user_version = 2');
    assert.throws(
      () => new SqliteStore({ path }),
      unavailable(/it has version 2, this program knows version 1/),
    );
  });

  test('a database of another program is refused and left as it was', async () => {
    const path = join(directory, 'other.db');
    withDatabase(path, 'CREATE TABLE notes (text TEXT)');
    assert.throws(() => new SqliteStore({ path }), unavailable(/database of another program/));
    const database = new DatabaseSync(path);
    assert.equal(database.prepare('PRAGMA journal_mode').get()?.['journal_mode'], 'delete');
    database.close();
  });

  test('a file that is no database, and a directory that cannot be made, are refused with the reason', () => {
    const path = join(directory, 'text.db');
    writeFileSync(path, 'not a database'.repeat(1000));
    assert.throws(
      () => new SqliteStore({ path }),
      unavailable(/text\.db cannot be opened: file is not a database/),
    );
    assert.throws(
      () => new SqliteStore({ path: join(path, 'below.db') }),
      unavailable(/below\.db cannot be opened: .*(ENOTDIR|EEXIST)/),
    );
  });

  test('damage is found at open', async () => {
    const path = freshPath();
    const store = new SqliteStore({ path });
    for (let count = 0; count < 50; count++) await commit(store, put(`k${count}`, 'x'.repeat(500)));
    await store.close();
    const page = 4096;
    const file = openSync(path, 'r+');
    for (let at = 3 * page; at < statSync(path).size; at += page)
      writeSync(file, Buffer.alloc(page, 0xa5), 0, page, at);
    closeSync(file);
    assert.throws(() => new SqliteStore({ path }), unavailable(/it is damaged \(.+\): put back a copy/));
  });
});

/** One that refuses the key `poison`, in the middle of a transaction. */
async function poisonedStore(path: string): Promise<SqliteStore> {
  await new SqliteStore({ path }).close();
  withDatabase(
    path,
    `CREATE TRIGGER poison BEFORE INSERT ON records WHEN NEW.key = 'poison'
     BEGIN SELECT RAISE(ABORT, 'poisoned on purpose'); END`,
  );
  return new SqliteStore({ path });
}

function withDatabase(path: string, sql: string): void {
  const database = new DatabaseSync(path);
  database.exec(sql);
  database.close();
}
