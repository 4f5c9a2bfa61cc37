/**
 * A node that will not come back: its blocks go back to their pools, its containers' addresses to their owners or into cooldown.
 *
 * In: the address book. Out: one bounded transaction at a time, claims first, so that a node that lives after all tears down what it
 * has. Never: an address given out again before its cooldown is over; a fixed address taken from its owner.
 */
import type { Address, Cidr } from '../model/ip.ts';
import { blockKey } from '../model/keys.ts';
import type { AddressRecord } from '../model/records.ts';
import type { AddressBook } from './address-book.ts';
import { Draft, type Step } from './draft.ts';
import { leave } from './release.ts';

export interface Holdings {
  readonly blocks: readonly Cidr[];
  /** In use there, or cooling down. */
  readonly addresses: readonly Address[];
}

export function holdingsOf(book: AddressBook, node: string): Holdings {
  const blocks = [...book.blocks()].filter(([, { value }]) => value.node === node).map(([cidr]) => cidr);
  const addresses = [...book.addresses()]
    .filter(([, { value }]) => value.node === node && isThere(value))
    .map(([address]) => address);
  return { blocks, addresses };
}

/** The next step; null when the node has nothing more. @param limit of records written */
export function planRemoveNode(book: AddressBook, node: string, now: Date, limit = 60): Step | null {
  const { blocks, addresses } = holdingsOf(book, node);
  const draft = new Draft();
  for (const block of blocks.slice(0, limit))
    draft.compareTo(blockKey(block), book.block(block)).delete(blockKey(block));
  if (draft.size > 0) return draft.step();
  for (const address of addresses) {
    if (draft.size >= limit) break;
    const known = book.address(address)!;
    // On no node from now on: any of the others sees to the end of its cooldown.
    if (known.value.state === 'cooldown') draft.setAddress(address, known, { ...known.value, node: null });
    else leave(book, draft, address, known, now, true, null);
  }
  return draft.size > 0 ? draft.step() : null;
}

const isThere = ({ state, container, endpoint }: AddressRecord): boolean =>
  state === 'bound' || state === 'active' || state === 'cooldown' || container !== null || endpoint !== null;
