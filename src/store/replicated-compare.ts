/**
 * Compares the local store with a snapshot of the cluster, both ways.
 *
 * In: the records here and there. Out: what to bring down, and what of this node's own to send up. Never: a record of this node deleted
 * here because the cluster lost it, or sent where the cluster has decided otherwise.
 */
import { isDeepStrictEqual } from 'node:util';
import { nodeKey } from '../model/keys.ts';
import { type Authority, blockOfClaimKey } from './authority.ts';
import { isMirrored, type Mirror } from './replicated-mirror.ts';
import type { Outbox } from './replicated-outbox.ts';
import type { Entry, Write } from './store.ts';

export interface CompareParts {
  readonly authority: Authority;
  readonly mirror: Mirror;
  readonly outbox: Outbox;
  /** Identity of the cluster that the local store is a picture of. */
  readonly clusterId: string | null;
  /** The log does not have all that waits. */
  readonly gap: boolean;
  isDecidedThere(key: string): boolean;
}

/** A record of ours stays although the cluster lacks it, unless the node itself was removed there. */
export function isDefended(parts: CompareParts, key: string): boolean {
  const { authority, mirror, outbox } = parts;
  const isRegistered = mirror.known(nodeKey(authority.node)) !== undefined;
  return isRegistered && authority.owns(key, mirror.own) && !outbox.has(key) && !parts.isDecidedThere(key);
}

/** After a gap all that differs in our own records, otherwise what the cluster lost of them. */
export function differencesUp(
  parts: CompareParts,
  here: ReadonlyMap<string, Entry>,
  cluster: ReadonlyMap<string, Entry>,
  id: string,
): Write[] {
  const { gap, clusterId, authority, mirror } = parts;
  if (clusterId !== id) return [];
  const puts = [...here.values()]
    .filter(({ key, value }) => {
      const there = cluster.get(key);
      if (parts.isDecidedThere(key)) return false;
      if (gap) return authority.owns(key, mirror.own) && !isDeepStrictEqual(there?.value, value);
      return there === undefined && isDefended(parts, key);
    })
    .sort((a, b) => a.modified - b.modified)
    .map(({ key, value }): Write => ({ kind: 'put', key, value }));
  if (!gap) return puts;
  const gone = [...cluster.keys()].filter((key) => !here.has(key) && !parts.isDecidedThere(key));
  const records = gone.filter((key) => authority.owns(key, mirror.claims));
  const claims = gone.filter((key) => {
    const block = blockOfClaimKey(key);
    return block !== null && mirror.claims.get(block) !== undefined;
  });
  const remove = (key: string): Write => ({ kind: 'delete', key });
  return [...records.map(remove), ...puts, ...claims.map(remove)];
}

/** All that the cluster has otherwise; what waits here is sorted out by the mirror. */
export function differencesDown(
  here: ReadonlyMap<string, Entry>,
  cluster: ReadonlyMap<string, Entry>,
): Write[] {
  const gone = [...here.keys()].filter((key) => isMirrored(key) && !cluster.has(key));
  const other = [...cluster.values()].filter(
    ({ key, value }) => isMirrored(key) && !isDeepStrictEqual(here.get(key)?.value, value),
  );
  return [
    ...gone.map((key): Write => ({ kind: 'delete', key })),
    ...other.map(({ key, value }): Write => ({ kind: 'put', key, value })),
  ];
}
