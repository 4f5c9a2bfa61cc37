/**
 * Who may take addresses from where: pools that are disabled, of another kind, kept for other tenants or other nodes; the limits of
 * a node and of a tenant.
 *
 * In: the address book, names. Out: pools in order of preference, or one error that names the limit. Never: a hint at a pool, an
 * address or an owner that the tenant cannot see.
 */
import { NetctlError } from '../lib/errors.ts';
import { tenantUseKey } from '../model/keys.ts';
import type { AddressRecord, Pool } from '../model/records.ts';
import type { AddressBook } from './address-book.ts';
import { heldCount, usedOnNode } from './counts.ts';
import type { Draft } from './draft.ts';
import type { PoolView } from './pool-view.ts';

export interface Access {
  /** Where the addresses will be used; null while that is not decided. */
  readonly node: string | null;
  readonly tenant: string;
  readonly kind: Pool['kind'];
  /** In order of preference; empty means every pool that is open to all of this. */
  readonly pools: readonly string[];
}

/** @throws POOL_NOT_FOUND, POOL_DISABLED, AFFINITY_MISMATCH */
export function poolsFor(book: AddressBook, access: Access): readonly PoolView[] {
  if (access.pools.length > 0) return access.pools.map((name) => usablePool(book, access, name));
  const open = book
    .views()
    .filter(({ pool }) => pool.kind === access.kind && !pool.disabled)
    .filter((view) => view.isFor(access.tenant));
  const here = open.filter((view) => admitsNode(book, view, access.node));
  if (here.length > 0) return here;
  if (open.length > 0) throw wrongNode(book, open, access.node);
  throw new NetctlError('POOL_NOT_FOUND', 'there is no enabled pool: add one with `netctl pool add CIDR`');
}

/** @throws POOL_NOT_FOUND, POOL_DISABLED, AFFINITY_MISMATCH */
export function usablePool(book: AddressBook, access: Access, name: string): PoolView {
  const view = book.view(name);
  const refuse = (message: string) => new NetctlError('POOL_NOT_FOUND', message, { pool: name });
  if (view === undefined || !view.isFor(access.tenant))
    throw refuse(`there is no pool ${name}: see \`netctl pool show\``);
  if (view.pool.disabled) throw new NetctlError('POOL_DISABLED', `pool ${name} is disabled`, { pool: name });
  if (view.pool.kind !== access.kind) throw refuse(`pool ${name} is not for ${access.kind} endpoints`);
  if (!admitsNode(book, view, access.node)) throw wrongNode(book, [view], access.node);
  return view;
}

/** How many more addresses of the pool the node may have; those that requests in flight want count. */
export function roomOnNode(book: AddressBook, view: PoolView, node: string | null): number {
  const limit = view.pool.maxAddressesPerNode;
  if (node === null || limit === null) return Number.POSITIVE_INFINITY;
  const used = usedOnNode(book.counts.ofNodeInPool(node, view.name));
  return Math.max(0, limit - used - book.heldBy(nodeHold(node, view.name)));
}

/** Held once for each address that a request in flight wants for the node. */
export const nodeHold = (node: string | null, pool: string): string => `node ${node ?? ''} ${pool}`;

/**
 * Counts `count` more addresses for the tenant. A tenant without a limit costs nothing; for one with a limit the transaction
 * rewrites the record of its use, so that of two transactions that take its last address one has to look again.
 * @throws QUOTA_EXCEEDED
 */
export function chargeTenant(book: AddressBook, draft: Draft, tenant: string, count: number): void {
  const limit = book.tenant(tenant)?.maxAddresses ?? null;
  if (limit === null || count === 0) return;
  const used = tenantUsed(book, tenant);
  if (used + count > limit) {
    throw new NetctlError(
      'QUOTA_EXCEEDED',
      `tenant ${tenant} has ${used} of at most ${limit} addresses and asks for ${count} more`,
      { tenant, used, limit, asked: count },
    );
  }
  const key = tenantUseKey(tenant);
  const use = book.tenantUse(tenant);
  draft.compareTo(key, use).put(key, { used: used + count, charges: (use?.value.charges ?? 0) + 1 });
}

/** How many more addresses the tenant may have; Infinity without a quota. */
export function tenantRoom(book: AddressBook, tenant: string): number {
  const limit = book.tenant(tenant)?.maxAddresses ?? Number.POSITIVE_INFINITY;
  return Math.max(0, limit - tenantUsed(book, tenant));
}

/**
 * Addresses of the tenant, those in cooldown excepted. What the last writer counted is the more exact number until everything that
 * was written before it has arrived here.
 */
export function tenantUsed(book: AddressBook, tenant: string): number {
  const counted = heldCount(book.counts.of('tenant', tenant));
  const use = book.tenantUse(tenant);
  return use === undefined || book.revision >= use.modified ? counted : Math.max(counted, use.value.used);
}

/**
 * Whether an address that is reserved or retained may be used on the node. A disabled pool gives nothing new; what was promised stays.
 * @throws AFFINITY_MISMATCH, NODE_LIMIT
 */
export function admitKept(book: AddressBook, view: PoolView, record: AddressRecord, node: string): void {
  if (!admitsNode(book, view, node)) throw wrongNode(book, [view], node);
  const isCounted = record.node === node && record.state === 'reserved';
  if (!isCounted && roomOnNode(book, view, node) === 0) throw nodeLimit(view, node);
}

export function nodeLimit({ name, pool }: PoolView, node: string | null): NetctlError {
  return new NetctlError(
    'NODE_LIMIT',
    `node ${node} may have at most ${pool.maxAddressesPerNode} addresses of pool ${name} (maxAddressesPerNode)`,
    { node, pool: name, limit: pool.maxAddressesPerNode },
  );
}

export function admitsNode(book: AddressBook, view: PoolView, node: string | null): boolean {
  return node === null || (book.nodeState(node) === undefined && view.admits(book.labelsOf(node)));
}

export function wrongNode(book: AddressBook, views: readonly PoolView[], node: string | null): NetctlError {
  const state = node === null ? undefined : book.nodeState(node);
  if (state !== undefined)
    return new NetctlError('AFFINITY_MISMATCH', `node ${node} is ${state.state}: it gets no addresses`, {
      node,
      state: state.state,
    });
  const wanted = views.map(({ name, pool }) => `${name} (${pool.nodeSelector})`).join(', ');
  return new NetctlError(
    'AFFINITY_MISMATCH',
    `node ${node} does not match the node selector of pool ${wanted}`,
    {
      node,
      pools: views.map(({ name }) => name),
    },
  );
}
