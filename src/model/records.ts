/**
 * The records of the store: shape, check and meaning of every value (DESIGN.md, "Data model"). The API's schemas and the
 * agent's picture are made of these.
 *
 * In: JSON from the store, the API or a file. Out: typed values. Never: a value that reaches a kernel or a rule unchecked.
 */
import { z } from 'zod';
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
import { parseInterfaceName, parseName, parseNodeName } from './names.ts';

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
export const mac = parsed<Mac>(parseMac, '02:42:0a:00:00:01');
export const name = parsed<string>(parseName, 'web');
const nodeName = parsed<string>(parseNodeName, 'node1');
const interfaceName = parsed<string>(parseInterfaceName, 'eth0');
const time = z.iso.datetime();
const path = z.string().max(4096);
/** A part of an owner: no slash, since it stands in a key. */
export const ownerPart = z
  .string()
  .regex(/^[a-zA-Z0-9_.:@-]{1,128}$/, 'expected 1 to 128 letters, digits or _ . : @ -');

export const poolSchema = z
  .strictObject({
    cidr,
    kind: z.enum(['routed', 'macvlan']).default('routed'),
    /** Prefix length of the blocks that nodes claim: by default 26 (IPv4) or 122 (IPv6), 64 addresses. */
    blockSize: z.int().min(1).max(128),
    /** Never given out. */
    excludes: z.array(cidr).default([]),
    gateway: address.nullable().default(null),
    nodeSelector: z.string().max(1024).nullable().default(null),
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
  });
export type Pool = z.infer<typeof poolSchema>;

/** Blocks hold 64 addresses unless the pool is smaller. */
export function defaultBlockSize(pool: Cidr): number {
  return Math.max(prefixLength(pool), addressBits(familyOf(pool)) - 6);
}

/** A slice of a routed pool that one node claims and announces. */
export const blockSchema = z.strictObject({ pool: name, node: nodeName, claimedAt: time });
export type Block = z.infer<typeof blockSchema>;

export const ownerSchema = z.strictObject({ tenant: ownerPart, app: ownerPart, instance: ownerPart });
export type Owner = z.infer<typeof ownerSchema>;

/** The record of one allocated address. There is no record for a free one. */
export const addressSchema = z.strictObject({
  pool: name,
  state: z.enum(['reserved', 'bound', 'active', 'retained', 'cooldown', 'quarantined']),
  owner: ownerSchema,
  node: nodeName.nullable(),
  endpoint: z.string().nullable(),
  mac: mac.nullable(),
  onRelease: z.enum(['delete', 'immutable', 'never', 'ttl']).default('delete'),
  /** Goes up by one whenever the address changes hands; a release names the generation that it means. */
  generation: z.int().min(1),
  allocatedAt: time,
  /** Set with state cooldown: may be given out again from then on. */
  cooldownUntil: time.nullable().default(null),
});
export type AddressRecord = z.infer<typeof addressSchema>;

/** One interface of one container. */
export const endpointSchema = z.strictObject({
  network: z.string().max(255),
  containerId: z.string().max(1024),
  /** Name inside the container. */
  interface: interfaceName,
  kind: z.enum(['routed', 'macvlan']),
  hostInterface: interfaceName,
  mac,
  mtuBytes: z.int().min(68).max(65535),
  addresses: z.array(address),
  /** In the order in which they are tried. */
  profiles: z.array(name),
  labels: z.record(z.string(), z.string()).default({}),
  extraSources: z.array(cidr).default([]),
  rateLimits: z
    .strictObject({ inBitsPerSecond: z.number().nullable(), outBitsPerSecond: z.number().nullable() })
    .nullable()
    .default(null),
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
  labels: z.record(z.string(), z.string()).default({}),
  version: z.string(),
  startedAt: time,
});
export type Node = z.infer<typeof nodeSchema>;

/** True when the pool could hold the address (it may still be excluded or taken). */
export function poolContains(pool: Pool, wanted: Address): boolean {
  return cidrContains(pool.cidr, wanted) && !pool.excludes.some((exclude) => cidrContains(exclude, wanted));
}
