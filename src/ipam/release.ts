/**
 * Giving addresses back: when an endpoint goes (release of what it holds), when a container is unbound, when an owner or an
 * operator wants an address free.
 *
 * In: the address book. Out: compares and writes, and what became of the addresses. Never: an address released by its number alone
 * (generation and revision fence it), an address free before its cooldown is over, one taken from a container without `force`.
 */
import { NetctlError } from '../lib/errors.ts';
import type { Address } from '../model/ip.ts';
import type { AddressRecord, Owner } from '../model/records.ts';
import type { Revision } from '../store/store.ts';
import { type AddressBook, type Known, textOf } from './address-book.ts';
import type { Planned } from './commit.ts';
import { Draft, type Step } from './draft.ts';
import { type Fence, fenced, owned, refuseChanged, refuseStale } from './fenced.ts';

export type Outcome = 'free' | 'cooldown' | 'retained' | 'reserved' | 'quarantined';

/**
 * Gives back the addresses that the endpoint holds; others in the list (already released, given to somebody else) are left
 * alone. `used`: false for addresses that were never on a wire, which are free at once, or held by their reservation again.
 */
export function planRelease(
  book: AddressBook,
  endpoint: string,
  addresses: readonly Address[],
  now: Date,
  used = true,
): Step {
  const draft = new Draft();
  for (const address of addresses) {
    const known = book.address(address);
    if (known === undefined || known.value.endpoint !== endpoint || known.value.state === 'cooldown')
      continue;
    leave(book, draft, address, known, now, used);
  }
  return draft.step();
}

/** `container`: whoever holds the address by now, it is left alone unless that is this container. */
export interface UnbindRequest {
  readonly address: Address;
  readonly container: string;
  /** null: whatever it is. */
  readonly generation: number | null;
  readonly tenant: string | null;
  readonly revision?: Revision | undefined;
  /** Those for which the caller speaks; absent: all. */
  readonly nodes?: ReadonlySet<string> | undefined;
  readonly now: Date;
}

/**
 * A container that the address does not know, or that is on another's node, is no error: the result is `unknown`.
 * @throws STALE_GENERATION, NOT_OWNER, PRECONDITION_FAILED
 */
export function planUnbind(book: AddressBook, request: UnbindRequest): Planned<Outcome | 'unknown'> {
  const { address, container, generation, nodes, now } = request;
  const known = book.address(address);
  const isForeign = nodes !== undefined && !nodes.has(known?.value.node ?? '');
  if (known?.value.container !== container || isForeign)
    return { result: 'unknown', compares: [], writes: [] };
  owned(book, request);
  if (generation !== null) refuseStale(known, { address, generation });
  refuseChanged(`address ${address}`, request.revision, known.modified);
  const draft = new Draft();
  const result = leave(book, draft, address, known, now, true);
  return { result, ...draft.step() };
}

export interface ReleaseRequest extends Fence {
  /** Whatever generation, policy and use: for operators, who are named in the log by the caller. */
  readonly force: boolean;
  readonly now: Date;
}

/**
 * Frees an address that no container has. `forced`: it would have been refused without `force`.
 * @throws STALE_GENERATION, NOT_OWNER, IN_USE, ADDRESS_QUARANTINED
 */
export function planReleaseAddress(
  book: AddressBook,
  request: ReleaseRequest,
): Planned<{ outcome: Outcome; forced: boolean; was: AddressRecord | null }> {
  const { address, now } = request;
  let known: Known<AddressRecord> | undefined;
  let forced = false;
  try {
    known = fenced(book, request);
    refuseRelease(address, known.value, request.tenant);
  } catch (error) {
    if (!request.force || request.tenant !== null) throw error;
    known = book.address(address);
    forced = true;
  }
  if (known === undefined)
    return { result: { outcome: 'free', forced, was: null }, compares: [], writes: [] };
  if (known.value.state === 'cooldown')
    return { result: { outcome: 'cooldown', forced, was: known.value }, compares: [], writes: [] };
  const draft = new Draft();
  const outcome = cool(book, draft, address, known, now, known.value.state !== 'reserved');
  return { result: { outcome, forced, was: known.value }, ...draft.step() };
}

/**
 * The owner is no more (its app was deleted or scaled down): what it keeps is freed, and what its containers still have is freed
 * when they go. Addresses of policy `never` are `kept` unless `force`d.
 * An owner without addresses has none to free. @throws AFFINITY_MISMATCH for an address about which another node decides alone
 */
export function planReleaseOwner(
  book: AddressBook,
  request: { readonly owner: Owner; readonly force: boolean; readonly self: string; readonly now: Date },
): Planned<{ freed: readonly Address[]; later: readonly Address[]; kept: readonly Address[] }> {
  const draft = new Draft();
  const result = { freed: [] as Address[], later: [] as Address[], kept: [] as Address[] };
  for (const address of book.addressesOf(request.owner)) {
    const known = book.address(address)!;
    const { state, onRelease } = known.value;
    if (onRelease === 'never' && !request.force) result.kept.push(address);
    else if (state === 'retained') {
      refuseDecidedElsewhere(book, address, known.value, request.self);
      cool(book, draft, address, known, request.now, true);
      result.freed.push(address);
    } else if (state === 'bound' || state === 'active') {
      // Of policy delete it goes by itself, and its record may be one that its node writes alone.
      if (onRelease !== 'delete') {
        refuseDecidedElsewhere(book, address, known.value, request.self);
        draft.setAddress(address, known, { ...known.value, onRelease: 'delete' });
      }
      result.later.push(address);
    }
  }
  return { result, ...draft.step() };
}

/** One record has one writer: in an exclusive block its node, elsewhere the whole store. @throws AFFINITY_MISMATCH */
function refuseDecidedElsewhere(
  book: AddressBook,
  address: Address,
  { pool: name }: AddressRecord,
  self: string,
): void {
  const pool = book.pool(name);
  const block = pool?.kind === 'routed' ? book.blockAt(pool, address)?.value : undefined;
  if (block === undefined || block.shared || block.node === self) return;
  throw new NetctlError(
    'AFFINITY_MISMATCH',
    `address ${address} is in a block about which node ${block.node} decides alone: ask its agent`,
    { address, node: block.node },
  );
}

/** A container leaves its address: by policy the address stays its owner's, or cools down. */
function leave(
  book: AddressBook,
  draft: Draft,
  address: Address,
  known: Known<AddressRecord>,
  now: Date,
  used: boolean,
  node = known.value.node,
): Outcome {
  const record = known.value;
  const left = { ...record, node, endpoint: null, container: null, generation: record.generation + 1 };
  if (record.state === 'quarantined') {
    draft.setAddress(address, known, left);
    return 'quarantined';
  }
  if (!used && isStillReserved(book, address, record, now)) {
    draft.setAddress(address, known, { ...left, state: 'reserved' });
    return 'reserved';
  }
  if (record.onRelease === 'delete') return cool(book, draft, address, known, now, used, node);
  draft.setAddress(address, known, retained(left, now));
  return 'retained';
}

/** Whether the address cools down when the endpoint, which has used it, leaves it: not where it is kept for its owner, or free at once. */
export function willCool(book: AddressBook, endpoint: string, address: Address): boolean {
  const record = book.address(address)?.value;
  if (record?.endpoint !== endpoint || record.onRelease !== 'delete') return false;
  return (record.state === 'bound' || record.state === 'active') && cooldownOf(book, record) > 0;
}

/** What nobody uses and its policy keeps for its owner. */
export function retained(left: AddressRecord, now: Date): AddressRecord {
  const seconds = left.onRelease === 'ttl' ? (left.ttlSeconds ?? defaultRetainSeconds) : null;
  return { ...left, state: 'retained', expiresAt: seconds === null ? null : later(now, seconds) };
}

/** Of the policy ttl, for a record that does not say. */
export const defaultRetainSeconds = 86400;

/** The address is nobody's any more, and free when the pool's cooldown is over. */
export function cool(
  book: AddressBook,
  draft: Draft,
  address: Address,
  known: Known<AddressRecord>,
  now: Date,
  used: boolean,
  node = known.value.node,
): 'free' | 'cooldown' {
  const seconds = used ? cooldownOf(book, known.value) : 0;
  if (seconds === 0) {
    draft.deleteAddress(address, known);
    return 'free';
  }
  draft.setAddress(address, known, {
    ...known.value,
    state: 'cooldown',
    node,
    endpoint: null,
    container: null,
    generation: known.value.generation + 1,
    cooldownUntil: later(now, seconds),
    reservation: null,
    expiresAt: null,
    conflict: null,
  });
  return 'cooldown';
}

const cooldownOf = (book: AddressBook, { pool }: AddressRecord): number =>
  book.pool(pool)?.cooldownSeconds ?? 0;

export const later = (now: Date, seconds: number): string =>
  new Date(now.getTime() + seconds * 1000).toISOString();

function isStillReserved(book: AddressBook, address: Address, record: AddressRecord, now: Date): boolean {
  const reservation = book.reservation(record.reservation ?? '')?.value;
  if (reservation === undefined || Date.parse(reservation.expiresAt) <= now.getTime()) return false;
  return reservation.addresses.includes(address);
}

/** Whether a release without force would free it; `tenant` as in the request. */
export function isReleasable(address: Address, record: AddressRecord, tenant: string | null): boolean {
  try {
    refuseRelease(address, record, tenant);
    return record.state !== 'cooldown';
  } catch {
    return false;
  }
}

function refuseRelease(address: Address, record: AddressRecord, tenant: string | null): void {
  const { state, onRelease, node, container, endpoint } = record;
  if (container !== null || endpoint !== null || state === 'bound' || state === 'active')
    throw new NetctlError(
      'IN_USE',
      `address ${address} is in use by ${container ?? endpoint ?? textOf(record.owner)} on node ${node}: unbind it first`,
      { address, node, container, endpoint },
    );
  if (state === 'quarantined' && tenant !== null)
    throw new NetctlError(
      'ADDRESS_QUARANTINED',
      `address ${address} is kept back until an operator releases it`,
      {
        address,
        ...record.conflict,
      },
    );
  if (onRelease === 'never' && state === 'retained')
    throw new NetctlError(
      'IN_USE',
      `address ${address} is kept for ${textOf(record.owner)} until an operator forces its release`,
      {
        address,
      },
    );
}
