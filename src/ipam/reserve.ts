/**
 * Reservations: a scheduler holds addresses before it knows whether, and often where, it will start the containers.
 *
 * In: the address book, a request. Out: one transaction with the reservation's record and its addresses' (state reserved), or one
 * that prolongs, commits or cancels it. Never: fewer addresses than asked for in mode all; a reservation without an end.
 */
import { invalid, NetctlError } from '../lib/errors.ts';
import type { AddressRange } from '../model/address-range.ts';
import { type Address, type Family, familyOf } from '../model/ip.ts';
import { reservationKey } from '../model/keys.ts';
import { type Mac, macOf } from '../model/mac.ts';
import type { AddressRecord, Owner, Pool, ReleasePolicy, Reservation } from '../model/records.ts';
import type { Revision } from '../store/store.ts';
import { admitsNode, chargeTenant, poolsFor, tenantRoom, wrongNode } from './access.ts';
import type { AddressBook, Known } from './address-book.ts';
import type { Planned } from './commit.ts';
import { Draft } from './draft.ts';
import { refuseChanged } from './fenced.ts';
import { openReservation } from './kept.ts';
import { enterPlace, holdsOf, type Place, type Places, type Wish } from './places.ts';

export interface ReserveRequest {
  /** Chosen by the caller, so that a repeated request can be recognised: 1 to 64 letters, digits, `-` or `_`. */
  readonly id: string;
  readonly tenant: string;
  readonly app: string;
  /** One address (of each family asked for) per instance; or one name for all of `ipv4` and `ipv6`. */
  readonly instances: readonly string[];
  /** How many of each family, per reservation, when there is one instance. With several: 0 or 1, per instance. */
  readonly ipv4: number;
  readonly ipv6: number;
  /** Exactly these instead; for the instances in turn when there are as many. */
  readonly addresses: readonly Address[];
  /** For the addresses in turn; those without one get the MAC that goes with the address. */
  readonly macs: readonly Mac[];
  readonly kind: Pool['kind'];
  readonly pools: readonly string[];
  readonly ranges: readonly AddressRange[];
  readonly skip: readonly Address[];
  /** null: not decided yet. */
  readonly node: string | null;
  readonly onRelease: ReleasePolicy;
  /** Of the policy ttl. */
  readonly retainSeconds: number | null;
  readonly ttlSeconds: number;
  readonly mode: 'all' | 'best-effort';
  readonly now: Date;
}

export interface ReservedAddress {
  readonly address: Address;
  readonly mac: Mac;
  readonly pool: string;
  readonly gateway: Address | null;
  readonly owner: Owner;
  readonly generation: number;
}

export interface Reserved {
  readonly id: string;
  readonly expiresAt: string;
  readonly addresses: readonly ReservedAddress[];
  /** How many were asked for; more than there are addresses only in mode best-effort. */
  readonly requested: number;
}

/** Two writes for each, and a transaction of etcd takes 128. */
export const mostAddressesPerReservation = 60;

/**
 * @throws INVALID; ALREADY_EXISTS for an id in use; what `Places` throws when there are not enough (mode all), or none (best-effort)
 */
export function planReserve(book: AddressBook, places: Places, request: ReserveRequest): Planned<Reserved> {
  const asked = demands(request);
  if (book.reservation(request.id) !== undefined)
    throw new NetctlError('ALREADY_EXISTS', `reservation ${request.id} exists already`, {
      reservation: request.id,
    });
  const held: string[] = [];
  const settle = (): void => book.unhold(held);
  const chosen: { place: Place; owner: Owner }[] = [];
  // Where the quota leaves none, one is asked for all the same, so that the refusal says so.
  const most = request.mode === 'all' ? asked.length : Math.max(1, tenantRoom(book, request.tenant));
  try {
    for (const demand of asked) {
      if (chosen.length >= most) break;
      try {
        const place = choose(book, places, request, demand);
        chosen.push({ place, owner: demand.owner });
        const holds = holdsOf(place, request.node);
        book.hold(holds);
        held.push(...holds);
      } catch (error) {
        if (request.mode === 'all' || !isShortage(error)) throw error;
        if (demand === asked.at(-1) && chosen.length === 0) throw error;
      }
    }
    return { ...transaction(book, request, chosen, asked.length), settle };
  } catch (error) {
    settle();
    throw error;
  }
}

/** Which reservation, for whom (null: an operator), and at which revision if the caller says so. */
export interface ReservationCall {
  readonly id: string;
  readonly tenant: string | null;
  readonly revision?: Revision | undefined;
}

/** A new end, `ttlSeconds` from now. @throws RESERVATION_EXPIRED, NOT_OWNER, PRECONDITION_FAILED */
export function planExtend(
  book: AddressBook,
  request: ReservationCall & { readonly ttlSeconds: number; readonly now: Date },
): Planned<Reservation> {
  const known = ownReservation(book, request);
  return rewrite(request.id, known, { ...known.value, ...lasting(request.ttlSeconds, request.now) });
}

/**
 * The containers will start on this node: others cannot take the addresses any more, and there is a new `ttlSeconds` to start them.
 * @throws RESERVATION_EXPIRED, NOT_OWNER, AFFINITY_MISMATCH, PRECONDITION_FAILED
 */
export function planCommit(
  book: AddressBook,
  request: ReservationCall & { readonly node: string; readonly ttlSeconds?: number; readonly now: Date },
): Planned<Reservation> {
  const { id, node, now } = request;
  const known = ownReservation(book, request);
  if (known.value.node !== null && known.value.node !== node)
    throw new NetctlError('AFFINITY_MISMATCH', `reservation ${id} is for node ${known.value.node} already`);
  for (const address of known.value.addresses) {
    const view = book.view(book.address(address)?.value.pool ?? '');
    if (view !== undefined && !admitsNode(book, view, node)) throw wrongNode(book, [view], node);
  }
  return rewrite(id, known, {
    ...known.value,
    node,
    ...lasting(request.ttlSeconds ?? known.value.ttlSeconds, now),
  });
}

/** What it still holds is free at once: it was on no wire. A reservation that is gone already is no error. @throws NOT_OWNER */
export function planCancel(book: AddressBook, request: ReservationCall): Planned<readonly Address[]> {
  const known = book.reservation(request.id);
  if (known === undefined) return { result: [], compares: [], writes: [] };
  refuseForeign(request.id, known.value, request.tenant);
  refuseChanged(`reservation ${request.id}`, request.revision, known.modified);
  return dropReservation(book, request.id, known);
}

/** Deletes the reservation and frees what it still holds. */
export function dropReservation(
  book: AddressBook,
  id: string,
  known: Known<Reservation>,
): Planned<readonly Address[]> {
  const draft = new Draft();
  const key = reservationKey(id);
  draft.compareTo(key, known).delete(key);
  const freed: Address[] = [];
  for (const address of known.value.addresses) {
    const record = book.address(address);
    if (record?.value.state !== 'reserved' || record.value.reservation !== id) continue;
    draft.deleteAddress(address, record);
    freed.push(address);
  }
  return { result: freed, ...draft.step() };
}

interface Demand {
  readonly owner: Owner;
  readonly family: Family;
  readonly address: Address | null;
}

function demands(request: ReserveRequest): Demand[] {
  const { id, tenant, app, instances, ipv4, ipv6, addresses } = request;
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(id)) throw invalid('id', id, '1 to 64 letters, digits, "-" or "_"');
  if (instances.length === 0) throw invalid('instances', instances, 'at least one name');
  for (const [field, count] of Object.entries({ ipv4, ipv6 })) {
    const most = instances.length > 1 ? 1 : mostAddressesPerReservation;
    if (!Number.isInteger(count) || count < 0 || count > most)
      throw invalid(
        field,
        count,
        `a number from 0 to ${most}${instances.length > 1 ? ' (for each instance)' : ''}`,
      );
  }
  const owners = instances.map((instance) => ({ tenant, app, instance }));
  const wanted =
    addresses.length > 0
      ? explicitDemands(addresses, owners)
      : owners.flatMap((owner) => [
          ...Array.from({ length: ipv4 }, (): Demand => ({ owner, family: 4, address: null })),
          ...Array.from({ length: ipv6 }, (): Demand => ({ owner, family: 6, address: null })),
        ]);
  if (wanted.length === 0 || wanted.length > mostAddressesPerReservation)
    throw invalid(
      'reservation',
      wanted.length,
      `1 to ${mostAddressesPerReservation} addresses; for more, several reservations`,
    );
  return wanted;
}

function explicitDemands(addresses: readonly Address[], owners: readonly Owner[]): Demand[] {
  if (owners.length > 1 && owners.length !== addresses.length)
    throw invalid('addresses', addresses, `one address for each of the ${owners.length} instances`);
  if (new Set(addresses).size < addresses.length) throw invalid('addresses', addresses, 'each address once');
  return addresses.map((address, index) => ({
    owner: owners[index] ?? owners[0]!,
    family: familyOf(address),
    address,
  }));
}

function choose(book: AddressBook, places: Places, request: ReserveRequest, demand: Demand): Place {
  const { node, tenant, kind, pools, ranges, skip, now } = request;
  const wish: Wish = { node, tenant, kind, pools, ranges, skip: new Set(skip), shared: true, now };
  if (demand.address !== null) return places.explicit(wish, demand.address);
  const views = poolsFor(book, wish).filter(({ family }) => family === demand.family);
  if (views.length === 0)
    throw new NetctlError('FAMILY_UNSUPPORTED', `there is no IPv${demand.family} pool to reserve from`);
  return places.automatic(wish, views);
}

function transaction(
  book: AddressBook,
  request: ReserveRequest,
  chosen: readonly { place: Place; owner: Owner }[],
  requested: number,
): Omit<Planned<Reserved>, 'settle'> {
  const { id, tenant, app, node, ipv4, ipv6, ttlSeconds, now } = request;
  const draft = new Draft();
  const addresses = chosen.map(({ place, owner }, index): ReservedAddress => {
    const mac = request.macs[index] ?? macOf(place.address);
    enterPlace(draft, place);
    draft.setAddress(place.address, undefined, recordOf(request, place, owner, mac));
    const { name, pool } = place.view;
    return { address: place.address, mac, pool: name, gateway: pool.gateway, owner, generation: 1 };
  });
  const reservation: Reservation = {
    tenant,
    app,
    node,
    addresses: addresses.map(({ address }) => address),
    requested: { ipv4, ipv6 },
    createdAt: now.toISOString(),
    ...lasting(ttlSeconds, now),
  };
  draft.compareTo(reservationKey(id), undefined).put(reservationKey(id), reservation);
  chargeTenant(book, draft, tenant, chosen.length);
  return { result: { id, expiresAt: reservation.expiresAt, addresses, requested }, ...draft.step() };
}

function recordOf(request: ReserveRequest, place: Place, owner: Owner, mac: Mac): AddressRecord {
  return {
    pool: place.view.name,
    state: 'reserved',
    owner,
    node: request.node,
    endpoint: null,
    container: null,
    mac,
    onRelease: request.onRelease,
    ttlSeconds: request.retainSeconds,
    generation: 1,
    allocatedAt: request.now.toISOString(),
    cooldownUntil: null,
    reservation: request.id,
    expiresAt: null,
    borrowed: place.borrowed,
    conflict: null,
  };
}

function lasting(ttlSeconds: number, now: Date): Pick<Reservation, 'ttlSeconds' | 'expiresAt'> {
  if (!Number.isInteger(ttlSeconds) || ttlSeconds < 1 || ttlSeconds > 86400)
    throw invalid('ttlSeconds', ttlSeconds, 'a whole number of seconds from 1 to 86400');
  return { ttlSeconds, expiresAt: new Date(now.getTime() + ttlSeconds * 1000).toISOString() };
}

function ownReservation(
  book: AddressBook,
  { id, tenant, revision, now }: ReservationCall & { readonly now: Date },
): Known<Reservation> {
  const known = openReservation(book, id, now);
  refuseForeign(id, known.value, tenant);
  refuseChanged(`reservation ${id}`, revision, known.modified);
  return known;
}

function refuseForeign(id: string, reservation: Reservation, tenant: string | null): void {
  if (tenant !== null && reservation.tenant !== tenant)
    throw new NetctlError('NOT_OWNER', `reservation ${id} is not one of tenant ${tenant}`, {
      reservation: id,
    });
}

function rewrite(id: string, known: Known<Reservation>, next: Reservation): Planned<Reservation> {
  const key = reservationKey(id);
  return { result: next, ...new Draft().compareTo(key, known).put(key, next).step() };
}

const shortages: readonly string[] = [
  'POOL_EXHAUSTED',
  'NODE_LIMIT',
  'ADDRESS_UNAVAILABLE',
  'ADDRESS_IN_USE',
  'ADDRESS_RESERVED',
  'ADDRESS_QUARANTINED',
];
const isShortage = (error: unknown): boolean =>
  error instanceof NetctlError && shortages.includes(error.code);
