/**
 * Quarantine: somebody else answered for an address, so it is given to nobody until an operator has looked.
 *
 * In: what an agent saw on the wire. Out: a transaction; the record keeps owner and container, if it has them. Never: an address
 * taken from its container here (that is its owner's decision), a report of our own MAC taken for a conflict.
 */
import { invalid, NetctlError } from '../lib/errors.ts';
import type { Address } from '../model/ip.ts';
import { poolKey } from '../model/keys.ts';
import type { Mac } from '../model/mac.ts';
import type { AddressRecord, Owner } from '../model/records.ts';
import type { AddressBook } from './address-book.ts';
import type { Planned } from './commit.ts';
import { Draft } from './draft.ts';

export interface ConflictReport {
  readonly address: Address;
  /** Who answered. */
  readonly mac: Mac;
  /** Where it was seen. */
  readonly node: string;
  readonly seenAt: Date;
}

/** Whose an address in quarantine is that nobody had. */
export const quarantineOwner = (node: string): Owner => ({
  tenant: 'netctl',
  app: 'quarantine',
  instance: node,
});

/** Repeating a report changes nothing. @throws INVALID for the record's own MAC, POOL_NOT_FOUND for an address of no pool */
export function planQuarantine(book: AddressBook, report: ConflictReport): Planned<AddressRecord> {
  const { address, mac, node } = report;
  const conflict = { mac, node, seenAt: report.seenAt.toISOString() };
  const before = book.address(address);
  const draft = new Draft();
  if (before === undefined) {
    const view = book.viewOf(address);
    if (view === undefined)
      throw new NetctlError('POOL_NOT_FOUND', `address ${address} is in no pool`, { address });
    draft.compare({ kind: 'present', key: poolKey(view.name) });
    const record = unowned(view.name, node, conflict);
    return { result: record, ...draft.setAddress(address, undefined, record).step() };
  }
  const was = before.value;
  if (was.mac === mac && was.state !== 'cooldown')
    throw invalid('mac', mac, `another MAC than the one that address ${address} has`);
  if (was.state === 'quarantined' && was.conflict?.mac === mac)
    return { result: was, compares: [], writes: [] };
  const record: AddressRecord =
    was.state === 'cooldown'
      ? { ...unowned(was.pool, node, conflict), generation: was.generation + 1 }
      : { ...was, state: 'quarantined', expiresAt: null, conflict };
  return { result: record, ...draft.setAddress(address, before, record).step() };
}

function unowned(
  pool: string,
  node: string,
  conflict: NonNullable<AddressRecord['conflict']>,
): AddressRecord {
  return {
    pool,
    state: 'quarantined',
    owner: quarantineOwner(node),
    node,
    endpoint: null,
    container: null,
    mac: null,
    onRelease: 'delete',
    ttlSeconds: null,
    generation: 1,
    allocatedAt: conflict.seenAt,
    cooldownUntil: null,
    reservation: null,
    expiresAt: null,
    borrowed: false,
    conflict,
  };
}
