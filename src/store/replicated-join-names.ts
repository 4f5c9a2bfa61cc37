/**
 * Names of pools when a host joins a cluster: whoever adds a pool without a name calls it `default`, so two that were alone have one each.
 *
 * In: the local records, the cluster's. Out: the local changes after which a pool whose name the cluster uses for another is called
 * after its prefix. Never: a pool renamed that overlaps one of the cluster (that contradicts, under whatever name); a record left that
 * names the pool of another.
 */
import { isDeepStrictEqual } from 'node:util';
import { type Address, type Cidr, cidrBase, cidrContains, cidrsOverlap } from '../model/ip.ts';
import { keyPrefix, poolKey } from '../model/keys.ts';
import { poolNameOf } from '../model/names.ts';
import { addressOfKey, blockOfClaimKey } from './authority.ts';
import type { Compare, Entry, Json, Write } from './store.ts';

export interface Renaming {
  /** By the names that they had. */
  readonly pools: ReadonlyMap<string, string>;
  readonly compares: readonly Compare[];
  readonly writes: readonly Write[];
}

type Records = ReadonlyMap<string, Entry>;

export function planRenaming(here: Records, there: Records): Renaming {
  const pools = renamedPools(here, there);
  const compares: Compare[] = [];
  const writes: Write[] = [];
  const rewrite = ({ key, modified }: Entry, ...put: readonly Write[]): void => {
    compares.push({ kind: 'modified', key, revision: modified });
    writes.push(...put);
  };
  for (const entry of here.values()) {
    const { key, value } = entry;
    const next = key.startsWith(keyPrefix.pool) ? pools.get(poolIn(key)) : undefined;
    if (next !== undefined)
      rewrite(entry, { kind: 'delete', key }, { kind: 'put', key: poolKey(next), value });
    const address = addressOfPoolsRecord(key);
    const name = textIn(value, 'pool');
    // One that names no pool was written while its pool was renamed.
    if (address === null || name === '' || (here.has(poolKey(name)) && !pools.has(name))) continue;
    const owner = pools.get(name) ?? poolAround(here, address);
    if (owner !== null)
      rewrite(entry, { kind: 'put', key, value: { ...(value as object), pool: owner } as Json });
  }
  for (const next of pools.values()) compares.push({ kind: 'absent', key: poolKey(next) });
  return { pools, compares, writes };
}

/** The records as they are when the renaming is done. */
export function renamedRecords(here: Records, { writes }: Renaming): Records {
  const records = new Map(here);
  for (const write of writes) {
    const { key } = write;
    if (write.kind === 'delete') records.delete(key);
    else records.set(key, { key, value: write.value, created: 0, modified: here.get(key)?.modified ?? 0 });
  }
  return records;
}

/** A pool of the cluster that shares addresses with the prefix. */
export function poolOverlapping(there: Records, cidr: string): { name: string; cidr: string } | null {
  for (const { key, value } of there.values()) {
    if (!key.startsWith(keyPrefix.pool)) continue;
    const taken = textIn(value, 'cidr');
    if (cidrsOverlap(cidr as Cidr, taken as Cidr)) return { name: poolIn(key), cidr: taken };
  }
  return null;
}

export function textIn(value: Json, field: string): string {
  const text =
    typeof value === 'object' && value !== null && !Array.isArray(value) ? Object(value)[field] : '';
  return typeof text === 'string' ? text : '';
}

function renamedPools(here: Records, there: Records): Map<string, string> {
  const renamed = new Map<string, string>();
  for (const { key, value } of here.values()) {
    const other = key.startsWith(keyPrefix.pool) ? there.get(key)?.value : undefined;
    if (other === undefined || isDeepStrictEqual(other, value)) continue;
    const cidr = textIn(value, 'cidr');
    const next = poolNameOf(cidr as Cidr);
    const isFree = !here.has(poolKey(next)) && !there.has(poolKey(next));
    if (isFree && poolOverlapping(there, cidr) === null) renamed.set(poolIn(key), next);
  }
  return renamed;
}

function poolAround(here: Records, address: Address): string | null {
  for (const { key, value } of here.values())
    if (key.startsWith(keyPrefix.pool) && cidrContains(textIn(value, 'cidr') as Cidr, address))
      return poolIn(key);
  return null;
}

/** The address that a block, an address or an entry of the owners' index is about; null for other records. */
function addressOfPoolsRecord(key: string): Address | null {
  const block = blockOfClaimKey(key);
  return block === null ? addressOfKey(key) : cidrBase(block);
}

const poolIn = (key: string): string => key.slice(keyPrefix.pool.length);
