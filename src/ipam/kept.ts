/**
 * Addresses that wait for somebody: held by a reservation, or retained for their owner.
 *
 * In: the address book, an owner or a reservation's id. Out: addresses, in the order in which to take them. Never: one of a
 * reservation that is over.
 */
import { NetctlError } from '../lib/errors.ts';
import { type Address, addressValue } from '../model/ip.ts';
import type { AddressRecord, Owner, Reservation } from '../model/records.ts';
import { admitsNode } from './access.ts';
import { type AddressBook, type Known, textOf } from './address-book.ts';

interface Taker {
  readonly node: string;
  readonly owner: Owner;
  readonly now: Date;
}

export const takeable = ({ state }: AddressRecord): boolean => state === 'reserved' || state === 'retained';

/**
 * What is kept for the owner: takeable ones first, then fixed ones that another endpoint still uses (for an error that says so).
 * Reserved ones only while their reservation runs and is for this node.
 */
export function heldForOwner(book: AddressBook, { node, owner, now }: Taker): Address[] {
  const kept = [...book.addressesOf(owner)].filter((address) => {
    const record = book.address(address)!.value;
    if (record.state === 'reserved')
      return isOpen(book.reservation(record.reservation ?? '')?.value, node, now);
    return record.state === 'retained' || (record.onRelease !== 'delete' && record.state !== 'quarantined');
  });
  const rank = (address: Address): number => (takeable(book.address(address)!.value) ? 0 : 1);
  return kept.sort((a, b) => rank(a) - rank(b) || byValue(a, b));
}

/**
 * What the reservation still holds, the owner's own first.
 * @throws RESERVATION_EXPIRED when it is over or used up, AFFINITY_MISMATCH when it is for another node
 */
export function heldForReservation(book: AddressBook, id: string, { node, owner, now }: Taker): Address[] {
  const { value } = openReservation(book, id, now);
  if (value.node !== null && value.node !== node)
    throw new NetctlError(
      'AFFINITY_MISMATCH',
      `reservation ${id} is for node ${value.node}, not for ${node}`,
    );
  const held = value.addresses.filter((address) => {
    const record = book.address(address)?.value;
    return record?.state === 'reserved' && record.reservation === id;
  });
  if (held.length === 0)
    throw new NetctlError('RESERVATION_EXPIRED', `reservation ${id} has no address left`, {
      reservation: id,
    });
  const rank = (address: Address): number =>
    textOf(book.address(address)!.value.owner) === textOf(owner) ? 0 : 1;
  return held.sort((a, b) => rank(a) - rank(b));
}

/** @throws RESERVATION_EXPIRED */
export function openReservation(book: AddressBook, id: string, now: Date): Known<Reservation> {
  const reservation = book.reservation(id);
  if (reservation === undefined)
    throw new NetctlError('RESERVATION_EXPIRED', `there is no reservation ${id} (any more): reserve anew`, {
      reservation: id,
    });
  if (Date.parse(reservation.value.expiresAt) <= now.getTime())
    throw new NetctlError(
      'RESERVATION_EXPIRED',
      `reservation ${id} ended at ${reservation.value.expiresAt}: reserve anew`,
      { reservation: id, expiresAt: reservation.value.expiresAt },
    );
  return reservation;
}

function isOpen(reservation: Reservation | undefined, node: string, now: Date): boolean {
  if (reservation === undefined || Date.parse(reservation.expiresAt) <= now.getTime()) return false;
  return reservation.node === null || reservation.node === node;
}

function byValue(a: Address, b: Address): number {
  const [x, y] = [addressValue(a), addressValue(b)];
  return x < y ? -1 : x > y ? 1 : 0;
}

export interface KeptPlaces {
  readonly instance: string;
  readonly addresses: Address[];
  /** The node of the container that has one of them, or null. */
  readonly usedOn: string | null;
  /** Of the candidates, those whose containers may have all of them. */
  readonly nodes: string[];
}

/** Where each owner could run with what is kept for it. */
export function whereKept(
  book: AddressBook,
  owners: readonly Owner[],
  candidates: readonly string[],
): KeptPlaces[] {
  return owners.map((owner) => {
    const addresses = [...book.addressesOf(owner)].sort(byValue);
    const records = addresses.map((address) => book.address(address)!.value);
    const usable = (node: string): boolean =>
      records.every((record) => {
        const view = book.view(record.pool);
        const committed =
          record.state === 'reserved' ? book.reservation(record.reservation ?? '')?.value.node : null;
        const isElsewhere = committed !== null && committed !== undefined && committed !== node;
        return (
          view !== undefined && record.state !== 'quarantined' && !isElsewhere && admitsNode(book, view, node)
        );
      });
    const user = records.find(({ state }) => state === 'bound' || state === 'active');
    return {
      instance: owner.instance,
      addresses,
      usedOn: user?.node ?? null,
      nodes: candidates.filter(usable),
    };
  });
}
