/**
 * Where addresses live, as this node sees it.
 *
 * In: the address book. Out: answers about one address. Never: an address of no pool taken for one to announce.
 */
import type { AddressBook } from '../ipam/address-book.ts';
import { type Address, addressBits, familyOf } from '../model/ip.ts';

/** Of a routed pool, in a block that another node has (or nobody), or that is nothing else: the others must be told of it by itself. */
export function livesAway(book: AddressBook, address: Address, node: string): boolean {
  const view = book.viewOf(address);
  if (view === undefined || view.pool.kind === 'macvlan') return false;
  const isWholeBlock = view.pool.blockSize === addressBits(familyOf(address));
  return isWholeBlock || book.blockAt(view.pool, address)?.value.node !== node;
}

/** Another node or owner has the address now, or is to have it, though an endpoint of this node may still stand. */
export function hasMoved(book: AddressBook, address: Address, node: string): boolean {
  const record = book.address(address)?.value;
  if (record === undefined) return false;
  return record.node !== node || !['bound', 'active'].includes(record.state);
}
