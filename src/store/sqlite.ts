/**
 * The local store of an agent on SQLite: alone it is the whole store.
 *
 * In: the calls of the port. Transactions handed in during one turn of the event loop share one BEGIN..COMMIT and one flush of the
 * disk, each decided in order on what the earlier ones left. Out: answers after the flush (unless less is asked for), then the watches.
 * Never: a watch shown what is not on the disk (a cluster would learn what a power cut undoes), a part of a transaction, a second process
 * on the file.
 *
 * The table `changes` is also the outbox to etcd. What this node owns (DESIGN.md, "Store: local first") is committed here,
 * acknowledged, and sent on in the order of revisions by a replicator that watches these keys like anybody else and keeps, in
 * the same etcd transaction, the local revision it has sent. One writer per record, so state is enough: after
 * STORE_COMPACTED it compares its keys with etcd's instead. What the cluster owns is decided by etcd and comes down as
 * plain transactions of the mirror; the replicator leaves those keys alone.
 */
import type { DatabaseSync } from 'node:sqlite';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { NetctlError } from '../lib/errors.ts';
import { openStoreFile, sqliteError } from './sqlite-file.ts';
import { SqliteGroup } from './sqlite-group.ts';
import { RecentChanges } from './sqlite-recent.ts';
import {
  overlay,
  prepareStatements,
  rangeEnd,
  readBounds,
  readChanges,
  type Statements,
} from './sqlite-rows.ts';
import type {
  Compare,
  Entry,
  Manner,
  Revision,
  Snapshot,
  Store,
  TransactionResult,
  Watch,
  Watcher,
  Write,
} from './store.ts';
import { type RecordRow, toEntry } from './text-rows.ts';
import {
  checkKey,
  checkPrefix,
  checkTransaction,
  type LoggedChange,
  type Transaction,
} from './transaction.ts';
import { type LogFlush, WalFlush } from './wal-flush.ts';
import { Watches } from './watches.ts';

export interface SqliteOptions {
  readonly path: string;
  /** Revisions whose changes are kept for watches and the replicator. */
  readonly keepRevisions?: number;
  /** Told when compaction or a checkpoint fails: nothing is lost, but the file grows. Default: a process warning. */
  readonly onFault?: (error: NetctlError) => void;
  /** Takes the log to the disk; given by tests. */
  readonly wal?: LogFlush;
}

interface Pending {
  readonly transaction: Transaction;
  readonly flushed: Manner['flushed'];
  readonly resolve: (result: TransactionResult) => void;
  readonly reject: (error: Error) => void;
}

/** Bounds the time for which one commit, one page of a list or one step of compaction keeps the thread. */
const transactionsPerCommit = 512;
const entriesPerPage = 1000;
const revisionsPerCompaction = 256;

/** What was answered and could not be committed is tried again after this, or with the next transaction. */
const retryMilliseconds = 500;

/** Estimated growth of the WAL after which its pages are moved into the database: 8 MiB. */
const walPagesPerCheckpoint = 2048;
const pageBytes = 4096;
/** A commit writes each page once, however many rows on it changed: 11 pages for 3 rows, 33 for 48, 89 for 300 (measured, in both tables). */
const walPages = (rows: number, characters: number): number =>
  5.5 * Math.sqrt(rows) + (2 * characters) / pageBytes;

export class SqliteStore implements Store {
  readonly #path: string;
  readonly #keepRevisions: number;
  readonly #onFault: (error: NetctlError) => void;
  readonly #database: DatabaseSync;
  readonly #statements: Statements;
  readonly #watches: Watches;
  readonly #group: SqliteGroup;
  #compacted: Revision;
  #pending: Pending[] = [];
  #commitScheduled = false;
  /** Called when a commit is over, as it may be. */
  readonly #onCommit: (() => void)[] = [];
  #retry: NodeJS.Timeout | undefined;
  #maintenanceScheduled = false;
  #walPages = 0;
  readonly #recent = new RecentChanges();
  readonly #wal: LogFlush;
  /** Watches are shown all up to this one: what is later waits for the disk. */
  #shown: Revision;
  #diskFault: NetctlError | null = null;
  #refusal: NetctlError | null = null;
  /** The last flush that was begun; never rejects. */
  #flushed: Promise<void> = Promise.resolve();
  #closed: NetctlError | null = null;

  /** @throws STORE_UNAVAILABLE, see openStoreFile */
  constructor({
    path,
    keepRevisions = 10_000,
    onFault = (error) => process.emitWarning(error),
    wal = new WalFlush(`${path}-wal`),
  }: SqliteOptions) {
    this.#path = path;
    this.#keepRevisions = keepRevisions;
    this.#onFault = onFault;
    this.#database = openStoreFile(path);
    this.#statements = prepareStatements(this.#database);
    this.#group = new SqliteGroup(this.#database, this.#statements);
    this.#compacted = readBounds(this.#statements).oldest;
    this.#wal = wal;
    this.#shown = this.#group.revision;
    this.#watches = new Watches({
      latest: () => this.#shown,
      reached: () => this.#group.revision,
      compacted: () => this.#compacted,
      read: (prefix, after, upTo) =>
        this.#recent.read(prefix, after, upTo) ?? readChanges(this.#statements, prefix, after, upTo),
      delivered: (revision) => this.#recent.forget(revision),
    });
  }

  /** Why the file did not take the last change; null when it did. */
  get refusal(): string | null {
    return (this.#diskFault ?? this.#refusal)?.message ?? null;
  }

  async get(key: string): Promise<Entry | null> {
    checkKey(key);
    const row = this.#read(() => this.#group.get(key));
    return row ? toEntry(row) : null;
  }

  /** Long lists are read in pages over several turns, and brought to one revision by what was committed in between. */
  async list(prefix: string): Promise<Snapshot> {
    checkPrefix(prefix);
    for (;;) {
      const start = this.#group.revision;
      const entries = await this.#readPages(prefix);
      if (this.#compacted > start) continue;
      if (this.#group.isOpen) this.#commit();
      const revision = this.#group.revision;
      const changeSets = this.#read(() => readChanges(this.#statements, prefix, start, revision));
      // What is compared with a cluster must be on the disk, as what the watches show.
      if (this.#shown < revision) await this.flush();
      return { revision, entries: revision === start ? entries : overlay(entries, changeSets) };
    }
  }

  async transact(
    compares: readonly Compare[],
    writes: readonly Write[],
    { flushed }: Manner = { flushed: true },
  ): Promise<TransactionResult> {
    const transaction = checkTransaction(compares, writes);
    this.#checkOpen();
    if (flushed === false && this.#pending.length === 0) return this.#decideAtOnce(transaction);
    const { promise, resolve, reject } = Promise.withResolvers<TransactionResult>();
    this.#pending.push({ transaction, flushed, resolve, reject });
    this.#scheduleCommit();
    return promise;
  }

  /** As the flushes that were begun with commits; a commit that asked for none is taken along by the next one that does. */
  async flush(): Promise<void> {
    this.#checkOpen();
    await this.#flushed;
    this.#checkOpen();
  }

  async settled(): Promise<void> {
    while (this.#group.hasWork) {
      this.#checkOpen();
      await new Promise<void>((resolve) => this.#onCommit.push(resolve));
    }
  }

  watch(prefix: string, after: Revision, watcher: Watcher): Watch {
    checkPrefix(prefix);
    this.#checkOpen();
    return this.#watches.add(prefix, after, watcher);
  }

  /** Commits what was handed in before; watches end with STORE_UNAVAILABLE. */
  async close(): Promise<void> {
    if (!this.#database.isOpen) return;
    clearTimeout(this.#retry);
    while (this.#pending.length > 0) this.#commit();
    if (this.#group.hasWork) this.#commit();
    this.#closed ??= new NetctlError('STORE_UNAVAILABLE', `local store ${this.#path} was closed`);
    await this.#wal.close();
    if (!this.#database.isOpen) return;
    this.#database.close();
    this.#watches.endAll(this.#closed);
  }

  /**
   * In the check phase, after all sockets that were ready have been read: their transactions share the commit, and a lone
   * one waits for nothing else (docs/decisions/0002-local-store.md has the measurements).
   */
  #scheduleCommit(): void {
    if (this.#commitScheduled) return;
    this.#commitScheduled = true;
    setImmediate(() => {
      this.#commitScheduled = false;
      if (this.#pending.length > 0 || this.#group.hasWork) this.#commit();
      if (this.#pending.length > 0) this.#scheduleCommit();
    });
  }

  /** What another store has is answered before it is committed, with the turn's others: who reads finds it. */
  #decideAtOnce(transaction: Transaction): TransactionResult {
    try {
      const result = this.#group.decide(transaction);
      this.#group.answer();
      this.#scheduleCommit();
      return result;
    } catch (error) {
      this.#rollBack();
      this.#refusal = this.#unavailable(error);
      throw this.#refusal;
    }
  }

  #commit(): void {
    const group = this.#pending.splice(0, transactionsPerCommit);
    const before = this.#group.committed;
    let results: TransactionResult[];
    let logged: readonly (readonly LoggedChange[])[];
    try {
      results = group.map(({ transaction }) => this.#group.decide(transaction));
      logged = this.#group.commit();
      this.#refusal = null;
    } catch (error) {
      this.#rollBack();
      const refusal = this.#unavailable(error);
      this.#refusal = refusal;
      for (const { reject } of group) reject(refusal);
      return;
    } finally {
      for (const called of this.#onCommit.splice(0)) called();
    }
    this.#note(before, logged);
    const waitsForDisk = ({ flushed }: Pending): boolean => flushed === true && logged.length > 0;
    const answer = (waited: boolean): void =>
      group.forEach((pending, index) => {
        if (waitsForDisk(pending) === waited) pending.resolve(results[index]!);
      });
    answer(false);
    if (logged.length === 0) return;
    if (group.some(({ flushed }) => flushed !== false))
      this.#flushed = this.#flush(group, () => answer(true));
    else if (!this.#wal.isBusy) this.#show(this.#group.committed);
    this.#scheduleMaintenance();
  }

  #note(before: Revision, logged: readonly (readonly LoggedChange[])[]): void {
    let rows = 0;
    let characters = 0;
    for (const [index, changes] of logged.entries()) {
      this.#recent.add(before + 1 + index, changes);
      rows += changes.length;
      for (const { text } of changes) characters += text?.length ?? 0;
    }
    if (rows > 0) this.#walPages += walPages(rows, characters);
  }

  /** Takes all that is committed by now to the disk. Where that fails nobody knows what the disk has, and the store ends. */
  async #flush(group: readonly Pending[], done: () => void): Promise<void> {
    const upTo = this.#group.committed;
    try {
      await this.#wal.flush();
      // After a failure the kernel may call a flush good that lacks what was lost.
      if (this.#diskFault !== null) throw this.#diskFault;
    } catch (error) {
      this.#diskFault ??= this.#unavailable(error);
      this.#closed ??= this.#diskFault;
      for (const { reject } of group) reject(this.#diskFault);
      this.#watches.endAll(this.#diskFault);
      return;
    }
    done();
    this.#show(this.#wal.isBusy ? upTo : this.#group.committed);
  }

  #show(revision: Revision): void {
    this.#shown = Math.max(this.#shown, revision);
    this.#watches.wake();
  }

  /** What a failed group did not write is read back from the file, not remembered; what was answered is still to be written. */
  #rollBack(): void {
    try {
      this.#compacted = this.#group.rollBack();
      if (this.#group.hasWork)
        this.#retry ??= setTimeout(() => {
          this.#retry = undefined;
          if (!this.#closed) this.#scheduleCommit();
        }, retryMilliseconds).unref();
    } catch (error) {
      // An open transaction would show readers what was never committed.
      this.#closed = this.#unavailable(error);
      this.#watches.endAll(this.#closed);
    }
  }

  async #readPages(prefix: string): Promise<Entry[]> {
    const end = rangeEnd(prefix);
    const entries: Entry[] = [];
    for (let from = prefix; ; await nextTurn()) {
      const page = (): unknown => this.#statements.listRecords.all(from, end, entriesPerPage);
      const rows = this.#read(page) as RecordRow[];
      for (const row of rows) entries.push(toEntry(row));
      if (rows.length < entriesPerPage) return entries;
      from = `${rows.at(-1)!.key}\0`;
    }
  }

  #read<T>(query: () => T): T {
    this.#checkOpen();
    try {
      this.#group.show();
      return query();
    } catch (error) {
      throw this.#unavailable(error);
    }
  }

  #scheduleMaintenance(): void {
    if (this.#maintenanceScheduled || !(this.#compactionDue() || this.#checkpointDue())) return;
    this.#maintenanceScheduled = true;
    setImmediate(() => {
      this.#maintenanceScheduled = false;
      if (!this.#closed) this.#maintain();
    });
  }

  /** One step per turn, after a commit whose callers have been answered. A step that failed waits for the next commit. */
  #maintain(): void {
    try {
      if (this.#group.isOpen) this.#commit();
      if (this.#compactionDue()) this.#compact();
      else if (this.#checkpointDue()) this.#checkpoint();
      this.#scheduleMaintenance();
    } catch (error) {
      this.#onFault(sqliteError(`local store ${this.#path} cannot be compacted`, error));
    }
  }

  #compactionDue(): boolean {
    return this.#group.committed - this.#compacted >= this.#keepRevisions + revisionsPerCompaction;
  }

  #checkpointDue(): boolean {
    return this.#walPages >= walPagesPerCheckpoint;
  }

  #compact(): void {
    const upTo = this.#compacted + revisionsPerCompaction;
    this.#statements.dropChanges.run(upTo);
    this.#compacted = upTo;
    this.#walPages += revisionsPerCompaction / 4;
  }

  #checkpoint(): void {
    this.#walPages = 0;
    this.#statements.checkpoint.get();
  }

  #checkOpen(): void {
    if (this.#closed) throw this.#closed;
  }

  #unavailable(error: unknown): NetctlError {
    return sqliteError(`local store ${this.#path} failed`, error);
  }
}
