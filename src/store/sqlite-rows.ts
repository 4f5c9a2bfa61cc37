/**
 * The statements of the local store, and its rows as entries and change sets.
 *
 * In: an open database. Out: what src/store/sqlite.ts reads and writes with. Never: a transaction begun or ended on its own.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { compareKeys, prefixEnd } from './key-order.ts';
import type { Change, ChangeSet, Entry, Revision } from './store.ts';
import { type ChangeRow, toChange } from './text-rows.ts';

export type Statements = ReturnType<typeof prepareStatements>;

export function prepareStatements(database: DatabaseSync) {
  const prepare = (sql: string): StatementSync => database.prepare(sql);
  return {
    begin: prepare('BEGIN IMMEDIATE'),
    commit: prepare('COMMIT'),
    getRecord: prepare('SELECT key, value, created, modified FROM records WHERE key = ?'),
    getVersions: prepare('SELECT created, modified FROM records WHERE key = ?'),
    getNewest: prepare(
      'SELECT key, modified FROM records WHERE key >= ? AND key < ? ORDER BY modified DESC LIMIT 1',
    ),
    listRecords: prepare(
      'SELECT key, value, created, modified FROM records WHERE key >= ? AND key < ? ORDER BY key LIMIT ?',
    ),
    putRecord: prepare('INSERT OR REPLACE INTO records (key, value, created, modified) VALUES (?, ?, ?, ?)'),
    deleteRecord: prepare('DELETE FROM records WHERE key = ?'),
    addChange: prepare('INSERT INTO changes (revision, key, value, created) VALUES (?, ?, ?, ?)'),
    listChanges: prepare(
      `SELECT revision, key, value, created FROM changes
       WHERE revision > ? AND revision <= ? AND key >= ? AND key < ? ORDER BY revision, key`,
    ),
    bounds: prepare(
      'SELECT (SELECT max(revision) FROM changes) AS latest, (SELECT min(revision) FROM changes) AS oldest',
    ),
    dropChanges: prepare('DELETE FROM changes WHERE revision <= ?'),
    checkpoint: prepare('PRAGMA wal_checkpoint(PASSIVE)'),
  };
}

/** `oldest` is the revision before the oldest change that is kept. */
export function readBounds(statements: Statements): { latest: Revision; oldest: Revision } {
  const row = statements.bounds.get() as { latest: Revision | null; oldest: Revision | null };
  return { latest: row.latest ?? 0, oldest: (row.oldest ?? 1) - 1 };
}

export function readChanges(
  statements: Statements,
  prefix: string,
  after: Revision,
  upTo: Revision,
): ChangeSet[] {
  const changeSets: { revision: Revision; changes: Change[] }[] = [];
  const rows = statements.listChanges.all(after, upTo, prefix, rangeEnd(prefix)) as unknown as ChangeRow[];
  for (const row of rows) {
    if (changeSets.at(-1)?.revision !== row.revision)
      changeSets.push({ revision: row.revision, changes: [] });
    changeSets.at(-1)!.changes.push(toChange(row));
  }
  return changeSets;
}

/** SQLite sorts every text before every blob, so the empty blob ends the range of all keys. */
export function rangeEnd(prefix: string): string | Uint8Array {
  return prefixEnd(prefix) ?? new Uint8Array(0);
}

/** The entries after the change sets, in order again. */
export function overlay(entries: readonly Entry[], changeSets: readonly ChangeSet[]): Entry[] {
  const byKey = new Map(entries.map((entry) => [entry.key, entry]));
  for (const { changes } of changeSets) {
    for (const { key, entry } of changes) {
      if (entry) byKey.set(key, entry);
      else byKey.delete(key);
    }
  }
  return [...byKey.values()].sort((a, b) => compareKeys(a.key, b.key));
}
