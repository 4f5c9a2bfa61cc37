/**
 * The end of the local store's log that some watch may not have been shown yet, in memory: who follows closely costs no query.
 *
 * In: what each commit logged, in order; how far all watches are. Out: change sets, or null where the file has to be asked. Never: a
 * change that is not committed; more than a bound of them, however slow a watch is.
 */
import { compareKeys } from './key-order.ts';
import type { ChangeSet, Revision } from './store.ts';
import { toChange } from './text-rows.ts';
import type { LoggedChange } from './transaction.ts';

interface Logged {
  readonly revision: Revision;
  /** In the order of the keys (bytewise). */
  readonly changes: readonly LoggedChange[];
}

/** More than one turn commits; a watch that is further behind is catching up. */
const mostRevisions = 2048;

export class RecentChanges {
  /** Revisions without a gap. */
  #logged: Logged[] = [];

  add(revision: Revision, changes: readonly LoggedChange[]): void {
    const first = this.#logged[0];
    if (first !== undefined && first.revision + this.#logged.length !== revision) this.#logged = [];
    if (this.#logged.length >= mostRevisions) this.#logged = this.#logged.slice(mostRevisions / 2);
    this.#logged.push({ revision, changes: changes.toSorted((a, b) => compareKeys(a.key, b.key)) });
  }

  /** @returns null if some of them are not here (any more) */
  read(prefix: string, after: Revision, upTo: Revision): ChangeSet[] | null {
    const first = this.#logged[0]?.revision;
    if (first === undefined || after + 1 < first || upTo >= first + this.#logged.length) return null;
    const changeSets: ChangeSet[] = [];
    for (const { revision, changes } of this.#logged.slice(after + 1 - first, upTo + 1 - first)) {
      const wanted = prefix === '' ? changes : changes.filter(({ key }) => key.startsWith(prefix));
      if (wanted.length === 0) continue;
      changeSets.push({
        revision,
        changes: wanted.map(({ key, text, created }) => toChange({ revision, key, value: text, created })),
      });
    }
    return changeSets;
  }

  /** Nobody asks for what is not later than the revision. */
  forget(upTo: Revision): void {
    const first = this.#logged[0]?.revision;
    if (first !== undefined && upTo >= first) this.#logged = this.#logged.slice(upTo + 1 - first);
  }
}
