/**
 * How full it is, and which node could take how many more.
 *
 * In: the address book, whose counts are kept up with every record. Out: numbers by pool, node, tenant and app. Never: a walk over
 * addresses; another tenant's numbers to a tenant.
 */
import { cidrSize } from '../model/ip.ts';
import type { Pool } from '../model/records.ts';
import { admitsNode, roomOnNode, tenantUsed } from './access.ts';
import type { AddressBook } from './address-book.ts';
import type { Counts, Dimension } from './counts.ts';
import { heldCount } from './counts.ts';
import type { PoolView } from './pool-view.ts';

export interface Usage extends Counts {
  /** `tenant/app` for an app. */
  readonly key: string;
  /** Addresses that are somebody's: all states but cooldown. */
  readonly inUse: number;
}

/** Big numbers are exact up to 2^53, and that beyond. */
export interface PoolUsage extends Usage {
  readonly capacity: number;
  /** Of the capacity, what is never given out: excluded, outside the ranges, gateway, first and last. */
  readonly excluded: number;
  /** What can be given out now: not what is excluded, in use or cooling down. */
  readonly available: number;
  readonly blocks: number;
}

/** @param tenant null for an operator; a tenant sees its own and its apps' numbers, of pools and nodes nothing */
export function usageBy(
  book: AddressBook,
  dimension: Exclude<Dimension, 'pool'>,
  tenant: string | null,
): Usage[] {
  return [...book.counts.all(dimension)]
    .filter(([key]) => tenant === null || (dimension !== 'node' && key.split('/')[0] === tenant))
    .map(([key, counts]) => ({ key, ...counts, inUse: heldCount(counts) }))
    .sort((a, b) => (a.key < b.key ? -1 : 1));
}

/** Pools that the tenant can see (null: all). */
export function usageByPool(book: AddressBook, tenant: string | null): PoolUsage[] {
  return book
    .views()
    .filter((view) => tenant === null || view.isFor(tenant))
    .map((view) => {
      const counts = book.counts.of('pool', view.name);
      const capacity = cidrSize(view.pool.cidr);
      return {
        key: view.name,
        ...counts,
        inUse: heldCount(counts),
        capacity: toNumber(capacity),
        excluded: toNumber(capacity - view.assignable),
        available: toNumber(view.assignable - BigInt(book.takenIn(view.name))),
        blocks: book.blocksInPool(view.name).size,
      };
    });
}

export interface CapacityRequest {
  readonly tenant: string;
  readonly kind: Pool['kind'];
  /** Empty: every pool that is open to the tenant. */
  readonly pools: readonly string[];
  /** null: every node of the cluster. */
  readonly nodes: readonly string[] | null;
}

export interface NodeCapacity {
  readonly node: string;
  /** Addresses that the node could get now, if no other node asks. */
  readonly available4: number;
  readonly available6: number;
  /** Why it is not more. */
  readonly limitReason: string | null;
}

export interface Capacity {
  readonly nodes: readonly NodeCapacity[];
  /** Shared by all nodes. */
  readonly pools: readonly PoolUsage[];
  /** What the tenant's quota leaves; null when it has none. */
  readonly quotaLeft: number | null;
}

/** Takes a microsecond or two for each node and each block. A pool that does not exist or that the tenant cannot see has nothing to give. */
export function capacity(book: AddressBook, request: CapacityRequest): Capacity {
  const { tenant, kind, pools, nodes } = request;
  const quota = book.tenant(tenant)?.maxAddresses ?? null;
  const quotaLeft = quota === null ? null : Math.max(0, quota - tenantUsed(book, tenant));
  const open = book
    .views()
    .filter((view) => view.pool.kind === kind && !view.pool.disabled && view.isFor(tenant))
    .filter(({ name }) => pools.length === 0 || pools.includes(name))
    .map((view) => openPool(book, view));
  const names = new Set(open.map(({ view }) => view.name));
  return {
    nodes: [...(nodes ?? book.nodes().keys())].map((node) => ofNode(book, open, node, quotaLeft)),
    pools: usageByPool(book, tenant).filter(({ key }) => names.has(key)),
    quotaLeft,
  };
}

interface Open {
  readonly view: PoolView;
  /** Free addresses outside of all claimed blocks (of a macvlan pool: all). */
  readonly unclaimed: number;
  /** Free addresses in shared blocks, whoever has them. */
  readonly lendable: number;
  readonly byNode: ReadonlyMap<string, Held>;
}

/** Blocks of a node, and the free addresses in them, those in shared blocks also by themselves. */
interface Held {
  blocks: number;
  free: number;
  shared: number;
}

/** One walk over the pool's blocks, however many nodes are asked about. */
function openPool(book: AddressBook, view: PoolView): Open {
  const byNode = new Map<string, Held>();
  let claimed = 0;
  let lendable = 0;
  for (const block of book.blocksInPool(view.name)) {
    const { node, shared, closing } = book.block(block)!.value;
    const free = book.freeIn(view, block);
    const held = byNode.get(node) ?? { ...none };
    byNode.set(node, held);
    claimed += free;
    held.blocks += 1;
    if (closing) continue;
    held.free += free;
    if (!shared) continue;
    held.shared += free;
    lendable += free;
  }
  const unclaimed = toNumber(view.assignable - BigInt(book.takenIn(view.name)) - BigInt(claimed));
  return { view, unclaimed, lendable: book.settings.strictAffinity ? 0 : lendable, byNode };
}

function ofNode(
  book: AddressBook,
  open: readonly Open[],
  node: string,
  quotaLeft: number | null,
): NodeCapacity {
  if (!book.nodes().has(node))
    return { node, available4: 0, available6: 0, limitReason: 'there is no node of that name' };
  const available = { 4: 0, 6: 0 };
  let reason: string | null = null;
  for (const pool of open) {
    const { view } = pool;
    if (!admitsNode(book, view, node)) {
      const state = book.nodeState(node);
      reason ??= state === undefined ? `pool ${view.name} is for other nodes` : `the node is ${state.state}`;
      continue;
    }
    const supply = supplyOf(book, pool, node);
    const room = roomOnNode(book, view, node);
    if (room < supply.free) reason = `maxAddressesPerNode of pool ${view.name}`;
    else if (supply.limited) reason = `maxBlocksPerNode of pool ${view.name}`;
    available[view.family] += Math.min(room, supply.free);
  }
  if (quotaLeft !== null && quotaLeft < Math.max(available[4], available[6])) reason = 'quota of the tenant';
  const capped = (count: number): number => Math.min(count, quotaLeft ?? Number.POSITIVE_INFINITY, mostExact);
  return { node, available4: capped(available[4]), available6: capped(available[6]), limitReason: reason };
}

function supplyOf(
  book: AddressBook,
  { view, unclaimed, lendable, byNode }: Open,
  node: string,
): { free: number; limited: boolean } {
  if (view.pool.kind === 'macvlan') return { free: unclaimed, limited: false };
  const { blocks, free, shared } = byNode.get(node) ?? none;
  const borrowed = book.settings.strictAffinity ? 0 : lendable - shared;
  const most = view.pool.maxBlocksPerNode;
  const claimable =
    most === null ? unclaimed : Math.min(unclaimed, Math.max(0, most - blocks) * blockSize(view));
  return { free: free + claimable + borrowed, limited: claimable < unclaimed };
}

const none: Readonly<Held> = { blocks: 0, free: 0, shared: 0 };

const blockSize = ({ pool, family }: PoolView): number => 2 ** ((family === 4 ? 32 : 128) - pool.blockSize);

const mostExact = Number.MAX_SAFE_INTEGER;
const toNumber = (count: bigint): number => (count > BigInt(mostExact) ? mostExact : Number(count));
