/**
 * A host that was alone joins a cluster: its pools, documents, blocks and fixed addresses become the cluster's, where they are free.
 *
 * In: the local records, the cluster's. Out: what contradicts what, or transactions that bring up what is the cluster's to decide; the node's
 * own records follow by the comparison of states. Never: a record of the cluster overwritten; anything sent while something contradicts;
 * records of another node.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../lib/clock.ts';
import { NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import { type KeyKind, parseKey } from '../model/keys.ts';
import { type Authority, blockOfClaimKey, Claims } from './authority.ts';
import { type Fence, fenceState } from './replicated-fence.ts';
import {
  planRenaming,
  poolOverlapping,
  type Renaming,
  renamedRecords,
  textIn,
} from './replicated-join-names.ts';
import { isMirrored, type Mirror } from './replicated-mirror.ts';
import type { Outbox } from './replicated-outbox.ts';
import { bounded } from './replicated-wait.ts';
import type { Compare, Entry, Json, Store, Write } from './store.ts';

export interface JoinParts {
  readonly local: Store;
  readonly authority: Authority;
  readonly fence: Fence;
  readonly outbox: Outbox;
  readonly mirror: Mirror;
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface Join {
  /** In words, for the operator; nothing may be sent while there are any. */
  readonly conflicts: readonly string[];
  /** In their order; each key must be absent when its transaction is carried out. */
  readonly steps: readonly (readonly Write[])[];
}

/** What others lean on first. The rest of the kinds is not brought up: the node's own, and what only says how things were. */
const order: readonly KeyKind[] = [
  'settings',
  'tenant',
  'address-set',
  'profile',
  'policy',
  'host-endpoint',
  'pool',
  'block',
  'reservation',
  'address',
  'owner',
];
const writesPerStep = 50;
const charactersPerStep = 256 * 1024;
/** Conflicts that are spelled out in the status; the log has all. */
const named = 3;

/**
 * @param here all records of the local store, without the replication's own
 * @param there those of the cluster
 */
export function planJoin(
  here: ReadonlyMap<string, Entry>,
  there: ReadonlyMap<string, Entry>,
  authority: Authority,
): Join {
  /** Blocks that are this node's alone, and those of them that an attempt which was cut short has brought up already. */
  const [own, brought] = [new Claims(), new Claims()];
  for (const { key, value, modified } of here.values()) {
    const block = blockOfClaimKey(key);
    if (block === null || authority.kindOfClaim(value) !== 'exclusive') continue;
    own.set(block, modified);
    if (isDeepStrictEqual(there.get(key)?.value, value)) brought.set(block, modified);
  }
  const conflicts: string[] = [];
  const writes: Write[] = [];
  for (const { key, value } of [...here.values()].sort((a, b) => rankOf(a.key) - rankOf(b.key))) {
    const conflict = contradiction(key, value, there, authority, brought);
    if (conflict !== null) conflicts.push(conflict);
    else if (rankOf(key) >= 0 && !there.has(key) && !authority.owns(key, own))
      writes.push({ kind: 'put', key, value });
  }
  return { conflicts, steps: conflicts.length > 0 ? [] : inSteps(writes) };
}

function contradiction(
  path: string,
  value: Json,
  there: ReadonlyMap<string, Entry>,
  authority: Authority,
  brought: Claims,
): string | null {
  const key = parseKey(path);
  if (key === null) return null;
  if (key.kind === 'endpoint' && key.node !== authority.node)
    return `${path} is of another node than ${authority.node}`;
  if (key.kind === 'block' && authority.kindOfClaim(value) === 'foreign')
    return `block ${key.cidr} is claimed for another node than ${authority.node}`;
  const other = there.get(path)?.value;
  if (other === undefined) return key.kind === 'pool' ? overlap(key.pool, value, there) : null;
  if (rankOf(path) < 0 || isDeepStrictEqual(other, value)) return null;
  switch (key.kind) {
    case 'block':
      return `block ${key.cidr} is claimed by node ${textIn(other, 'node')} in the cluster`;
    case 'address':
      if (brought.blockOf(key.address) !== null) return null;
      return `address ${key.address} is taken on node ${textIn(other, 'node')} in the cluster`;
    case 'owner':
      return null;
    case 'pool':
      return overlap(key.pool, value, there) ?? `${path} is another one in the cluster`;
    default:
      return `${path} is another one in the cluster`;
  }
}

function overlap(name: string, value: Json, there: ReadonlyMap<string, Entry>): string | null {
  const cidr = textIn(value, 'cidr');
  const other = poolOverlapping(there, cidr);
  return other && `pool ${name} (${cidr}) overlaps ${other.name} (${other.cidr}) of the cluster`;
}

function inSteps(writes: readonly Write[]): Write[][] {
  const steps: Write[][] = [];
  let characters = 0;
  for (const write of writes) {
    const size = JSON.stringify(write).length;
    const isFull = (steps.at(-1)?.length ?? writesPerStep) >= writesPerStep;
    if (isFull || characters + size > charactersPerStep) {
      steps.push([]);
      characters = 0;
    }
    steps.at(-1)!.push(write);
    characters += size;
  }
  return steps;
}

/** -1: not brought up by this. */
function rankOf(path: string): number {
  const key = parseKey(path);
  return key === null ? -1 : order.indexOf(key.kind);
}

/**
 * Brings up what is planned. @returns null when nothing is left to bring up; `again` when a new snapshot tells what is left; otherwise why
 * nothing was brought up. @throws STORE_UNAVAILABLE
 */
export async function join(
  parts: JoinParts,
  cluster: ReadonlyMap<string, Entry>,
): Promise<string | 'again' | null> {
  const { local, authority, fence, outbox, logger } = parts;
  const other = cluster.get(fence.key);
  const state = other === undefined ? null : fenceState(other.value);
  if (state !== null && state.store !== fence.store)
    return `the cluster knows another store of node ${authority.node}: remove that node first, or take another name`;
  const { entries } = await local.list('');
  const here = new Map(entries.filter(({ key }) => isMirrored(key)).map((entry) => [entry.key, entry]));
  const renaming = planRenaming(here, cluster);
  const { conflicts, steps } = planJoin(renamedRecords(here, renaming), cluster, authority);
  if (conflicts.length > 0) {
    logger.error({ conflicts }, 'the records of this host do not go together with those of the cluster');
    const more = conflicts.length > named ? `; and ${conflicts.length - named} more` : '';
    return `its records do not go together with this host's: ${conflicts.slice(0, named).join('; ')}${more}`;
  }
  if (renaming.writes.length > 0) {
    await rename(parts, renaming);
    return 'again';
  }
  if (steps.length === 0) return null;
  fence.adopt(other ?? null);
  logger.info({ records: steps.flat().length }, 'joining the cluster: bringing up what this host has');
  for (const writes of steps) {
    const compares = writes.map(({ key }): Compare => ({ kind: 'absent', key }));
    const { kind } = await bounded(parts.clock, (deadline) =>
      fence.send(compares, writes, outbox.progress, [], deadline),
    );
    if (kind === 'unknown' || kind === 'refused')
      throw new NetctlError('STORE_UNAVAILABLE', 'the cluster did not take the records of this host');
    if (kind !== 'committed') break;
  }
  return 'again';
}

/** A part of the records that changes meanwhile is looked at again. */
async function rename({ local, mirror, logger }: JoinParts, renaming: Renaming): Promise<void> {
  const { pools, compares, writes } = renaming;
  const result = await local.transact(compares, [...writes, mirror.noteWrite()]);
  if (!result.committed) return;
  for (const write of writes)
    if (write.kind === 'put') mirror.noteClaim(write.key, write.value, result.revision);
  for (const [from, to] of pools)
    logger.warn(
      { from, to },
      'pool renamed: the cluster has another of its name, which networks mean from now on',
    );
}
