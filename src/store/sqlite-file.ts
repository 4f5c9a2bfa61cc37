/**
 * The file of the local store: made, opened, locked and checked.
 *
 * In: a path. Out: an open database with our tables that no other process can open, or one clear error. Never: a file or
 * directory made by us that others can read; a commit that a power cut can undo; a newer version's file touched.
 */
import { chmodSync, closeSync, constants, existsSync, fsyncSync, mkdirSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { asNetctlError, NetctlError } from '../lib/errors.ts';

/** Raised with every change of the tables; a step from the version before is added next to `createTables`. */
const schemaVersion = 1;

/** Marks the file as ours in its header: "nctl" in ASCII. */
const applicationId = 0x6e63746c;

/** Result codes of SQLite that need words of our own (https://www.sqlite.org/rescode.html). */
const busy = 5;
const full = 13;
const constraint = 19;

/**
 * The revision of the store is the highest one in `changes`: every revision has rows there, and the last is never dropped.
 * WITHOUT ROWID: the key's tree holds the row, so a write touches one page per table and a list is one scan.
 */
const createTables = `
  CREATE TABLE records (
    key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, created INTEGER NOT NULL, modified INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE changes (
    revision INTEGER NOT NULL, key TEXT NOT NULL, value TEXT, created INTEGER NOT NULL, PRIMARY KEY (revision, key)
  ) STRICT, WITHOUT ROWID;
  PRAGMA application_id = ${applicationId};
  PRAGMA user_version = ${schemaVersion};`;

/**
 * @throws STORE_UNAVAILABLE, its message naming the file and the reason: another process has it open, it is damaged, it is
 * not ours or of a newer version, it cannot be made or read
 */
export function openStoreFile(path: string): DatabaseSync {
  let database: DatabaseSync | undefined;
  try {
    createPrivately(path);
    database = new DatabaseSync(path, { timeout: 0, allowExtension: false });
    // Before anything else: the lock is taken at the first read and held until close.
    database.exec('PRAGMA locking_mode = EXCLUSIVE');
    const isNew = checkFile(database, path);
    configure(database);
    // In one transaction: what a crash leaves without tables is still a new file.
    if (isNew) database.exec(`BEGIN; ${createTables} COMMIT;`);
    return database;
  } catch (error) {
    database?.close();
    throw error instanceof NetctlError ? error : sqliteError(`local store ${path} cannot be opened`, error);
  }
}

/** Any failure of SQLite or the file system as an error of the store, with the reason in words. */
export function sqliteError(what: string, thrown: unknown): NetctlError {
  if (thrown instanceof NetctlError) return thrown;
  if (!(thrown instanceof Error) || !('code' in thrown)) return asNetctlError(thrown);
  const code = 'errcode' in thrown && typeof thrown.errcode === 'number' ? thrown.errcode & 0xff : undefined;
  const reason =
    code === busy
      ? 'another process has it open'
      : code === full
        ? 'no space is left for it'
        : 'errstr' in thrown
          ? `${thrown.message} (SQLite ${String('errcode' in thrown ? thrown.errcode : '')}: ${String(thrown.errstr)})`
          : thrown.message;
  return new NetctlError(
    code === constraint ? 'BUG' : 'STORE_UNAVAILABLE',
    `${what}: ${reason}`,
    { reason },
    thrown,
  );
}

/**
 * SQLite gives its other files the mode of this one. An existing file is never opened here: closing any descriptor of it
 * would drop the locks that this process holds on it.
 */
function createPrivately(path: string): void {
  if (existsSync(path)) {
    chmodSync(path, 0o600);
    return;
  }
  const directory = dirname(path);
  const made = mkdirSync(directory, { recursive: true, mode: 0o700 });
  closeSync(openSync(path, constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY, 0o600));
  syncDirectory(directory);
  if (made) syncDirectory(dirname(made));
}

/** Makes the new names in it last through a power cut. */
function syncDirectory(path: string): void {
  const descriptor = openSync(path, constants.O_RDONLY);
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** True for a file without content. Nothing is written before it is known to be ours. */
function checkFile(database: DatabaseSync, path: string): boolean {
  const version = pragma(database, 'user_version');
  const tables = database.prepare('SELECT count(*) AS tables FROM sqlite_schema').get()?.['tables'];
  if (tables === 0 && version === 0) return true;
  if (pragma(database, 'application_id') !== applicationId) {
    throw refused(path, 'it is a database of another program');
  }
  if (version !== schemaVersion) {
    throw refused(
      path,
      `it has version ${version}, this program knows version ${schemaVersion}: start the newer one`,
    );
  }
  const damage = database.prepare('PRAGMA quick_check(1)').get()?.['quick_check'];
  if (damage !== 'ok') {
    const where = String(damage).replaceAll(/\s+/g, ' ');
    throw refused(
      path,
      `it is damaged (${where}): put back a copy, or move it away to start with an empty one`,
    );
  }
  return false;
}

function configure(database: DatabaseSync): void {
  database.exec('PRAGMA journal_mode = WAL');
  // Each commit is flushed by us (wal-flush.ts); SQLite flushes the log's header and around checkpoints.
  database.exec('PRAGMA synchronous = NORMAL');
  // Checkpoints are run between requests, not inside a commit (sqlite.ts, #maintain).
  database.exec('PRAGMA wal_autocheckpoint = 0');
}

function pragma(database: DatabaseSync, name: string): unknown {
  return database.prepare(`PRAGMA ${name}`).get()?.[name];
}

function refused(path: string, reason: string): NetctlError {
  return new NetctlError('STORE_UNAVAILABLE', `local store ${path} cannot be opened: ${reason}`, {
    path,
    reason,
  });
}
