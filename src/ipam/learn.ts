/**
 * Catching up with what other agents have just kept for an owner, or reserved.
 *
 * In: an owner or the id of a reservation. Out: the records about it, put into the picture. Never: a question to the cluster where
 * the book shows already that something waits (the transaction's compares tell whether that is still so).
 */
import type { Address } from '../model/ip.ts';
import { addressKey, ownerPrefix, reservationKey } from '../model/keys.ts';
import { type Owner, reservationSchema } from '../model/records.ts';
import type { Store } from '../store/store.ts';
import type { AddressBook } from './address-book.ts';
import type { Sink } from './commit.ts';
import { takeable } from './kept.ts';

export interface LearnParts {
  readonly store: Store;
  readonly picture: Sink;
  readonly book: AddressBook;
}

/** @throws STORE_UNAVAILABLE */
export async function learnKept(
  { store, picture, book }: LearnParts,
  owner: Owner | null,
  reservation: string | null,
): Promise<void> {
  if (store.refresh === undefined || isKnown(book, owner, reservation)) return;
  await store.refresh();
  const keys: string[] = [];
  if (owner !== null) {
    const { entries } = await store.list(ownerPrefix(owner));
    keys.push(...entries.map(({ key }) => addressKey(key.slice(key.lastIndexOf('/') + 1) as Address)));
  }
  if (reservation !== null) {
    const key = reservationKey(reservation);
    const held = reservationSchema.safeParse((await store.get(key))?.value);
    keys.push(key, ...(held.data?.addresses ?? []).map(addressKey));
  }
  for (const key of keys) picture.read(key, await store.get(key));
}

function isKnown(book: AddressBook, owner: Owner | null, reservation: string | null): boolean {
  if (reservation !== null) return book.reservation(reservation) !== undefined;
  return owner === null || [...book.addressesOf(owner)].some((each) => takeable(book.address(each)!.value));
}
