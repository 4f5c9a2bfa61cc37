/**
 * Claims of blocks that this process has under way: when a block is full, all who want an address next plan to claim the same new one.
 * One of them asks; the others wait for what becomes of it, and plan anew. In a cluster each would lose otherwise, one after the other.
 *
 * In: the compares of a plan. Out: promises. Never: a wait for a claim that is over; a second one for a store that could not be asked.
 */
import { NetctlError } from '../lib/errors.ts';
import { keyPrefix } from '../model/keys.ts';
import type { Compare } from '../store/store.ts';

export class Claims {
  readonly #underWay = new Map<string, Promise<void>>();

  /** Somebody else's claim of a block that the plan wants to claim, too; null: none. @throws STORE_UNAVAILABLE, as that one */
  other(compares: readonly Compare[]): Promise<void> | null {
    for (const key of claimed(compares)) {
      const other = this.#underWay.get(key);
      if (other !== undefined) return other;
    }
    return null;
  }

  /** Carries out a plan, which others wait for where it claims a block. */
  async run<T>(compares: readonly Compare[], work: () => Promise<T>): Promise<T> {
    const keys = claimed(compares);
    if (keys.length === 0) return work();
    const result = work();
    const outcome = result.then(
      () => undefined,
      (error: unknown) => {
        if (error instanceof NetctlError && error.code === 'STORE_UNAVAILABLE') throw error;
      },
    );
    outcome.catch(() => undefined);
    for (const key of keys) this.#underWay.set(key, outcome);
    try {
      return await result;
    } finally {
      for (const key of keys) this.#underWay.delete(key);
    }
  }
}

function claimed(compares: readonly Compare[]): string[] {
  return compares.flatMap(({ kind, key }) =>
    kind === 'absent' && key.startsWith(keyPrefix.block) ? [key] : [],
  );
}
