/**
 * The schemas of reservations, allocations, capacity, utilisation and checks: what a scheduler and an operator ask of address
 * management.
 *
 * In: the model's records. Out: zod schemas and their types, as in schemas.ts. Never: a field that is accepted and ignored.
 */
import { z } from 'zod';
import { exactObject, textOf } from '../model/check.ts';
import { type Mac, parseMac } from '../model/mac.ts';
import {
  address,
  addressSchema,
  mac,
  name,
  ownerSchema,
  releasePolicies,
  reservationSchema,
} from '../model/records.ts';
import {
  addressItem,
  addressText,
  count,
  listOf,
  namedTenant,
  nameText,
  nodeText,
  ownerText,
  rangeText,
  revision,
  SWITCH,
} from './schemas.ts';

/** A request takes no more addresses, names or ranges than this at once. */
const MOST = 60;
const SECONDS = 'a whole number of seconds from 1 to 86400';
const seconds = z.int(SECONDS).min(1, SECONDS).max(86400, SECONDS);
const GENERATION = 'a generation from 1 on, as the address has it';
const generation = z.int(GENERATION).min(1, GENERATION);
const CONTAINER = 'a container id of 1 to 1024 characters';
const container = z.string(CONTAINER).min(1, CONTAINER).max(1024, CONTAINER);
const macText = textOf<Mac>(parseMac, '02:42:0a:00:00:01');
const tenant = ownerText
  .optional()
  .meta({ description: 'Act as this tenant: what belongs to others is refused with NOT_OWNER' });
const force = z
  .boolean(SWITCH)
  .optional()
  .meta({ description: 'Whatever protects the address; logged with the caller. Not together with tenant' });
const owner = exactObject({ tenant: ownerText, app: ownerText, instance: ownerText });

function list<T extends z.ZodType>(item: T, what: string) {
  return z.array(item, `a list of ${what}`).max(MOST, `at most ${MOST} ${what}`).default([]);
}

// reservations

const KIND = 'routed or macvlan';
const poolKind = z.enum(['routed', 'macvlan'], KIND).optional().meta({
  description: 'From pools of this kind; that of the first pool or address named when absent, else routed',
});

const COUNT = `a number from 0 to ${MOST}`;
const addressCount = z.int(COUNT).min(0, COUNT).max(MOST, COUNT).default(0);
const RESERVATION = '1 to 64 letters, digits, "-" or "_"';
const reservationId = z.string(RESERVATION).regex(/^[A-Za-z0-9_-]{1,64}$/, RESERVATION);
const POLICY = `one of ${releasePolicies.join(', ')}`;
const MODE = 'all or best-effort';
const RETAIN = 'a whole number of seconds from 1 to 31622400';

export const reserveBody = exactObject({
  id: reservationId
    .optional()
    .meta({ description: 'Chosen by the caller, so that a repetition is recognised; made up when absent' }),
  tenant: namedTenant,
  app: ownerText,
  instances: z
    .array(ownerText, 'a list of names')
    .min(1, 'at least one name')
    .max(MOST, `at most ${MOST} names`)
    .meta({ description: 'With several, each gets one address of each family that is asked for' }),
  ipv4: addressCount,
  ipv6: addressCount,
  addresses: list(addressText, 'addresses').meta({ description: 'Exactly these, instead of a number' }),
  macs: list(macText, 'MACs').meta({ description: 'For the addresses in turn' }),
  kind: poolKind,
  pools: list(nameText, 'pools'),
  ranges: list(rangeText, 'ranges'),
  skip: list(addressText, 'addresses'),
  node: nodeText.nullable().default(null),
  onRelease: z.enum(releasePolicies, POLICY).default('delete'),
  retainSeconds: z.int(RETAIN).min(1, RETAIN).max(31622400, RETAIN).nullable().default(null),
  ttlSeconds: seconds.default(300),
  mode: z.enum(['all', 'best-effort'], MODE).default('all'),
});
export type ReserveBody = z.input<typeof reserveBody>;

export const reservedItem = z.object({
  id: z.string(),
  expiresAt: z.string(),
  addresses: z.array(
    z.object({
      address,
      mac,
      pool: name,
      gateway: address.nullable(),
      owner: ownerSchema,
      generation: count,
    }),
  ),
  requested: count.meta({
    description: 'More than there are addresses only in mode best-effort (status 202)',
  }),
});
export type ReservedItem = z.output<typeof reservedItem>;

export const reservationItem = z.object({ id: z.string(), ...reservationSchema.shape });
export type ReservationItem = z.output<typeof reservationItem>;
const reservationRow = reservationItem.extend({ revision });
export const reservationList = listOf(reservationRow);
export const reservationShown = reservationRow;
export const reservationParams = exactObject({ reservation: reservationId });
export const tenantQuery = exactObject({ tenant: ownerText.optional() });
export const extendBody = exactObject({ ttlSeconds: seconds, tenant });
export const commitBody = exactObject({ node: nodeText, ttlSeconds: seconds.optional(), tenant });
export const cancelBody = exactObject({ tenant });
export const cancelled = z.object({
  freed: z.array(address).meta({ description: 'Empty also for a reservation that is gone already' }),
});
export type Cancelled = z.output<typeof cancelled>;

// allocations

const STATE = `one of ${addressSchema.shape.state.options.join(', ')}`;
const PAGE = 'a number from 1 to 1000';
export const allocationQuery = exactObject({
  ip: addressText.optional(),
  tenant: ownerText.optional(),
  app: ownerText.optional(),
  instance: ownerText.optional(),
  node: nodeText.optional(),
  state: z.enum(addressSchema.shape.state.options, STATE).optional(),
  pool: nameText.optional(),
  limit: z.coerce.number(PAGE).int(PAGE).min(1, PAGE).max(1000, PAGE).default(100),
  cursor: addressText.optional().meta({ description: '`next` of the page before' }),
});
export type AllocationQuery = z.output<typeof allocationQuery>;
export const allocationPage = z.object({
  revision,
  items: z
    .array(
      addressItem.extend({ releasable: z.boolean().meta({ description: 'Without force, by who asks' }) }),
    )
    .meta({ description: 'In the order of the addresses as texts' }),
  next: address.nullable().meta({ description: 'The cursor of the next page, or null' }),
});
export type AllocationPage = z.output<typeof allocationPage>;

export const bindBody = exactObject({
  generation,
  container,
  node: nodeText.optional().meta({ description: 'That of this agent when absent' }),
  tenant,
});
export const bound = z.object({ address, generation: count, mac: mac.nullable() });
export const activateBody = exactObject({ generation, mac: macText.nullable().default(null), tenant });
export const activated = z.object({ address, generation: count });
export const unbindBody = exactObject({ container, generation: generation.nullable().default(null), tenant });
const outcome = z.enum(['free', 'cooldown', 'retained', 'reserved', 'quarantined']);
export const unbound = z.object({
  address,
  outcome: z
    .enum([...outcome.options, 'unknown'])
    .meta({ description: 'unknown: the address is not this container’s, nothing was done' }),
});
export const transferBody = exactObject({
  generation,
  toOwner: owner.nullable().default(null).meta({ description: 'null: it stays the owner’s' }),
  toNode: nodeText.nullable().default(null).meta({ description: 'null: wherever it is bound next' }),
  holdSeconds: seconds.optional(),
  force,
  tenant,
});
export const transferred = z.object({
  address,
  generation: count,
  was: z
    .object(addressSchema.shape)
    .meta({ description: 'Whose container must be torn down, if it has one' }),
});
export const releaseBody = exactObject({
  generation: generation.optional().meta({ description: 'May be absent with force only' }),
  force,
  tenant,
});
export const released = z.object({ address, outcome, forced: z.boolean() });
export type Released = z.output<typeof released>;
export const releaseOwnerBody = exactObject({ owner, force });
export const releasedOwner = z.object({
  freed: z.array(address),
  later: z.array(address).meta({ description: 'In use: free when their containers go' }),
  kept: z.array(address).meta({ description: 'Of policy never: freed by force only' }),
});
export type ReleasedOwner = z.output<typeof releasedOwner>;
export const conflictBody = exactObject({
  address: addressText,
  mac: macText.meta({ description: 'Who answered for the address' }),
  node: nodeText.optional().meta({ description: 'Where it was seen; this node when absent' }),
  at: z.iso
    .datetime('a time such as 2026-01-02T03:04:05Z')
    .optional()
    .meta({ description: 'Now when absent' }),
});
export const conflictAnswer = z.object({
  address,
  ...addressSchema.shape,
  alternate: z
    .object({ reservation: z.string(), address, mac: mac.nullable(), generation: count })
    .nullable()
    .meta({ description: 'Another address of the pool, held for the owner for ten minutes' }),
  alternateReason: z.string().nullable().meta({ description: 'Why there is none' }),
});
export type ConflictAnswer = z.output<typeof conflictAnswer>;

// numbers

const usage = {
  reserved: count,
  bound: count,
  active: count,
  retained: count,
  cooldown: count,
  quarantined: count,
  inUse: count.meta({ description: 'All states but cooldown' }),
};
const poolUsage = {
  capacity: count,
  excluded: count.meta({ description: 'Of the capacity, what is never given out' }),
  available: count.meta({ description: 'What can be given out now; exact up to 2^53 and that beyond' }),
  blocks: count,
};
export const capacityBody = exactObject({
  tenant: namedTenant,
  app: ownerText.default('default').meta({ description: 'Of the sticky instances' }),
  stickyInstances: list(ownerText, 'instances').meta({
    description: 'Where could these run with the addresses kept for them?',
  }),
  kind: poolKind,
  pools: list(nameText, 'pools'),
  nodes: z
    .array(nodeText, 'a list of nodes')
    .max(20000, 'at most 20000 nodes')
    .nullable()
    .default(null)
    .meta({ description: 'null: every node' }),
});
export const capacityAnswer = z.object({
  revision,
  nodes: z.array(
    z.object({
      node: z.string(),
      available4: count,
      available6: count,
      limitReason: z.string().nullable().meta({ description: 'Why it is not more' }),
    }),
  ),
  pools: z.array(z.object({ key: name, ...usage, ...poolUsage })),
  quotaLeft: count.nullable(),
  sticky: z.array(
    z.object({
      instance: z.string(),
      addresses: z.array(address).meta({ description: 'Kept for it; empty: it may run anywhere' }),
      usedOn: z.string().nullable().meta({ description: 'Where a container has them now' }),
      nodes: z.array(z.string()).meta({ description: 'Of the nodes asked about' }),
    }),
  ),
});
const BY = 'pool, node, tenant or app';
export const utilizationQuery = exactObject({
  by: z.enum(['pool', 'node', 'tenant', 'app'], BY),
  tenant: ownerText.optional().meta({ description: 'Only what this tenant may see' }),
});
const { capacity, excluded, available, blocks } = poolUsage;
export const utilizationItem = z.object({
  key: z.string().meta({ description: 'Name of the pool, node or tenant; tenant/app' }),
  ...usage,
  capacity: capacity.optional(),
  excluded: excluded.optional(),
  available: available.optional(),
  blocks: blocks.optional(),
});
export type UtilizationItem = z.output<typeof utilizationItem>;
export const utilizationList = listOf(utilizationItem);

// checks

const finding = {
  kind: z.enum([
    'leaked',
    'in-use-but-free',
    'orphaned',
    'duplicate',
    'wrong-node',
    'stale-reservation',
    'broken',
  ]),
  key: z.string(),
  address: address.nullable(),
  message: z.string(),
  action: z.string().meta({ description: 'What would put it right, or what a person has to do' }),
  fixable: z.boolean().meta({ description: 'By this agent' }),
};
export const findingList = listOf(z.object(finding));
export type FindingItem = z.output<typeof findingList>['items'][number];
export const checkBody = exactObject({ fix: z.boolean(SWITCH).default(false) });
export const checkAnswer = z.object({
  revision,
  items: z.array(
    z.object({
      ...finding,
      outcome: z
        .enum(['fixed', 'changed', 'left'])
        .meta({ description: 'changed: its records were changed meanwhile, so nothing was done' }),
    }),
  ),
  remaining: z.array(z.object(finding)).meta({ description: 'What a second look finds' }),
});
export type CheckAnswer = z.output<typeof checkAnswer>;
export const collectBody = exactObject({
  dryRun: z.boolean(SWITCH).default(false),
  confirmed: z.boolean(SWITCH).default(false).meta({ description: 'Many endpoints are really gone' }),
});
export const collectAnswer = z.object({
  items: z.array(
    z.object({
      address,
      node: z.string().nullable(),
      verdict: z.enum(['confirmed', 'waiting', 'live', 'unreachable']),
      evidence: z.string(),
      outcome: z.enum(['freed', 'changed', 'left']),
    }),
  ),
  held: z.string().nullable().meta({ description: 'Why nothing was freed' }),
});
export type CollectAnswer = z.output<typeof collectAnswer>;
