/**
 * Release: the half of a transaction that gives addresses back, and what happens to them afterwards (cooldown, then free;
 * a block without addresses goes back to its pool).
 *
 * In: the address book. Out: compares and writes. Never: an address released by its number alone (the record's revision fences
 * it), an address free before its cooldown is over.
 */
import type { Address, Cidr } from '../model/ip.ts';
import { addressKey, blockKey, ownerKey } from '../model/keys.ts';
import type { AddressRecord } from '../model/records.ts';
import type { Compare, Json, Write } from '../store/store.ts';
import type { AddressBook } from './address-book.ts';

export interface Step {
  readonly compares: readonly Compare[];
  readonly writes: readonly Write[];
}

/**
 * Gives back the addresses that the endpoint holds; others in the list (already released, given to somebody else) are left
 * alone. `used`: false for addresses that were never on a wire, which are free at once.
 */
export function planRelease(
  book: AddressBook,
  endpoint: string,
  addresses: readonly Address[],
  now: Date,
  used = true,
): Step {
  const compares: Compare[] = [];
  const writes: Write[] = [];
  for (const address of addresses) {
    const known = book.address(address);
    if (known === undefined || known.value.endpoint !== endpoint || known.value.state === 'cooldown')
      continue;
    const key = addressKey(address);
    const seconds = used ? (book.pool(known.value.pool)?.cooldownSeconds ?? 0) : 0;
    compares.push({ kind: 'modified', key, revision: known.modified });
    writes.push({ kind: 'delete', key: ownerKey(known.value.owner, address) });
    if (seconds === 0) {
      writes.push({ kind: 'delete', key });
    } else {
      const cooling: AddressRecord = {
        ...known.value,
        state: 'cooldown',
        node: known.value.node,
        endpoint: null,
        generation: known.value.generation + 1,
        cooldownUntil: new Date(now.getTime() + seconds * 1000).toISOString(),
      };
      writes.push({ kind: 'put', key, value: cooling as unknown as Json });
    }
  }
  return { compares, writes };
}

/** Frees what has cooled down on this node; null when there is nothing. At most `limit` addresses a step. */
export function planExpiry(book: AddressBook, node: string, now: Date, limit = 256): Step | null {
  const compares: Compare[] = [];
  const writes: Write[] = [];
  for (const address of book.cooling()) {
    const known = book.address(address);
    if (known?.value.node !== node || Date.parse(known.value.cooldownUntil ?? '') > now.getTime()) continue;
    compares.push({ kind: 'modified', key: addressKey(address), revision: known.modified });
    writes.push({ kind: 'delete', key: addressKey(address) });
    if (writes.length >= limit) break;
  }
  return writes.length > 0 ? { compares, writes } : null;
}

/** Gives an empty block of this node back to its pool; null when none is empty. */
export function planGiveBack(book: AddressBook, node: string): (Step & { readonly block: Cidr }) | null {
  for (const [block, { value, modified }] of book.blocks()) {
    if (value.node !== node || !book.isEmpty(block)) continue;
    const key = blockKey(block);
    return {
      block,
      compares: [{ kind: 'modified', key, revision: modified }],
      writes: [{ kind: 'delete', key }],
    };
  }
  return null;
}
