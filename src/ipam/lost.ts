/**
 * Endpoints that have lost an address: it was transferred, or released by force, while their node was not heard.
 *
 * In: the address book, the node's endpoints. Out: which to tear down, and why. Never: an endpoint whose record has just not arrived
 * (its own transaction writes both).
 */
import type { Address } from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';
import { type AddressBook, textOf } from './address-book.ts';

export interface LostEndpoint {
  readonly id: string;
  readonly address: Address;
  readonly reason: string;
  /** True where the record names somebody else; false where there is none. */
  readonly taken: boolean;
}

export function lostEndpoints(
  book: AddressBook,
  endpoints: Iterable<readonly [id: string, endpoint: { readonly value: Endpoint }]>,
): LostEndpoint[] {
  const lost: LostEndpoint[] = [];
  for (const [id, { value }] of endpoints) {
    if (value.foreignAddresses) continue;
    const address = value.addresses.find((each) => book.address(each)?.value.endpoint !== id);
    if (address === undefined) continue;
    const record = book.address(address)?.value;
    const whose = record === undefined ? 'free' : `${record.state} for ${textOf(record.owner)}`;
    lost.push({ id, address, reason: `address ${address} is ${whose} by now`, taken: record !== undefined });
  }
  return lost;
}
