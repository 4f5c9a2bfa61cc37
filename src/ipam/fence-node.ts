/**
 * Taking a node out of use before anything is taken from it: drained it gets no new addresses; fenced it is taken for dead, and others may
 * move its fixed addresses one by one.
 *
 * In: the address book, the node, who says so. Out: bounded transactions. Never: an address freed or moved here: what becomes of each is the
 * scheduler's decision.
 */
import type { Address } from '../model/ip.ts';
import { nodeStateKey } from '../model/keys.ts';
import type { AddressRecord, NodeState } from '../model/records.ts';
import type { AddressBook } from './address-book.ts';
import { Draft, type Step } from './draft.ts';

const blocksPerStep = 50;

/** @param state null for a node that is in use again */
export function planNodeState(node: string, state: NodeState | null): Step {
  const key = nodeStateKey(node);
  return (state === null ? new Draft().delete(key) : new Draft().put(key, state)).step();
}

/** The next transaction by which all decide about a block about which the node decided alone, or null. */
export function planShareBlocks(book: AddressBook, node: string): Step | null {
  const draft = new Draft();
  for (const [cidr, known] of book.blocks()) {
    if (known.value.node !== node || known.value.shared) continue;
    draft.setBlock(cidr, known, { ...known.value, shared: true });
    if (draft.size >= blocksPerStep) break;
  }
  return draft.size === 0 ? null : draft.step();
}

export interface Affected {
  readonly address: Address;
  readonly record: AddressRecord;
}

/** What is in use on the node, or meant for it. */
export function affectedBy(book: AddressBook, node: string): Affected[] {
  return [...book.addresses()]
    .filter(([, { value }]) => value.node === node && value.state !== 'cooldown')
    .map(([address, { value }]) => ({ address, record: value }));
}
