/**
 * The records of the store: shape, check and meaning of every value (DESIGN.md, "Data model"). The API's schemas and the
 * agent's picture are made of these.
 *
 * In: JSON from the store, the API or a file. Out: typed values. Never: a value that reaches a kernel or a rule unchecked.
 */
import { z } from 'zod';
import { type AddressRange, parseAddressRange, rangeEnds } from './address-range.ts';
import { bgpSettingsSchema, port } from './bgp.ts';
import { delegateSchema } from './delegate.ts';
import {
  type Address,
  addressBits,
  type Cidr,
  cidrContains,
  familyOf,
  parseAddress,
  parseCidr,
  prefixLength,
} from './ip.ts';
import { type Mac, parseMac } from './mac.ts';
import { macvlanSchema } from './macvlan.ts';
import { parseInterfaceName, parseName, parseNodeName } from './names.ts';
import { mostPortMappings, portMappingSchema } from './port-mapping.ts';
import { rateLimitsSchema } from './rate-limits.ts';
import { parseSelector } from './selector.ts';

/** A zod type out of one of the model's parsers, so that a text has one rule wherever it comes from. */
function parsed<T extends string>(parse: (text: unknown, field: string) => T, example: string): z.ZodType<T> {
  return z
    .string()
    .superRefine((text, context) => {
      try {
        const canonical = parse(text, 'value');
        if (canonical !== text) context.addIssue(`expected the canonical form ${canonical}`);
      } catch (error) {
        context.addIssue((error as Error).message.replace(/^value: /, ''));
      }
    })
    .meta({ example }) as unknown as z.ZodType<T>;
}

export const address = parsed<Address>(parseAddress, '10.0.0.1');
export const cidr = parsed<Cidr>(parseCidr, '10.0.0.0/16');
export const addressRange = parsed<AddressRange>(parseAddressRange, '10.0.0.10-10.0.0.99');
export const mac = parsed<Mac>(parseMac, '02:42:0a:00:00:01');
export const name = parsed<string>(parseName, 'web');
export const nodeName = parsed<string>(parseNodeName, 'node1');
const interfaceName = parsed<string>(parseInterfaceName, 'eth0');
const time = z.iso.datetime();
const path = z.string().max(4096);
const selector = z.string().superRefine((text, context) => {
  try {
    parseSelector(text, 'value');
  } catch (error) {
    context.addIssue((error as Error).message.replace(/^value: /, ''));
  }
});
/** A part of an owner: no slash, since it stands in a key. */
export const ownerPart = z
  .string()
  .regex(/^[a-zA-Z0-9_.:@-]{1,128}$/, 'expected 1 to 128 letters, digits or _ . : @ -');

const PREFIX_LENGTH = 'a prefix length from 1 to 128';
export const poolSchema = z
  .strictObject({
    cidr,
    kind: z.enum(['routed', 'macvlan']).default('routed'),
    /** Prefix length of the blocks that nodes claim: by default 26 (IPv4) or 122 (IPv6), 64 addresses. */
    blockSize: z.int(PREFIX_LENGTH).min(1, PREFIX_LENGTH).max(128, PREFIX_LENGTH),
    /** Never given out. */
    excludes: z.array(cidr).default([]),
    /** Only these parts are given out; empty means the whole prefix. */
    ranges: z.array(addressRange).max(256).default([]),
    gateway: address.nullable().default(null),
    /** Only for nodes whose labels match; null means for all. */
    nodeSelector: selector.nullable().default(null),
    /** Only for these tenants, others do not see it; empty means for all. */
    tenants: z.array(ownerPart).default([]),
    maxBlocksPerNode: z.int().min(1).nullable().default(null),
    /** Counts what the node's endpoints have, and what is reserved for it. */
    maxAddressesPerNode: z.int().min(1).nullable().default(null),
    natOutgoing: z.boolean().default(false),
    /** A released address is not given out again for this long. */
    cooldownSeconds: z.number().min(0).max(86400).default(60),
    disabled: z.boolean().default(false),
  })
  .superRefine((pool, context) => {
    const bits = addressBits(familyOf(pool.cidr));
    const smallest = Math.max(prefixLength(pool.cidr), bits - 16);
    if (pool.blockSize < smallest || pool.blockSize > bits) {
      context.addIssue({
        code: 'custom',
        path: ['blockSize'],
        message: `expected ${smallest} to ${bits} for the pool ${pool.cidr}`,
      });
    }
    const outside = pool.ranges.find(
      (range) => !rangeEnds(range).every((end) => cidrContains(pool.cidr, end)),
    );
    if (outside !== undefined) {
      context.addIssue({
        code: 'custom',
        path: ['ranges'],
        message: `expected ranges inside the pool ${pool.cidr}, not ${outside}`,
      });
    }
  });
export type Pool = z.infer<typeof poolSchema>;

/** Blocks hold 64 addresses unless the pool is smaller. */
export function defaultBlockSize(pool: Cidr): number {
  return Math.max(prefixLength(pool), addressBits(familyOf(pool)) - 6);
}

/**
 * A slice of a routed pool that one node claims and announces. The addresses of an exclusive block are decided by its node alone;
 * those of a shared one by the whole store, so that others may reserve, move and borrow them.
 */
export const blockSchema = z.strictObject({
  pool: name,
  node: nodeName,
  claimedAt: time,
  shared: z.boolean().default(false),
  /** Of a shared block: its node is about to give it back, nobody takes an address of it any more. */
  closing: z.boolean().default(false),
});
export type Block = z.infer<typeof blockSchema>;

export const ownerSchema = z.strictObject({ tenant: ownerPart, app: ownerPart, instance: ownerPart });
export type Owner = z.infer<typeof ownerSchema>;

export const releasePolicies = ['delete', 'immutable', 'never', 'ttl'] as const;
/**
 * What becomes of an address when its container goes: `delete` it is free after its cooldown; `immutable` its owner keeps it until
 * the owner is released; `never` the same, and only an operator can release it; `ttl` the owner keeps it for `ttlSeconds`.
 */
export type ReleasePolicy = (typeof releasePolicies)[number];
export const longestTtlSeconds = 366 * 86400;

/** The record of one allocated address. There is no record for a free one. */
export const addressSchema = z.strictObject({
  pool: name,
  /**
   * reserved: held by a reservation. bound: a container's, not yet known to work. active: in use. retained: kept for its owner
   * without a container. cooldown: released, not yet free. quarantined: seen with a foreign MAC.
   */
  state: z.enum(['reserved', 'bound', 'active', 'retained', 'cooldown', 'quarantined']),
  owner: ownerSchema,
  /** Where it is in use, or was last. */
  node: nodeName.nullable(),
  endpoint: z.string().nullable(),
  /** Id of the container it is bound to. */
  container: z.string().max(1024).nullable().default(null),
  mac: mac.nullable(),
  onRelease: z.enum(releasePolicies).default('delete'),
  ttlSeconds: z.int().min(1).max(longestTtlSeconds).nullable().default(null),
  /** Goes up by one whenever the address changes hands; a release names the generation that it means. */
  generation: z.int().min(1),
  allocatedAt: time,
  /** Set with state cooldown: may be given out again from then on. */
  cooldownUntil: time.nullable().default(null),
  /** The one that holds it (state reserved), or that it came from. */
  reservation: z.string().nullable().default(null),
  /** Set with state retained when it is not kept for ever. */
  expiresAt: time.nullable().default(null),
  /** In use on another node than the one that has its block: announced singly. */
  borrowed: z.boolean().default(false),
  /** Set with state quarantined: who else was seen to answer for it. */
  conflict: z.strictObject({ mac, node: nodeName, seenAt: time }).nullable().default(null),
});
export type AddressRecord = z.infer<typeof addressSchema>;

/** Addresses that a scheduler holds for containers to come; they are free again at `expiresAt` unless bound by then. */
export const reservationSchema = z.strictObject({
  tenant: ownerPart,
  app: ownerPart,
  /** Where they will be used, once that is decided. */
  node: nodeName.nullable(),
  addresses: z.array(address),
  requested: z.strictObject({ ipv4: z.int().min(0), ipv6: z.int().min(0) }),
  ttlSeconds: z.int().min(1).max(86400),
  createdAt: time,
  expiresAt: time,
});
export type Reservation = z.infer<typeof reservationSchema>;

/** A tenant with a limit; one without a record has none. */
export const tenantSchema = z.strictObject({ maxAddresses: z.int().min(0).nullable().default(null) });
export type Tenant = z.infer<typeof tenantSchema>;

/**
 * Written by every transaction that takes addresses for a tenant with a limit, so that two of them cannot both take the last one.
 * `used`: what the tenant had after it, at most (releases do not write here). `charges` counts these transactions: no two leave
 * the same value, which on a mirror would look as if nothing had happened.
 */
export const tenantUseSchema = z.strictObject({ used: z.int().min(0), charges: z.int().min(0).default(0) });
export type TenantUse = z.infer<typeof tenantUseSchema>;

/** Of the whole cluster. */
export const settingsSchema = z.strictObject({
  /** True: a node takes addresses of its own blocks only. False: blocks are shared, and a node without room borrows from others'. */
  strictAffinity: z.boolean().default(true),
  bgp: bgpSettingsSchema.prefault({}),
});
export type Settings = z.infer<typeof settingsSchema>;

/** One interface of one container. */
export const endpointSchema = z.strictObject({
  network: z.string().max(255),
  containerId: z.string().max(1024),
  /** Name inside the container. */
  interface: interfaceName,
  /**
   * `foreign`: another plugin has made the interface; policy holds where `hostInterface` is its host's end. `handed`: as routed, but the
   * container engine moves the container's end and gives it its addresses (Docker).
   */
  kind: z.enum(['routed', 'macvlan', 'foreign', 'handed']),
  /** Set with kind macvlan. */
  macvlan: macvlanSchema.nullable().default(null),
  /** The addresses are not of our pools: another plugin chose them. */
  foreignAddresses: z.boolean().default(false),
  /** Who must be told when those are free again. */
  delegate: delegateSchema.nullable().default(null),
  hostInterface: interfaceName,
  mac,
  mtuBytes: z.int().min(68).max(65535),
  addresses: z.array(address),
  /** In the order in which they are tried. */
  profiles: z.array(name),
  labels: z.record(z.string(), z.string()).default({}),
  extraSources: z.array(cidr).default([]),
  rateLimits: rateLimitsSchema.nullable().default(null),
  /** Ports of the host that lead to it. */
  portMappings: z.array(portMappingSchema).max(mostPortMappings).default([]),
  /** What an operator attached is not collected with what a runtime has no more. */
  attachedBy: z.enum(['runtime', 'operator']).default('runtime'),
  netns: z.strictObject({ path, device: z.int(), inode: z.int() }),
  /** /proc/sys/kernel/random/boot_id of the boot in which it was made. */
  bootId: z.string(),
  createdAt: time,
});
export type Endpoint = z.infer<typeof endpointSchema>;

export const nodeSchema = z.strictObject({
  address4: address.nullable(),
  address6: address.nullable(),
  asNumber: z.int().min(1).max(4294967295).nullable().default(null),
  /** That leads to the other hosts, where it is configured. */
  interface: interfaceName.nullable().default(null),
  labels: z.record(z.string(), z.string()).default({}),
  /** Where its BIRD listens; null: it does not speak BGP. */
  bgpPort: port.nullable().default(null),
  /** Set by an operator: it is a route reflector of this cluster id (RFC 4456). The agent leaves it as it is. */
  routeReflectorClusterId: address.nullable().default(null),
  version: z.string(),
  startedAt: time,
});
export type Node = z.infer<typeof nodeSchema>;

/** Kept in etcd by a lease while the agent lives. Nothing is decided from it. */
export const agentPresenceSchema = z.strictObject({
  version: z.string(),
  startedAt: time,
  /** The first few reasons why it is not healthy. */
  problems: z.array(z.string()),
  policy: z.strictObject({ backend: z.string(), inSync: z.boolean() }),
});
export type AgentPresence = z.infer<typeof agentPresenceSchema>;

/** A node that an operator took out of use: `drained` gets no new addresses, `fenced` is taken for dead besides. */
export const nodeStateSchema = z.strictObject({
  state: z.enum(['drained', 'fenced']),
  since: time,
  /** Who said so. */
  by: z.string().max(256),
});
export type NodeState = z.infer<typeof nodeStateSchema>;
