/**
 * Lets those wait who must know that a revision of the store has arrived here.
 *
 * In: revisions, as they arrive. Out: promises. Never: one that waits for ever.
 */
import type { Clock } from '../lib/clock.ts';
import type { Revision } from '../store/store.ts';

/** How long a change may take before the API stops waiting for it. */
const deadlineMilliseconds = 5000;

export class RevisionGate {
  readonly #clock: Clock;
  readonly #waiting = new Set<{ readonly revision: Revision; readonly resolve: () => void }>();
  #revision: Revision = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get revision(): Revision {
    return this.#revision;
  }

  onRevision(revision: Revision): void {
    this.#revision = revision;
    for (const waiter of this.#waiting) if (waiter.revision <= revision) waiter.resolve();
  }

  /** Resolves when the revision has arrived; rejects when it has not within 5 s. */
  passed(revision: Revision): Promise<void> {
    if (this.#revision >= revision) return Promise.resolve();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter = { revision, resolve };
    const timer = this.#clock.setTimer(deadlineMilliseconds, () =>
      reject(new Error(`revision ${revision} has not arrived`)),
    );
    this.#waiting.add(waiter);
    return promise.finally(() => {
      timer.cancel();
      this.#waiting.delete(waiter);
    });
  }
}
