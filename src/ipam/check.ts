/**
 * Check: records that contradict each other. Every transaction writes them together, so what is found comes from a lost store, a
 * restored one, or a hand that wrote to it.
 *
 * In: all records as of one revision. Out: findings, a sentence each. Never: a finding for a state that a request in flight explains
 * (a request is one transaction).
 */
import type { Address } from '../model/ip.ts';
import { textOf } from './address-book.ts';
import { blockOf } from './blocks.ts';
import { indexedOwner } from './draft.ts';
import type { IpamSnapshot, KnownEndpoint } from './snapshot.ts';

export type FindingKind =
  /** An address record that nobody uses and nothing will ever free. */
  | 'leaked'
  /** An endpoint's address that the IPAM takes for free, or for somebody else's. */
  | 'in-use-but-free'
  /** An entry of the owners' index without its record, or a record without its entry. */
  | 'orphaned'
  /** One address in two endpoints. */
  | 'duplicate'
  /** Used on a node that does not have its block, without having been borrowed. */
  | 'wrong-node'
  /** A reservation that is over and still there, or an address held by one that is gone. */
  | 'stale-reservation'
  /** A record that cannot be read. */
  | 'broken';

export interface Finding {
  readonly kind: FindingKind;
  /** Key of the record that it is about. */
  readonly key: string;
  readonly address: Address | null;
  readonly message: string;
}

/** How long something that ends by itself may be late (its agent was down, its clock was set). */
const lateMilliseconds = 3_600_000;

export function check(snapshot: IpamSnapshot, now: Date): Finding[] {
  const users = usersOf(snapshot);
  return [
    ...snapshot.broken.map(
      (key): Finding => ({ kind: 'broken', key, address: null, message: `${key} cannot be read` }),
    ),
    ...[...snapshot.addresses.keys()].flatMap((address) => checkAddress(snapshot, users, address, now)),
    ...[...users].flatMap(([address, endpoints]) => checkUse(snapshot, address, endpoints)),
    ...checkIndex(snapshot),
    ...checkReservations(snapshot, now),
  ];
}

/** Endpoints by the addresses of our pools that they have. */
export function usersOf({ endpoints }: IpamSnapshot): ReadonlyMap<Address, readonly KnownEndpoint[]> {
  const users = new Map<Address, KnownEndpoint[]>();
  for (const endpoint of endpoints.values()) {
    if (endpoint.value.foreignAddresses) continue;
    for (const address of endpoint.value.addresses) {
      const others = users.get(address);
      if (others === undefined) users.set(address, [endpoint]);
      else others.push(endpoint);
    }
  }
  return users;
}

function checkAddress(
  snapshot: IpamSnapshot,
  users: ReadonlyMap<Address, readonly KnownEndpoint[]>,
  address: Address,
  now: Date,
): Finding[] {
  const record = snapshot.addresses.get(address)!.value;
  const found = (kind: FindingKind, message: string): Finding[] => [
    { kind, key: `addresses/${address}`, address, message: `${address} ${message}` },
  ];
  if (users.has(address)) return wrongNode(snapshot, address);
  switch (record.state) {
    case 'bound':
    case 'active':
      // A container without an endpoint of ours is another plugin's or a scheduler's: only they know.
      if (record.endpoint === null && record.container !== null) return wrongNode(snapshot, address);
      return found(
        'leaked',
        `is ${record.state} for endpoint ${record.endpoint} on node ${record.node}, which does not exist`,
      );
    case 'reserved':
      return snapshot.reservations.has(record.reservation ?? '')
        ? []
        : found('stale-reservation', `is held by reservation ${record.reservation}, which does not exist`);
    case 'retained':
      if (isLate(record.expiresAt, now))
        return found('leaked', `was kept for its owner until ${record.expiresAt}`);
      return record.onRelease === 'delete' && record.expiresAt === null
        ? found('leaked', 'is kept for its owner for ever, though its policy is delete')
        : [];
    case 'cooldown':
      if (record.cooldownUntil === null) return found('leaked', 'cools down without an end');
      return isLate(record.cooldownUntil, now)
        ? found('leaked', `cooled down at ${record.cooldownUntil}`)
        : [];
    case 'quarantined':
      return [];
  }
}

/** The endpoint that the record names must be the one that has the address. */
function checkUse(snapshot: IpamSnapshot, address: Address, endpoints: readonly KnownEndpoint[]): Finding[] {
  const places = endpoints.map(({ node, id }) => `${id} on node ${node}`).join(', ');
  if (endpoints.length > 1)
    return [
      {
        kind: 'duplicate',
        key: `addresses/${address}`,
        address,
        message: `${address} is in endpoints ${places}`,
      },
    ];
  const [endpoint] = endpoints;
  const record = snapshot.addresses.get(address)?.value;
  if (endpoint === undefined || record?.endpoint === endpoint.id) return [];
  const instead =
    record === undefined ? 'has no record' : `is ${record.state} for ${textOf(record.owner)} in its record`;
  return [
    {
      kind: 'in-use-but-free',
      key: endpoint.key,
      address,
      message: `${address} of endpoint ${places} ${instead}`,
    },
  ];
}

function wrongNode(snapshot: IpamSnapshot, address: Address): Finding[] {
  const record = snapshot.addresses.get(address)!.value;
  const pool = snapshot.pools.get(record.pool);
  if (pool?.kind !== 'routed' || record.borrowed || record.state === 'cooldown') return [];
  const cidr = blockOf(pool, address);
  const holder = snapshot.blocks.get(cidr)?.value.node;
  if (holder === record.node) return [];
  const whose = holder === undefined ? 'no node has' : `node ${holder} has`;
  return [
    {
      kind: 'wrong-node',
      key: `addresses/${address}`,
      address,
      message: `${address} is in use on node ${record.node}, but ${whose} its block ${cidr}`,
    },
  ];
}

function checkIndex(snapshot: IpamSnapshot): Finding[] {
  const indexed = new Set(snapshot.index.map(({ owner, address }) => `${owner}/${address}`));
  const entries = snapshot.index.filter(({ address, owner }) => {
    const known = indexedOwner(snapshot.addresses.get(address)?.value);
    return known === null || textOf(known) !== owner;
  });
  const records = [...snapshot.addresses].filter(([address, { value }]) => {
    const owner = indexedOwner(value);
    return owner !== null && !indexed.has(`${textOf(owner)}/${address}`);
  });
  return [
    ...entries.map(({ key, address, owner }): Finding => {
      const message = `the index says that ${owner} has ${address}, its record does not`;
      return { kind: 'orphaned', key, address, message };
    }),
    ...records.map(([address, { value }]): Finding => {
      const message = `${address} of ${textOf(value.owner)} is not in the index of owners`;
      return { kind: 'orphaned', key: `addresses/${address}`, address, message };
    }),
  ];
}

function checkReservations({ reservations }: IpamSnapshot, now: Date): Finding[] {
  return [...reservations]
    .filter(([, { value }]) => isLate(value.expiresAt, now))
    .map(([id, { value }]) => ({
      kind: 'stale-reservation',
      key: `reservations/${id}`,
      address: null,
      message: `reservation ${id} of ${value.tenant}/${value.app} ended at ${value.expiresAt}`,
    }));
}

const isLate = (time: string | null, now: Date): boolean =>
  time !== null && Date.parse(time) + lateMilliseconds < now.getTime();
