/**
 * What would put the findings of a check right: a plan to show first, and to carry out transaction by transaction.
 *
 * In: the findings and the snapshot that they are about. Out: for each finding a transaction with its reason, or why only a person can
 * decide. Never: a transaction that changes records which are not as they were seen.
 */
import { type Address, cidrContains } from '../model/ip.ts';
import { addressKey, blockKey, ownerKey, reservationKey } from '../model/keys.ts';
import type { AddressRecord } from '../model/records.ts';
import { textOf } from './address-book.ts';
import { blockOf } from './blocks.ts';
import { type Finding, usersOf } from './check.ts';
import { Draft, type Step } from './draft.ts';
import { later, retained } from './release.ts';
import type { IpamSnapshot, KnownEndpoint } from './snapshot.ts';

export interface Repair {
  readonly finding: Finding;
  /** What it does, or what a person has to do. */
  readonly action: string;
  /** null: nothing that could be done without knowing more. */
  readonly step: Step | null;
}

export function planRepair(snapshot: IpamSnapshot, findings: readonly Finding[], now: Date): Repair[] {
  return findings.map((finding) => ({ finding, ...remedy(snapshot, finding, now) }));
}

type Remedy = Pick<Repair, 'action' | 'step'>;

function remedy(snapshot: IpamSnapshot, finding: Finding, now: Date): Remedy {
  const { kind, address } = finding;
  switch (kind) {
    case 'leaked':
      return freeLeaked(snapshot, address!, now);
    case 'in-use-but-free':
      return record(snapshot, finding, now);
    case 'orphaned':
      return mendIndex(snapshot, finding);
    case 'wrong-node':
      return markBorrowed(snapshot, address!);
    case 'stale-reservation':
      return address === null
        ? {
            action: 'end it and free what it still holds',
            step: endReservation(snapshot, finding.key.slice(reservationKey('').length)),
          }
        : freeReserved(snapshot, address);
    case 'duplicate':
      return {
        action: 'remove one of the containers: both are in use, and only you know which is wanted',
        step: null,
      };
    case 'broken':
      return { action: `look at ${finding.key}, then correct or delete it`, step: null };
  }
}

/** The transaction that frees a leaked address, or keeps it for its owner, as the end of its container would: also what collecting leaks does. */
export function freeLeaked(snapshot: IpamSnapshot, address: Address, now: Date): Remedy {
  const known = snapshot.addresses.get(address)!;
  const { endpoint, node, pool, state, generation, onRelease } = known.value;
  const draft = new Draft();
  if (endpoint !== null) draft.compare({ kind: 'absent', key: `endpoints/${node}/${endpoint}` });
  const left = { ...known.value, endpoint: null, container: null, generation: generation + 1 };
  if ((state === 'bound' || state === 'active') && onRelease !== 'delete')
    return {
      action: 'keep the address for its owner',
      step: draft.setAddress(address, known, retained(left, now)).step(),
    };
  const seconds = snapshot.pools.get(pool)?.cooldownSeconds ?? 0;
  if (state === 'cooldown' || seconds === 0)
    return { action: 'free the address', step: draft.deleteAddress(address, known).step() };
  draft.setAddress(address, known, {
    ...left,
    state: 'cooldown',
    cooldownUntil: later(now, seconds),
    reservation: null,
    expiresAt: null,
  });
  return { action: `release the address, free after ${seconds} s`, step: draft.step() };
}

/** The endpoint is what lives: the record follows it. */
function record(snapshot: IpamSnapshot, finding: Finding, now: Date): Remedy {
  const address = finding.address!;
  const endpoint = usersOf(snapshot).get(address)?.[0];
  const before = snapshot.addresses.get(address);
  const poolName = before?.value.pool ?? poolOf(snapshot, address);
  if (endpoint === undefined || poolName === null)
    return { action: `add a pool for ${address}, or remove the container`, step: null };
  const usedByAnother = before !== undefined && before.value.state !== 'cooldown';
  if (usedByAnother)
    return {
      action: `remove the container of endpoint ${endpoint.id} on node ${endpoint.node}: the address is ${textOf(before.value.owner)}'s`,
      step: null,
    };
  const draft = new Draft()
    .compare({ kind: 'modified', key: endpoint.key, revision: endpoint.modified })
    .setAddress(address, before, recordOf(snapshot, address, endpoint, poolName, before?.value, now));
  return { action: `record it for endpoint ${endpoint.id} on node ${endpoint.node}`, step: draft.step() };
}

function recordOf(
  snapshot: IpamSnapshot,
  address: Address,
  { node, id, value }: KnownEndpoint,
  poolName: string,
  before: AddressRecord | undefined,
  now: Date,
): AddressRecord {
  const { network, containerId, mac } = value;
  const pool = snapshot.pools.get(poolName);
  const holder = pool?.kind === 'routed' ? snapshot.blocks.get(blockOf(pool, address))?.value.node : node;
  const part = (text: string): string => text.replace(/[^a-zA-Z0-9_.:@-]/g, '-').slice(0, 128) || '-';
  return {
    pool: poolName,
    state: 'active',
    owner: before?.owner ?? { tenant: 'default', app: part(network), instance: part(containerId) },
    node,
    endpoint: id,
    container: containerId,
    mac,
    onRelease: 'delete',
    ttlSeconds: null,
    generation: (before?.generation ?? 0) + 1,
    allocatedAt: now.toISOString(),
    cooldownUntil: null,
    reservation: null,
    expiresAt: null,
    borrowed: holder !== node,
    conflict: null,
  };
}

function mendIndex(snapshot: IpamSnapshot, { key, address }: Finding): Remedy {
  const known = snapshot.addresses.get(address!);
  const draft = new Draft().compareTo(addressKey(address!), known);
  const entry = snapshot.index.find((candidate) => candidate.key === key);
  if (entry !== undefined)
    return {
      action: 'delete the entry',
      step: draft.compare({ kind: 'modified', key, revision: entry.modified }).delete(key).step(),
    };
  const missing = ownerKey(known!.value.owner, address!);
  const value = { pool: known!.value.pool };
  return {
    action: 'add the entry',
    step: draft.compare({ kind: 'absent', key: missing }).put(missing, value).step(),
  };
}

function markBorrowed(snapshot: IpamSnapshot, address: Address): Remedy {
  const known = snapshot.addresses.get(address)!;
  const pool = snapshot.pools.get(known.value.pool)!;
  const cidr = blockOf(pool, address);
  const block = snapshot.blocks.get(cidr);
  const draft = new Draft().compareTo(blockKey(cidr), block);
  draft.setAddress(address, known, { ...known.value, borrowed: true });
  // Its node must not decide alone about a block in which others have addresses.
  if (block !== undefined && !block.value.shared)
    draft.setBlock(cidr, block, { ...block.value, shared: true });
  return { action: `announce it singly from node ${known.value.node}`, step: draft.step() };
}

/** Ends the reservation and frees what it still holds. */
export function endReservation(snapshot: IpamSnapshot, id: string): Step {
  const key = reservationKey(id);
  const known = snapshot.reservations.get(id)!;
  const draft = new Draft().compareTo(key, known).delete(key);
  for (const address of known.value.addresses) {
    const held = snapshot.addresses.get(address);
    if (held?.value.state === 'reserved' && held.value.reservation === id) draft.deleteAddress(address, held);
  }
  return draft.step();
}

function freeReserved(snapshot: IpamSnapshot, address: Address): Remedy {
  const known = snapshot.addresses.get(address)!;
  const draft = new Draft().compare({ kind: 'absent', key: reservationKey(known.value.reservation ?? '') });
  return { action: 'free the address', step: draft.deleteAddress(address, known).step() };
}

function poolOf({ pools }: IpamSnapshot, address: Address): string | null {
  const found = [...pools].find(([, { cidr }]) => cidrContains(cidr, address));
  return found?.[0] ?? null;
}
