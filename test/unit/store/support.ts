/**
 * What the tests of the store share: writing, watching, waiting.
 *
 * In: a store. Out: short words for what tests do with it. Never: a wait without an end.
 */
import assert from 'node:assert/strict';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { NetctlError } from '../../../src/lib/errors.ts';
import type { ChangeSet, Compare, Json, Revision, Store, Write } from '../../../src/store/store.ts';

export interface Subject {
  readonly store: Store;
  /** False where transactions that are under way together are decided in any order (etcd). */
  readonly inOrder?: boolean;
  /** Drops the changes of all revisions up to now but at most the last. */
  compact(): Promise<void>;
  dispose(): Promise<void>;
}

export const put = (key: string, value: Json = key): Write => ({ kind: 'put', key, value });
export const remove = (key: string): Write => ({ kind: 'delete', key });
export const absent = (key: string): Compare => ({ kind: 'absent', key });
export const present = (key: string): Compare => ({ kind: 'present', key });
export const modified = (key: string, revision: Revision): Compare => ({ kind: 'modified', key, revision });

export const hasCode = (code: string) => (error: unknown) =>
  error instanceof NetctlError && error.code === code;

/** Commits and returns the revision. */
export async function commit(store: Store, ...writes: Write[]): Promise<Revision> {
  const result = await store.transact([], writes);
  assert.ok(result.committed);
  return result.revision;
}

/** A watcher that keeps what it gets. */
export class Recorder {
  readonly changeSets: ChangeSet[] = [];
  readonly ends: Error[] = [];
  onChanges(changeSet: ChangeSet): void {
    this.changeSets.push(changeSet);
  }
  onEnd(error: Error): void {
    this.ends.push(error);
  }
  revisions(): Revision[] {
    return this.changeSets.map((changeSet) => changeSet.revision);
  }
  keys(): string[] {
    return this.changeSets.flatMap((changeSet) => changeSet.changes.map((change) => change.key));
  }
}

/** Waits until the condition holds; what it shows is in the failure. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  for (const end = Date.now() + 5000; !condition(); await sleep(1)) {
    if (Date.now() > end) assert.fail(`waited 5 s for ${what}`);
  }
}

/** Fifty turns of the event loop: enough for all that a store does on its own, so for an event that must not come. */
export async function aWhile(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await nextTurn();
}
