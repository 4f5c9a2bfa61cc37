/**
 * Blocks of routed pools: a node claims one, and gives it back when it is empty.
 *
 * In: the address book. Out: one transaction. Never: a block given back that has an address. An exclusive block has no writer but its
 * node, so the node knows; a shared one is closed first, and deleted when everything that was written before that has arrived.
 */
import { NetctlError } from '../lib/errors.ts';
import type { Cidr } from '../model/ip.ts';
import { blockKey, poolKey } from '../model/keys.ts';
import type { Block } from '../model/records.ts';
import { usablePool } from './access.ts';
import type { AddressBook, Known } from './address-book.ts';
import { candidateBlocks } from './blocks.ts';
import type { Planned } from './commit.ts';
import { Draft, type Step } from './draft.ts';

export interface ClaimRequest {
  readonly pool: string;
  readonly node: string;
  readonly tenant: string;
  readonly shared: boolean;
  readonly now: Date;
}

/** @throws POOL_NOT_FOUND, AFFINITY_MISMATCH, NODE_LIMIT, POOL_EXHAUSTED */
export function planClaim(book: AddressBook, request: ClaimRequest): Planned<Cidr> {
  const { pool, node, tenant, shared, now } = request;
  const view = usablePool(book, { node, tenant, kind: 'routed', pools: [pool] }, pool);
  const most = view.pool.maxBlocksPerNode;
  if (most !== null && book.blocksOf(node, pool).size >= most)
    throw new NetctlError(
      'NODE_LIMIT',
      `node ${node} may have at most ${most} blocks of pool ${pool} (maxBlocksPerNode)`,
    );
  const isFree = (cidr: Cidr): boolean => book.block(cidr) === undefined && !book.isHeld(cidr);
  const [block] = candidateBlocks(view.pool, node, isFree);
  if (block === undefined)
    throw new NetctlError('POOL_EXHAUSTED', `pool ${pool} has no block left for node ${node}`);
  const record: Block = { pool, node, claimedAt: now.toISOString(), shared, closing: false };
  const draft = new Draft().compareTo(poolKey(pool), view).setBlock(block, undefined, record);
  book.hold([block]);
  return { result: block, ...draft.step(), settle: () => book.unhold([block]) };
}

/** One step towards an empty block of this node going back to its pool; null when there is nothing to do (yet). */
export function planGiveBack(book: AddressBook, node: string): (Step & { readonly block: Cidr }) | null {
  for (const { name } of book.views()) {
    for (const block of book.blocksOf(node, name)) {
      const known = book.block(block)!;
      if (!book.isEmpty(block) && !known.value.closing) continue;
      const step = giveBack(book, block, known);
      if (step !== null) return { block, ...step };
    }
  }
  return null;
}

/**
 * The same for one block. The result says whether it is gone; `closing` means: ask again when the book has caught up.
 * @throws NOT_FOUND, IN_USE
 */
export function planGiveBackBlock(
  book: AddressBook,
  { block, node }: { readonly block: Cidr; readonly node: string },
): Planned<'gone' | 'closing'> {
  const known = book.block(block);
  if (known?.value.node !== node)
    throw new NetctlError(
      'NOT_FOUND',
      `node ${node} has no block ${block}: see \`netctl ipam show --blocks\``,
      { block },
    );
  if (!book.isEmpty(block)) throw new NetctlError('IN_USE', `block ${block} has addresses in use`, { block });
  const step = giveBack(book, block, known);
  if (step === null) return { result: 'closing', compares: [], writes: [] };
  return { result: step.writes.some(({ kind }) => kind === 'delete') ? 'gone' : 'closing', ...step };
}

function giveBack(book: AddressBook, block: Cidr, known: Known<Block>): Step | null {
  const draft = new Draft();
  const { shared, closing } = known.value;
  if (!shared) return draft.compareTo(blockKey(block), known).delete(blockKey(block)).step();
  if (!closing) return draft.setBlock(block, known, { ...known.value, closing: true }).step();
  if (book.revision < known.modified) return null;
  if (!book.isEmpty(block)) return draft.setBlock(block, known, { ...known.value, closing: false }).step();
  return draft.compareTo(blockKey(block), known).delete(blockKey(block)).step();
}
