/**
 * The transaction of SQLite that all of a turn share: each is decided on what the earlier ones left, then all are committed.
 *
 * In: transactions, in order. Out: their results; what they changed, once it is committed. What is decided can be read on the same
 * connection at once, so an answer may go out before the commit. Never: a revision given out twice: what was answered before a commit
 * that failed is written again with the next.
 */
import type { DatabaseSync } from 'node:sqlite';
import { rangeEnd, readBounds, type Statements } from './sqlite-rows.ts';
import type { Revision, TransactionResult } from './store.ts';
import type { RecordRow } from './text-rows.ts';
import {
  type LoggedChange,
  type Newest,
  planTransaction,
  type Transaction,
  type Versions,
} from './transaction.ts';

/** Pools and blocks, which every decision of the cluster compares; not so many that anybody notices. */
const mostRows = 100;

export class SqliteGroup {
  readonly #database: DatabaseSync;
  readonly #statements: Statements;
  /** The last revision that is committed. */
  #committed: Revision;
  /** Changes of each revision after it. */
  #logged: (readonly LoggedChange[])[] = [];
  /** So many of them are answered. */
  #answered = 0;
  /** Read a moment ago and not written since. */
  readonly #rows = new Map<string, RecordRow | undefined>();
  /** What is known in the open transaction: pools and blocks are compared by each of its parts. */
  #versions: Map<string, Versions | undefined> | null = null;

  /** @throws what SQLite says, as all of it does: then `rollBack` is to be called */
  constructor(database: DatabaseSync, statements: Statements) {
    this.#database = database;
    this.#statements = statements;
    this.#committed = readBounds(statements).latest;
  }

  get committed(): Revision {
    return this.#committed;
  }

  /** The last one that was given out. */
  get revision(): Revision {
    return this.#committed + this.#logged.length;
  }

  get isOpen(): boolean {
    return this.#versions !== null;
  }

  /** Something is decided that is not committed. */
  get hasWork(): boolean {
    return this.isOpen || this.#logged.length > 0;
  }

  decide(transaction: Transaction): TransactionResult {
    const versions = this.#begin();
    const next = this.revision + 1;
    const plan = planTransaction(transaction, next, {
      versions: (key) => {
        if (!versions.has(key))
          versions.set(key, this.#statements.getVersions.get(key) as Versions | undefined);
        return versions.get(key);
      },
      newest: (prefix) => this.#statements.getNewest.get(prefix, rangeEnd(prefix)) as Newest | undefined,
    });
    if (!plan.committed) return plan;
    for (const change of plan.changes) {
      this.#write(next, change);
      const { key, text, created } = change;
      versions.set(key, text === null ? undefined : { created, modified: next });
    }
    if (plan.changes.length > 0) this.#logged.push(plan.changes);
    return { committed: true, revision: this.revision };
  }

  get(key: string): RecordRow | undefined {
    if (this.#rows.has(key)) return this.#rows.get(key);
    if (this.#rows.size >= mostRows) this.#rows.clear();
    const row = this.#statements.getRecord.get(key) as RecordRow | undefined;
    this.#rows.set(key, row);
    return row;
  }

  /** What is decided by now is somebody's answer. */
  answer(): void {
    this.#answered = this.#logged.length;
  }

  /** To be called before reading: shows what was answered, also where its commit failed. */
  show(): void {
    if (this.#answered > 0) this.#begin();
  }

  /** @returns the changes of each revision after the one that was committed before */
  commit(): readonly (readonly LoggedChange[])[] {
    this.#begin();
    this.#statements.commit.run();
    const logged = this.#logged;
    this.#versions = null;
    this.#committed = this.revision;
    this.#logged = [];
    this.#answered = 0;
    return logged;
  }

  /** What was not answered never was. @returns the revision before the oldest change that is kept, read back from the file */
  rollBack(): Revision {
    this.#versions = null;
    this.#rows.clear();
    this.#logged.length = this.#answered;
    if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
    return readBounds(this.#statements).oldest;
  }

  #begin(): Map<string, Versions | undefined> {
    if (this.#versions !== null) return this.#versions;
    this.#statements.begin.run();
    for (const [index, changes] of this.#logged.entries())
      for (const change of changes) this.#write(this.#committed + 1 + index, change);
    this.#versions = new Map();
    return this.#versions;
  }

  #write(revision: Revision, { key, text, created }: LoggedChange): void {
    this.#rows.delete(key);
    if (text === null) this.#statements.deleteRecord.run(key);
    else this.#statements.putRecord.run(key, text, created, revision);
    this.#statements.addChange.run(revision, key, text, created);
  }
}
