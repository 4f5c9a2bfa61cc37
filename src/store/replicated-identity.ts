/**
 * Is this the cluster that the local store is a picture of? The first node in an empty keyspace names it, in the record `cluster`.
 *
 * In: what a snapshot says about itself. Out: why it is not to be believed, in the words of the status. Never: a wiped or other cluster taken
 * for the known one.
 */
import { randomUUID } from 'node:crypto';
import type { Clock } from '../lib/clock.ts';
import { keyPrefix } from '../model/keys.ts';
import type { Authority } from './authority.ts';
import { type Fence, fenceState } from './replicated-fence.ts';
import { clusterIdKey, isMirrored } from './replicated-mirror.ts';
import { bounded } from './replicated-wait.ts';
import type { Entry, Json, Store, Write } from './store.ts';

export interface IdentityParts {
  readonly local: Store;
  readonly authority: Authority;
  readonly fence: Fence;
  readonly clusterId: string | null;
}

/** Why nothing may be taken over from a cluster with this identity; null: it is the one that is known. */
export async function reasonToHold(
  parts: IdentityParts,
  id: string | null,
  fenceEntry: Entry | null,
): Promise<string | null> {
  const { local, clusterId, fence, authority } = parts;
  if (clusterId === null) {
    const { entries } = await local.list('');
    const isFresh = entries.every(({ key }) => !isMirrored(key) || key.startsWith(keyPrefix.status));
    return isFresh ? null : 'the local store holds records that it did not get from this cluster';
  }
  if (id === null) return 'the cluster has none of the records that it had: it looks wiped';
  if (id !== clusterId) return `this is not the cluster that it was: ${id} instead of ${clusterId}`;
  const state = fenceEntry === null ? null : fenceState(fenceEntry.value);
  return state === null || state.store === fence.store
    ? null
    : `another agent writes to the cluster as node ${authority.node}`;
}

/** The first node in an empty keyspace names it. @throws STORE_UNAVAILABLE */
export async function foundCluster({ cluster, clock }: { cluster: Store; clock: Clock }): Promise<void> {
  const named: Write = { kind: 'put', key: clusterIdKey, value: { id: randomUUID() } };
  await bounded(clock, (deadline) =>
    deadline.race(cluster.transact([{ kind: 'absent', key: clusterIdKey }], [named])),
  );
}

export function idOf(entry: Entry | null | undefined): string | null {
  const value: Json = entry?.value ?? null;
  if (typeof value !== 'object' || value === null || !('id' in value)) return null;
  return typeof value.id === 'string' ? value.id : null;
}
