/**
 * Taking a node out of the cluster: its record, its claims, endpoints, addresses and reservations, in bounded transactions.
 *
 *   record and fence ─► blocks ─► endpoints ─► addresses ─► reservations ─► look again, until nothing is left
 *
 * In: the records as of one revision, the node, the one that carries it out. Out: transactions in their order. Never: a fixed address
 * freed; an address free before its cooldown is over; one that another node uses in a block of the removed one touched. The order
 * makes a node that lives on stop first: without its fence it writes nothing, without its claims it tears down.
 */
import { NetctlError } from '../lib/errors.ts';
import type { Address, Cidr } from '../model/ip.ts';
import { blockKey, endpointKey, nodeKey, nodeStateKey, portKey, portReservationKey } from '../model/keys.ts';
import type { AddressRecord, Block } from '../model/records.ts';
import type { Store } from '../store/store.ts';
import type { Known } from './address-book.ts';
import { blockOf } from './blocks.ts';
import { Draft, type Step } from './draft.ts';
import { defaultRetainSeconds, later } from './release.ts';
import { endReservation } from './repair.ts';
import { type IpamSnapshot, readSnapshot } from './snapshot.ts';

/** How many of each there are. */
export interface NodeHoldings {
  /** True while `nodes/<node>` exists. */
  readonly registered: boolean;
  readonly blocks: number;
  readonly endpoints: number;
  /** Released, free when their cooldown is over. */
  readonly released: number;
  /** Fixed addresses, kept for their owners. */
  readonly retained: number;
  readonly reservations: number;
}

export interface NodeRemoval {
  readonly holdings: NodeHoldings;
  /** Each at most some 120 writes; none when there is nothing of the node. */
  readonly steps: readonly Step[];
}

export interface RemovalRequest {
  readonly node: string;
  /** Takes over the blocks in which something remains, and gives them back when they are empty. */
  readonly self: string;
  readonly now: Date;
}

const recordsPerStep = 40;
const mostRounds = 20;

/** Reads what there is of the node. @throws STORE_UNAVAILABLE */
export async function lookAtNode(store: Store, request: RemovalRequest): Promise<NodeRemoval> {
  await store.refresh?.();
  const { entries, revision } = await store.list('');
  const keys = entries.map(({ key }) => key);
  return planNodeRemoval(readSnapshot(entries, revision), keys, request);
}

/**
 * Carries it out; cut short at any point, the next call goes on with what is left. Answers what there was.
 * @throws CONFLICT when others keep changing the records; STORE_UNAVAILABLE
 */
export async function removeNode(store: Store, request: RemovalRequest): Promise<NodeHoldings> {
  const first = await lookAtNode(store, request);
  let { steps } = first;
  for (let round = 0; steps.length > 0; round++) {
    if (round === mostRounds)
      throw new NetctlError(
        'CONFLICT',
        `records of node ${request.node} keep changing: is its agent running?`,
        {
          node: request.node,
        },
      );
    for (const { compares, writes } of steps) if (!(await store.transact(compares, writes)).committed) break;
    ({ steps } = await lookAtNode(store, request));
  }
  return first.holdings;
}

/** @param keys all that there are, those of records that cannot be read included */
export function planNodeRemoval(
  snapshot: IpamSnapshot,
  keys: readonly string[],
  { node, self, now }: RemovalRequest,
): NodeRemoval {
  const occupied = new Set(
    [...snapshot.addresses].flatMap(([address, { value }]) => {
      const pool = snapshot.pools.get(value.pool);
      return pool === undefined ? [] : blockOf(pool, address);
    }),
  );
  const blocks = [...snapshot.blocks].filter(([, { value }]) => value.node === node);
  const registered = keys.includes(nodeKey(node));
  const endpoints = keys.filter((key) => key.startsWith(endpointKey(node, '')));
  const reservations = [...snapshot.reservations].filter(([, { value }]) => value.node === node);
  const addresses = [...snapshot.addresses].filter(
    ([, { value }]) => value.node === node && value.state !== 'reserved',
  );
  const isRetained = ([, { value }]: (typeof addresses)[number]): boolean => stays(value);
  const holdings = {
    registered,
    blocks: blocks.length,
    endpoints: endpoints.length,
    released: addresses.filter((each) => !isRetained(each)).length,
    retained: addresses.filter(isRetained).length,
    reservations: reservations.length,
  };
  const ports = keys.filter((key) =>
    [portKey(node, ''), portReservationKey(node, '')].some((prefix) => key.startsWith(prefix)),
  );
  const changes: ((draft: Draft) => void)[][] = [
    blocks.map(
      ([cidr, known]) =>
        (draft) =>
          leaveBlock(draft, occupied.has(cidr), cidr, known, self),
    ),
    [...endpoints, ...ports].map((key) => (draft) => draft.delete(key)),
    addresses.map(
      ([address, known]) =>
        (draft) =>
          leaveAddress(draft, snapshot, address, known, self, now),
    ),
  ];
  const steps = [
    ...changes.flatMap(inSteps),
    // One by one: a reservation may hold as many addresses as a transaction takes.
    ...reservations.map(([id]) => endReservation(snapshot, id)),
  ];
  if (steps.length === 0 && !registered) return { holdings, steps };
  const goodbye = new Draft()
    .delete(nodeKey(node))
    .delete(`replication/${node}`)
    .delete(nodeStateKey(node))
    .step();
  return { holdings, steps: [goodbye, ...steps] };
}

function inSteps(changes: readonly ((draft: Draft) => void)[]): Step[] {
  const steps: Step[] = [];
  for (let from = 0; from < changes.length; from += recordsPerStep) {
    const draft = new Draft();
    for (const change of changes.slice(from, from + recordsPerStep)) change(draft);
    steps.push(draft.step());
  }
  return steps;
}

/** A block in which something remains needs a node that ends its cooldowns and announces what is borrowed or kept. */
function leaveBlock(draft: Draft, occupied: boolean, cidr: Cidr, known: Known<Block>, self: string): void {
  if (!occupied) draft.compareTo(blockKey(cidr), known).delete(blockKey(cidr));
  else draft.setBlock(cidr, known, { ...known.value, node: self, shared: true, closing: false });
}

function leaveAddress(
  draft: Draft,
  snapshot: IpamSnapshot,
  address: Address,
  known: Known<AddressRecord>,
  self: string,
  now: Date,
): void {
  const record = known.value;
  const left = { ...record, endpoint: null, container: null, borrowed: false };
  if (stays(record)) {
    const wasUsed = record.state === 'bound' || record.state === 'active';
    const retained = wasUsed ? { state: 'retained' as const, expiresAt: expiryOf(record, now) } : {};
    draft.setAddress(address, known, {
      ...left,
      ...retained,
      node: null,
      generation: record.generation + (wasUsed ? 1 : 0),
    });
    return;
  }
  const seconds = snapshot.pools.get(record.pool)?.cooldownSeconds ?? 0;
  if (record.state !== 'cooldown' && seconds === 0) {
    draft.deleteAddress(address, known);
    return;
  }
  draft.setAddress(address, known, {
    ...left,
    state: 'cooldown',
    node: self,
    generation: record.generation + (record.state === 'cooldown' ? 0 : 1),
    cooldownUntil: record.state === 'cooldown' ? record.cooldownUntil : later(now, seconds),
    reservation: null,
    expiresAt: null,
  });
}

/** Kept for its owner, or kept back from everybody. */
const stays = ({ state, onRelease }: AddressRecord): boolean =>
  state === 'retained' || state === 'quarantined' || (state !== 'cooldown' && onRelease !== 'delete');

const expiryOf = ({ onRelease, ttlSeconds }: AddressRecord, now: Date): string | null =>
  onRelease === 'ttl' ? later(now, ttlSeconds ?? defaultRetainSeconds) : null;
