/**
 * Lets those wait who must know that a revision of the store has arrived here.
 *
 * In: revisions, as they arrive. Out: promises. Never: a limit of time (whoever waits has one).
 */
import type { Revision } from '../store/store.ts';

export class RevisionGate {
  readonly #waiting = new Set<{ readonly revision: Revision; readonly resolve: () => void }>();
  #revision: Revision = 0;

  get revision(): Revision {
    return this.#revision;
  }

  onRevision(revision: Revision): void {
    this.#revision = revision;
    for (const waiter of this.#waiting) {
      if (waiter.revision > revision) continue;
      waiter.resolve();
      this.#waiting.delete(waiter);
    }
  }

  passed(revision: Revision): Promise<void> {
    if (this.#revision >= revision) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.add({ revision, resolve });
    return promise;
  }
}
