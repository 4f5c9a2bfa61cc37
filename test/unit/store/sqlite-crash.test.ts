/** The SQLite store after a crash: its process killed in the middle of writing, its write-ahead log torn off. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { SqliteStore } from '../../../src/store/sqlite.ts';
import { commit, put, remove } from './support.ts';

test('kill -9 while writing: all that was acknowledged is there, nothing half, and others wait outside meanwhile', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'netctl-store-'));
  const path = join(directory, 'netctl.db');
  const acknowledged = new Set<number>();
  try {
    for (let round = 0; round < 5; round++) {
      const before = acknowledged.size;
      await writeUntilKilled(path, round * 100_000, 150 + 60 * round, acknowledged);
      assert.ok(acknowledged.size >= before + 150 + 60 * round);
      const store = new SqliteStore({ path });
      const { revision, entries } = await store.list('');
      await store.close();
      const keys = new Set(entries.map((entry) => entry.key));
      for (const number of acknowledged)
        assert.ok(keys.has(`first/${number}`), `transaction ${number} is lost`);
      for (const key of keys) {
        const other = key.startsWith('first/')
          ? key.replace('first', 'second')
          : key.replace('second', 'first');
        assert.ok(keys.has(other), `${key} without ${other}`);
      }
      assert.equal(revision, keys.size / 2, 'one revision for each transaction');
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('a write-ahead log that was torn off anywhere: the store is as after one of its transactions', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'netctl-store-'));
  const path = join(directory, 'netctl.db');
  const torn = join(directory, 'torn.db');
  const store = new SqliteStore({ path });
  try {
    const states = [JSON.stringify(await store.list(''))];
    for (let count = 0; count < 30; count++) {
      await commit(
        store,
        put(`k${count}`, 'x'.repeat(count * 100)),
        put('last', count),
        remove(`k${count - 3}`),
      );
      states.push(JSON.stringify(await store.list('')));
    }
    const bytes = statSync(`${path}-wal`).size;
    const found = new Set<number>();
    for (let cut = 0; cut <= 40; cut++) {
      // By another process: this one must not open and close the file itself (see sqlite-file.ts, createPrivately).
      execFileSync('cp', [path, torn]);
      execFileSync('cp', [`${path}-wal`, `${torn}-wal`]);
      truncateSync(`${torn}-wal`, Math.floor((bytes * cut) / 40));
      const reopened = new SqliteStore({ path: torn });
      const state = states.indexOf(JSON.stringify(await reopened.list('')));
      await reopened.close();
      assert.notEqual(state, -1, `cut at ${cut}/40`);
      found.add(state);
    }
    assert.ok(found.has(0) && found.has(30) && found.size > 10, [...found].join(' '));
  } finally {
    await store.close();
    rmSync(directory, { recursive: true });
  }
});

/** Kills the writer at some point after the given number of acknowledgements, and reads those to the last. */
async function writeUntilKilled(
  path: string,
  first: number,
  count: number,
  acknowledged: Set<number>,
): Promise<void> {
  const program = join(import.meta.dirname, 'writer-process.ts');
  const writer = spawn(process.execPath, [program, path, String(first)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(writer, 'exit');
  try {
    let heard = 0;
    for await (const line of createInterface({ input: writer.stdout })) {
      assert.match(line, /^ack \d+$/);
      acknowledged.add(Number(line.slice(4)));
      heard += 1;
      if (heard === 1) assert.throws(() => new SqliteStore({ path }), /another process has it open/);
      if (heard === count) writer.kill('SIGKILL');
    }
  } finally {
    writer.kill('SIGKILL');
  }
  assert.deepEqual((await ended)[1], 'SIGKILL');
}
