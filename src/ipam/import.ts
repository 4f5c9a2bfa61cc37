/**
 * Import: an address that another system gave out becomes an owner's here, kept for it until its container comes.
 *
 * In: the address book, address and owner. Out: a transaction. Never: an address taken from somebody who has it here; one in a block about
 * which another node decides alone.
 */
import { NetctlError } from '../lib/errors.ts';
import type { Address } from '../model/ip.ts';
import { type Mac, macOf } from '../model/mac.ts';
import type { AddressRecord, Owner, ReleasePolicy } from '../model/records.ts';
import { chargeTenant } from './access.ts';
import { textOf } from './address-book.ts';
import type { Planned } from './commit.ts';
import { Draft } from './draft.ts';
import type { PlanContext } from './operations.ts';
import { enterPlace, holdsOf } from './places.ts';

export interface ImportRequest {
  readonly address: Address;
  readonly owner: Owner;
  /** null: the one that goes with the address. */
  readonly mac: Mac | null;
  readonly onRelease: ReleasePolicy;
  readonly ttlSeconds: number | null;
}

export type Imported = 'imported' | 'unchanged';

/**
 * With the policy delete it is kept as with immutable until a container had it: without one, nothing would say when it is free.
 * @throws what `Places.explicit` throws; QUOTA_EXCEEDED
 */
export function planImport(
  { book, places }: PlanContext,
  { address, owner, mac, onRelease, ttlSeconds }: ImportRequest,
  now: Date,
): Planned<Imported> {
  const known = book.address(address)?.value;
  if (known !== undefined && known.state !== 'cooldown' && textOf(known.owner) === textOf(owner))
    return { result: 'unchanged', compares: [], writes: [] };
  const view = book.viewOf(address);
  if (view === undefined)
    throw new NetctlError('OUT_OF_RANGE', `address ${address} is in no pool: add one first`, { address });
  const wish = {
    ...{ node: null, tenant: owner.tenant, kind: view.pool.kind, pools: [], ranges: [] },
    ...{ skip: new Set<Address>(), shared: true, now },
  };
  const place = places.explicit(wish, address);
  const record: AddressRecord = {
    pool: view.name,
    state: 'retained',
    owner,
    node: null,
    endpoint: null,
    container: null,
    mac: mac ?? macOf(address),
    onRelease,
    ttlSeconds,
    generation: 1,
    allocatedAt: now.toISOString(),
    cooldownUntil: null,
    reservation: null,
    expiresAt: null,
    borrowed: place.borrowed,
    conflict: null,
  };
  const draft = new Draft();
  enterPlace(draft, place);
  draft.setAddress(address, undefined, record);
  chargeTenant(book, draft, owner.tenant, 1);
  const holds = holdsOf(place, null);
  book.hold(holds);
  return { result: 'imported', ...draft.step(), settle: () => book.unhold(holds) };
}
