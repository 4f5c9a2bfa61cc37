/**
 * Transfer: an address gets another owner or another node without ever being free in between.
 *
 * In: the address book, the generation that the caller holds. Out: a transaction; the address is retained for its new owner, whose
 * next bind or attach takes it. Never: two owners; an address that stays with nobody (with the policy delete it is held for a while only).
 */
import { NetctlError } from '../lib/errors.ts';
import type { AddressRecord, Owner } from '../model/records.ts';
import { admitsNode, chargeTenant, wrongNode } from './access.ts';
import type { AddressBook } from './address-book.ts';
import { blockOf } from './blocks.ts';
import type { Planned } from './commit.ts';
import { Draft } from './draft.ts';
import { type Fence, fenced } from './fenced.ts';
import type { PoolView } from './pool-view.ts';
import { defaultRetainSeconds, later } from './release.ts';

export interface TransferRequest extends Fence {
  /** null: it stays the owner's. */
  readonly toOwner: Owner | null;
  /** null: wherever it is bound next. */
  readonly toNode: string | null;
  /** With the policy delete: how long the new owner has to bind it. */
  readonly holdSeconds?: number;
  /** Also from a node that decides about the address alone: for an operator who knows that it is down. */
  readonly force?: boolean;
  /** The node of this process. */
  readonly self: string;
  readonly now: Date;
}

export const defaultHoldSeconds = 600;

/**
 * `was`: who had it; a container that still uses it must be torn down, its node gets STALE_GENERATION from now on.
 * @throws STALE_GENERATION, NOT_OWNER, ADDRESS_QUARANTINED, CONFLICT, AFFINITY_MISMATCH, QUOTA_EXCEEDED
 */
export function planTransfer(
  book: AddressBook,
  request: TransferRequest,
): Planned<{ generation: number; was: AddressRecord }> {
  const { address, toNode, now } = request;
  const before = fenced(book, request);
  const record = before.value;
  const owner = request.toOwner ?? record.owner;
  if (request.tenant !== null && owner.tenant !== request.tenant)
    throw new NetctlError(
      'NOT_OWNER',
      `address ${address} cannot go from tenant ${request.tenant} to another`,
    );
  if (record.state === 'quarantined')
    throw new NetctlError(
      'ADDRESS_QUARANTINED',
      `address ${address} is kept back: another machine answered for it`,
      {
        address,
        ...record.conflict,
      },
    );
  if (record.state === 'cooldown')
    throw new NetctlError('CONFLICT', `address ${address} was released: there is nothing to transfer`, {
      address,
    });
  const view = book.view(record.pool);
  if (view === undefined) throw new NetctlError('POOL_NOT_FOUND', `there is no pool ${record.pool}`);
  if (!view.isFor(owner.tenant))
    throw new NetctlError(
      'NOT_OWNER',
      `pool ${record.pool} of address ${address} is not for tenant ${owner.tenant}`,
    );
  if (!admitsNode(book, view, toNode)) throw wrongNode(book, [view], toNode);
  const generation = record.generation + 1;
  const draft = new Draft().setAddress(address, before, {
    ...record,
    state: 'retained',
    owner,
    node: toNode,
    endpoint: null,
    container: null,
    generation,
    reservation: null,
    expiresAt: expiryOf(record, request, now),
    borrowed: false,
  });
  shareBlock(book, draft, view, request);
  if (owner.tenant !== record.owner.tenant) chargeTenant(book, draft, owner.tenant, 1);
  return { result: { generation, was: record }, ...draft.step() };
}

/** From now on others write the record too, so its block cannot stay one that a node decides about alone. */
function shareBlock(book: AddressBook, draft: Draft, view: PoolView, request: TransferRequest): void {
  if (view.pool.kind === 'macvlan') return;
  const cidr = blockOf(view.pool, request.address);
  const block = book.block(cidr);
  if (block === undefined || block.value.shared) return;
  if (block.value.node !== request.self && request.force !== true)
    throw new NetctlError(
      'AFFINITY_MISMATCH',
      `address ${request.address} is in block ${cidr}, about which node ${block.value.node} decides alone: ask its agent, or force it if the node is down`,
      { address: request.address, block: cidr, node: block.value.node },
    );
  draft.setBlock(cidr, block, { ...block.value, shared: true });
}

function expiryOf(
  { onRelease, ttlSeconds }: AddressRecord,
  request: TransferRequest,
  now: Date,
): string | null {
  if (onRelease === 'delete') return later(now, request.holdSeconds ?? defaultHoldSeconds);
  return onRelease === 'ttl' ? later(now, ttlSeconds ?? defaultRetainSeconds) : null;
}
