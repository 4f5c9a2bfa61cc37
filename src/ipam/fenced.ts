/**
 * The one gate in front of every change of an address that exists: is it the caller's, and is it still what the caller means.
 *
 * In: the address book, address, generation, tenant. Out: the record. Never: a hint whether another tenant has the address.
 */
import { NetctlError } from '../lib/errors.ts';
import type { Address } from '../model/ip.ts';
import type { AddressRecord } from '../model/records.ts';
import type { Revision } from '../store/store.ts';
import type { AddressBook, Known } from './address-book.ts';

export interface Fence {
  readonly address: Address;
  /** That of the record which the caller has read, or was given. */
  readonly generation: number;
  /** The caller's, or null for one that may act for all. */
  readonly tenant: string | null;
  /** The record must be at it, where the caller says so. */
  readonly revision?: Revision | undefined;
}

/** @throws NOT_OWNER for another tenant's address, and for a free one; STALE_GENERATION, PRECONDITION_FAILED */
export function fenced(book: AddressBook, fence: Fence): Known<AddressRecord> {
  const known = owned(book, fence);
  if (known === undefined)
    throw new NetctlError('STALE_GENERATION', `address ${fence.address} is not allocated any more`, {
      address: fence.address,
    });
  refuseStale(known, fence);
  refuseChanged(`address ${fence.address}`, fence.revision, known.modified);
  return known;
}

/** @throws NOT_OWNER */
export function owned(
  book: AddressBook,
  { address, tenant }: Pick<Fence, 'address' | 'tenant'>,
): Known<AddressRecord> | undefined {
  const known = book.address(address);
  if (tenant === null || known?.value.owner.tenant === tenant) return known;
  throw new NetctlError('NOT_OWNER', `address ${address} is not one of tenant ${tenant}`, {
    address,
    tenant,
  });
}

/** @throws STALE_GENERATION */
export function refuseStale(
  { value }: Known<AddressRecord>,
  { address, generation }: Pick<Fence, 'address' | 'generation'>,
): void {
  if (value.generation === generation) return;
  throw new NetctlError(
    'STALE_GENERATION',
    `address ${address} is at generation ${value.generation}, not ${generation}: it has changed hands since`,
    { address, generation: value.generation, given: generation },
  );
}

/** @param wanted what the request's If-Match names, if it does @throws PRECONDITION_FAILED */
export function refuseChanged(what: string, wanted: Revision | undefined, actual: Revision): void {
  if (wanted === undefined || wanted === actual) return;
  throw new NetctlError(
    'PRECONDITION_FAILED',
    `${what} was changed meanwhile: If-Match names revision ${wanted}, it is at ${actual}: read it again and repeat the change`,
    { wanted, actual },
  );
}
