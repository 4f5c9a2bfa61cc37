/**
 * Many operations in few transactions: each takes as many of the following ones as fit and do not depend on each other.
 *
 * In: operations in their order. Out: for each its result or its error; with `atomic` all or none. Never: an operation planned on a state
 * that another one of the same transaction changes; more in a transaction than etcd takes.
 */
import { isDeepStrictEqual } from 'node:util';
import { asNetctlError, invalid, NetctlError } from '../lib/errors.ts';
import { keyPrefix } from '../model/keys.ts';
import type { Compare, Write } from '../store/store.ts';
import type { Plan, Planned } from './commit.ts';
import { type Operation, type PlanContext, planOperation, touchedBy } from './operations.ts';

export type BatchItem =
  | { readonly ok: true; readonly result: unknown }
  | { readonly ok: false; readonly error: NetctlError };

/** Of compares and of writes: etcd takes 128 of each (--max-txn-ops), and the store adds a few of its own. */
const mostPerTransaction = 120;

export interface Chunk extends Plan {
  /** Of the operations from the first on: as many as the transaction has taken. */
  readonly items: readonly BatchItem[];
  settle(): void;
}

/** The first operations that go into one transaction; at least one, if it is only its error. */
export function planChunk(context: PlanContext, operations: readonly Operation[], now: Date): Chunk {
  const merged = new Merged();
  const changed = new Set<string>();
  const looked = new Set<string>();
  const settlers: (() => void)[] = [];
  const items: BatchItem[] = [];
  for (const operation of operations) {
    const touches = touchedBy(context.book, operation);
    const depends =
      [...touches.changed, ...touches.looked].some((key) => changed.has(key)) ||
      touches.changed.some((key) => looked.has(key));
    if (depends) break;
    let planned: Planned<unknown>;
    try {
      planned = planOperation(context, operation as never, now);
    } catch (error) {
      items.push({ ok: false, error: asNetctlError(error) });
      continue;
    }
    const fits = merged.take(planned);
    if (fits || items.length === 0) {
      settlers.push(() => planned.settle?.());
      items.push({ ok: true, result: planned.result });
      for (const key of touches.changed) changed.add(key);
      for (const key of touches.looked) looked.add(key);
    } else planned.settle?.();
    if (!fits) break;
  }
  return { ...merged.plan(), items, settle: () => settlers.forEach((settle) => void settle()) };
}

/** All of the operations as one transaction. @throws the first one's error with its position, INVALID when they do not fit */
export function planAtomically(context: PlanContext, operations: readonly Operation[], now: Date): Chunk {
  const chunk = planChunk(context, operations, now);
  const failed = chunk.items.findIndex(({ ok }) => !ok);
  const item = chunk.items[failed];
  if (item?.ok === false || chunk.items.length < operations.length) chunk.settle();
  if (item?.ok === false) {
    const { code, message, details } = item.error;
    throw new NetctlError(
      code,
      `operations[${failed}]: ${message}`,
      { ...details, operation: failed },
      item.error,
    );
  }
  if (chunk.items.length < operations.length)
    throw invalid(
      'operations',
      operations.length,
      `with atomic, operations about different addresses, one for a tenant with a quota, that fit into one transaction (${mostPerTransaction} writes); the first ${chunk.items.length} do`,
    );
  return chunk;
}

class Merged {
  readonly #compares = new Map<string, Compare>();
  readonly #writes = new Map<string, Write>();

  /** Adds the plan unless it and what is there disagree about a record, or there would be too much. */
  take({ compares, writes }: Plan): boolean {
    const isOther = (known: Compare | undefined, wanted: Compare): boolean =>
      known !== undefined && !isDeepStrictEqual(known, wanted);
    const own = new Map(writes.map((write) => [write.key, write]));
    const clashes =
      writes.some((write) => this.#writes.has(write.key) && !this.#isSameClaim(write)) ||
      compares.some((compare) => isOther(this.#compares.get(compare.key), compare)) ||
      // What one compares the other must not change, unless both make the same change (two that claim the same new block).
      compares.some(({ key }) => this.#writes.has(key) && !own.has(key)) ||
      writes.some(({ key }) => this.#compares.has(key) && !this.#writes.has(key));
    const added = (known: ReadonlyMap<string, unknown>, more: readonly { key: string }[]): number =>
      known.size + more.filter(({ key }) => !known.has(key)).length;
    const tooMany =
      added(this.#compares, compares) > mostPerTransaction ||
      added(this.#writes, writes) > mostPerTransaction;
    if ((clashes || tooMany) && this.#writes.size > 0) return false;
    for (const compare of compares) this.#compares.set(compare.key, compare);
    for (const write of writes) this.#writes.set(write.key, write);
    return true;
  }

  /** Two operations may claim the same new block; any other record that both write has to say what both did. */
  #isSameClaim(write: Write): boolean {
    return write.key.startsWith(keyPrefix.block) && isDeepStrictEqual(this.#writes.get(write.key), write);
  }

  plan(): Plan {
    return { compares: [...this.#compares.values()], writes: [...this.#writes.values()] };
  }
}
