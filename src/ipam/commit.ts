/**
 * One transaction: plan on the picture, let the store decide, put the outcome into the picture at once.
 *
 * In: a plan, made anew for each attempt. Out: the committed revision (0 for a plan without writes). Never: a write repeated whose outcome is unknown (that error
 * goes to the caller), a lost race answered with the same stale picture.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { NetctlError } from '../lib/errors.ts';
import { addressKey, parseKey } from '../model/keys.ts';
import type { Compare, Json, Manner, Revision, Store, Write } from '../store/store.ts';
import type { Claims } from './claims.ts';

export interface Plan {
  readonly compares: readonly Compare[];
  readonly writes: readonly Write[];
  /** Called once when the attempt's outcome is in the picture. */
  settle?(): void;
}

/** A plan that also says what will be so when it is committed. */
export interface Planned<T> extends Plan {
  readonly result: T;
}

/** What the outcome goes to, before the watch tells of it. */
export interface Sink {
  /** Records that this process has just made: they are typed already. */
  made(writes: readonly Write[], revision: Revision): void;
  /** A record as the store has it now. */
  read(key: string, entry: { readonly value: Json; readonly modified: Revision } | null): void;
}

const mostAttempts = 64;
/** From this attempt on a loser waits a little, so that many who want the same record do not all lose again. */
const patientAttempts = 8;

/** What is committed to, and who hears of it. */
export interface CommitParts {
  readonly store: Store;
  readonly picture: Sink;
  readonly claims: Claims;
  /** Told of each attempt that another was quicker than. */
  onLostRace(): void;
}

/** @param manner when it is answered @throws CONFLICT when others were always quicker; whatever `plan` throws; STORE_UNAVAILABLE */
export async function commit(parts: CommitParts, plan: () => Plan, manner?: Manner): Promise<Revision> {
  for (let attempt = 0; attempt < mostAttempts; attempt++) {
    if (attempt >= patientAttempts) await pause(Math.random() * Math.min(attempt, 20));
    let planned = plan();
    for (let other = parts.claims.other(planned.compares); other !== null; ) {
      planned.settle?.();
      await other;
      planned = plan();
      other = parts.claims.other(planned.compares);
    }
    const { compares } = planned;
    const revision = await parts.claims.run(compares, () => attemptOnce(parts, planned, manner));
    if (revision !== null) return revision;
    parts.onLostRace();
  }
  throw new NetctlError('CONFLICT', `lost the race for the same records ${mostAttempts} times: try again`);
}

/** null: another was quicker, as the picture says by now. */
async function attemptOnce(
  { store, picture }: CommitParts,
  { compares, writes, settle }: Plan,
  manner: Manner | undefined,
): Promise<Revision | null> {
  try {
    if (writes.length === 0) return 0;
    const result = await store.transact(compares, writes, manner);
    if (result.committed) {
      if (result.overtaken) for (const { key } of writes) picture.read(key, await store.get(key));
      else picture.made(writes, result.revision);
      return result.revision;
    }
    for (const key of [result.failed, ...indexedBy(result.failed)]) picture.read(key, await store.get(key));
    return null;
  } finally {
    settle?.();
  }
}

/** The owners' index is no part of the picture: what it leads to is. */
function indexedBy(path: string): string[] {
  const key = parseKey(path);
  return key?.kind === 'owner' ? [addressKey(key.address)] : [];
}
