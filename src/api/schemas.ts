/**
 * The schemas of every request and answer of the HTTP API: they validate, they serialise, and the OpenAPI document is made
 * of them.
 *
 * In: the model's records. Out: zod schemas and their types. Never: a field that is accepted and ignored; an import of this
 * file as a value by the command line (zod costs it 30 ms of start-up: it takes the types only).
 */
import { z } from 'zod';
import { type AddressRange, parseAddressRange } from '../model/address-range.ts';
import { exactObject, textOf } from '../model/check.ts';
import { documentKinds } from '../model/document.ts';
import { labelsSchema } from '../model/host-endpoint.ts';
import { type Address, type Cidr, parseAddress, parseAddressOrCidr, parseCidr } from '../model/ip.ts';
import { parseName, parseNodeName } from '../model/names.ts';
import { portMappingsSchema } from '../model/port-mapping.ts';
import { profileSchema } from '../model/profile.ts';
import { rateLimitsChange } from '../model/rate-limits.ts';
import {
  address,
  addressSchema,
  blockSchema,
  cidr,
  endpointSchema,
  name,
  nodeName,
  nodeSchema,
  ownerPart,
  poolSchema,
} from '../model/records.ts';
import { ruleSchema } from '../model/rule.ts';
import { parseSelector } from '../model/selector.ts';
import { bgpStatus } from './bgp-schemas.ts';
import { impact } from './explain-schemas.ts';

export const revision = z.int().min(0).meta({ description: 'Store revision that last wrote it' });
export const count = z.int().min(0);

/** Every failed request. */
export const errorBody = z.object({
  error: z.object({
    code: z.string(),
    message: z.string(),
    retryable: z.boolean(),
    details: z.record(z.string(), z.unknown()),
  }),
});

/** Every change: what stands there now, and whether this host's kernel has it already. */
export function changed<T extends z.ZodType>(item: T) {
  return z.object({ revision, applied: inForce, item });
}
const inForce = z.boolean().meta({ description: 'In force on this host when the answer was sent' });
export const removed = z.object({ revision, applied: inForce });
export type Removed = z.output<typeof removed>;

export function listOf<T extends z.ZodType>(item: T) {
  return z.object({ revision, items: z.array(item) });
}

/** A list that shows what can be read though something of it cannot. */
export function readableListOf<T extends z.ZodType>(item: T) {
  return listOf(item).extend({ broken });
}
const broken = z
  .array(z.object({ key: z.string(), reason: z.string() }))
  .meta({ description: 'Records of the kind that are not valid, and why' });
export type Broken = z.output<typeof broken>;

// pools

export const poolItem = z.object({ name, ...poolSchema.shape, revision });
export type PoolItem = z.output<typeof poolItem>;
export const poolList = readableListOf(poolItem);
export const poolChanged = changed(poolItem);

const SECONDS = 'a number of seconds from 0 to 86400';
export const SWITCH = 'true or false';
export const nameText = textOf<string>(parseName, 'web');
export const nodeText = textOf<string>(parseNodeName, 'node1');
export const addressText = textOf<Address>(parseAddress, '10.0.0.1');
export const rangeText = textOf<AddressRange>(parseAddressRange, '10.0.0.10-10.0.0.99');
const OWNER_PART = '1 to 128 letters, digits or _ . : @ -';
export const ownerText = z
  .string(OWNER_PART)
  .refine((text) => ownerPart.safeParse(text).success, OWNER_PART)
  .meta({ example: 'web' });
export const namedTenant = ownerText
  .optional()
  .meta({ description: 'May be left out by a certificate for one tenant only' });
const selectorText = textOf<string>((text, field) => {
  parseSelector(text, field);
  return text as string;
}, 'rack == "r1"');
const LIMIT = 'a number from 1 on, or null for no limit';
const limit = z.int(LIMIT).min(1, LIMIT).nullish();
/** What can be given when a pool is added, and changed afterwards. */
const settable = {
  excludes: z.array(textOf<Cidr>(parseAddressOrCidr, '10.0.0.0/28'), 'a list of prefixes').optional(),
  cooldownSeconds: z.number(SECONDS).min(0, SECONDS).max(86400, SECONDS).optional(),
  disabled: z.boolean(SWITCH).optional(),
  natOutgoing: z.boolean(SWITCH).optional(),
  nodeSelector: selectorText
    .nullish()
    .meta({ description: 'Only for nodes whose labels match; null for all' }),
  gateway: addressText.nullish(),
  ranges: z
    .array(rangeText, 'a list of ranges')
    .max(256, 'at most 256 ranges')
    .optional()
    .meta({ description: 'Only these parts are given out; empty for the whole prefix' }),
  tenants: z
    .array(ownerText, 'a list of tenants')
    .optional()
    .meta({ description: 'Only for these; empty for all' }),
  maxBlocksPerNode: limit,
  maxAddressesPerNode: limit,
};
const POOL_KIND = 'routed or macvlan';
const blockSize = z.int('a prefix length');
export const poolAdd = exactObject({
  name: nameText
    .optional()
    .meta({ description: '`default` if no pool has that name yet, else made from the prefix' }),
  cidr: textOf<Cidr>(parseCidr, '10.0.0.0/16'),
  kind: z.enum(['routed', 'macvlan'], POOL_KIND).optional(),
  blockSize: blockSize.optional(),
  ...settable,
});
export type PoolAdd = z.input<typeof poolAdd>;
/** What is absent stays. `cidr`, `kind` and `blockSize` are known here only to be refused with a reason. */
export const poolSet = exactObject({
  ...settable,
  cidr: z.string().optional(),
  kind: z.string().optional(),
  blockSize: z.number().optional(),
});
export type PoolSet = z.input<typeof poolSet>;

// profiles

/** A rule as `PUT …/rules` takes it, canonical. */
const ruleShown = z.looseObject({ action: z.enum(['allow', 'deny', 'log']) });
export const profileItem = z.object({
  name,
  tags: z.array(name),
  inbound_rules: z.array(ruleShown),
  outbound_rules: z.array(ruleShown),
  text: z
    .object({ inbound: z.array(z.string()), outbound: z.array(z.string()) })
    .meta({ description: 'The same rules in the words of the command line' }),
  revision,
});
export type ProfileItem = z.output<typeof profileItem>;
export const profileList = readableListOf(profileItem);
export const profileChanged = changed(profileItem);
export const profileAdd = exactObject({ name: nameText });
/** The profile language; tags that are absent stay. */
export const profileRules = profileSchema;

const DIRECTION = 'inbound or outbound';
const AT = 'a position from 1 on';
const direction = z.enum(['inbound', 'outbound'], DIRECTION);
export const ruleAdd = exactObject({
  direction,
  at: z
    .int(AT)
    .min(1, AT)
    .optional()
    .meta({ description: 'Position that it will have, from 1; at the end when absent' }),
  rule: ruleSchema.optional(),
  text: z
    .string('a rule')
    .max(4096, 'at most 4096 characters')
    .optional()
    .meta({ example: 'allow tcp from tag web to ports 80,443' }),
});
export type RuleAdd = z.input<typeof ruleAdd>;
const flushConnections = z
  .enum(['true', 'false'], SWITCH)
  .optional()
  .meta({ description: 'Cut connections that this change denies, on every host' });
export const flushQuery = exactObject({ flushConnections });
export const ruleRemove = exactObject({
  at: z.coerce.number(AT).int(AT).min(1, AT).optional(),
  text: z.string('a rule').max(4096, 'at most 4096 characters').optional(),
  flushConnections,
});

// documents

const kind = z.enum(documentKinds, documentKinds.join(', '));
const NAME = 'a name, or NODE/NAME for a host endpoint';
const documentNameText = z.string(NAME).min(1, NAME).max(128, NAME);
export const documentQuery = exactObject({ kind, name: documentNameText.optional() });
export const documentName = exactObject({
  kind,
  name: documentNameText,
  force: z.enum(['true', 'false'], 'true or false').optional(),
  flushConnections,
});
const document = z.record(z.string(), z.unknown(), 'a document with kind and name');
export const documentApply = exactObject({
  documents: z.array(document, 'a list of documents').min(1, 'at least one').max(10_000, 'at most 10000'),
  dryRun: z.boolean('true or false').optional(),
  flushConnections: z
    .boolean('true or false')
    .optional()
    .meta({ description: 'Cut connections that this change denies, on every host' }),
});
export type DocumentApply = z.input<typeof documentApply>;
const ruleTexts = z.array(z.string()).nullable();
export const documentItem = z.object({
  kind,
  name: z.string(),
  document,
  text: z
    .object({ inbound: ruleTexts, outbound: ruleTexts })
    .nullable()
    .meta({ description: 'Its rules in the words of the command line' }),
  revision,
});
export type DocumentItem = z.output<typeof documentItem>;
export const documentList = readableListOf(documentItem);
export const applied = z.object({
  revision,
  applied: inForce,
  items: z.array(z.object({ kind, name: z.string(), action: z.enum(['created', 'changed', 'unchanged']) })),
  warnings: z.array(z.string()),
  impact: impact.nullable().meta({ description: 'Of a dry run: pairs that would get another answer' }),
});
export type Applied = z.output<typeof applied>;

// addresses

export const addressItem = z.object({ address, ...addressSchema.shape, revision });
export type AddressItem = z.output<typeof addressItem>;
export const addressList = listOf(addressItem);
export const blockItem = z.object({ cidr, ...blockSchema.shape, size: z.string(), used: count, revision });
export type BlockItem = z.output<typeof blockItem>;
export const blockList = listOf(blockItem);
export const usageItem = z.object({
  pool: name,
  cidr,
  size: z.string().meta({ description: 'Addresses in the prefix, as a decimal number (may be beyond 2^53)' }),
  used: count.meta({ description: 'Addresses with a record, those in cooldown included' }),
  cooldown: count,
  blocks: count,
  nodes: count.meta({ description: 'Nodes that have a block of it' }),
});
export type UsageItem = z.output<typeof usageItem>;
export const usageList = listOf(usageItem);

// endpoints and nodes

export const endpointItem = z.object({ id: z.string(), node: nodeName, ...endpointSchema.shape, revision });
export type EndpointItem = z.output<typeof endpointItem>;
export const endpointList = readableListOf(endpointItem);
export const endpointChanged = changed(endpointItem);
export const endpointProfiles = exactObject({
  action: z.enum(['append', 'remove', 'set'], 'append, remove or set'),
  profiles: z.array(nameText, 'a list of profiles').max(64, 'at most 64 profiles'),
});
export type EndpointProfiles = z.input<typeof endpointProfiles>;

/** What is absent stays. */
export const endpointSet = exactObject({
  labels: labelsSchema.optional(),
  extraSources: z
    .array(textOf<Cidr>(parseAddressOrCidr, '192.0.2.1'), 'a list of addresses and prefixes')
    .max(256, 'at most 256 of them')
    .optional()
    .meta({ description: 'What it may send from besides its addresses' }),
  portMappings: portMappingsSchema
    .optional()
    .meta({ description: 'Ports of the host that lead to it; all of them' }),
  rateLimits: rateLimitsChange
    .nullable()
    .optional()
    .meta({ description: 'Of those named, the others stay; null ends all' }),
});
export type EndpointSet = z.input<typeof endpointSet>;

export const nodeItem = z.object({
  name: nodeName,
  ...nodeSchema.shape,
  alive: z
    .boolean()
    .nullable()
    .meta({ description: 'Whether its agent runs; null while the cluster cannot be asked' }),
  since: z.string().nullable().meta({ description: 'When the agent that runs was started' }),
  problems: z.array(z.string()).meta({ description: 'Why its agent says that it is not healthy' }),
  state: z
    .enum(['drained', 'fenced'])
    .nullable()
    .meta({ description: 'Set while an operator has it out of use' }),
  revision,
});
export type NodeItem = z.output<typeof nodeItem>;
export const nodeList = listOf(nodeItem);
export const nodeParams = exactObject({ node: nodeText });
export const nodeHoldings = z.object({
  registered: z.boolean(),
  blocks: count,
  endpoints: count,
  released: count.meta({ description: 'Addresses that will be free when their cooldown is over' }),
  retained: count.meta({ description: 'Fixed addresses, kept for their owners' }),
  reservations: count,
});
export type NodeHoldings = z.output<typeof nodeHoldings>;
export const nodeRemoval = exactObject({
  force: z.enum(['true', 'false'], 'true or false').default('false'),
});
export const nodeRemoved = nodeHoldings.extend({
  forced: z.boolean().meta({ description: 'Its agent was running' }),
});

// the agent

export const versionItem = z.object({ version: z.string(), node: nodeName });
export type VersionItem = z.output<typeof versionItem>;
export const configList = z.object({
  items: z.array(z.object({ key: z.string(), value: z.unknown(), source: z.string() })),
});
export const statusItem = z.object({
  node: nodeName,
  healthy: z.boolean(),
  problems: z.array(z.string()).meta({ description: 'Why it is not healthy, a sentence each' }),
  agent: z.object({ version: z.string(), startedAt: z.string(), pid: z.int() }),
  store: z.object({
    type: z.string(),
    inSync: z.boolean(),
    since: z.string().nullable(),
    error: z.string().nullable(),
    revision,
    refusal: z
      .string()
      .nullable()
      .meta({ description: 'Why the disk of this host did not take the last change; null when it did' }),
    cluster: z
      .object({
        reachable: z.boolean(),
        since: z.string().nullable(),
        error: z.string().nullable(),
        held: z.string().nullable(),
        waiting: count,
        oldest: z.string().nullable(),
        dropped: count,
        lease: z.object({ held: z.boolean(), since: z.string(), error: z.string().nullable() }),
      })
      .nullable()
      .meta({ description: 'How the local store stands with the cluster; null on a host alone' }),
  }),
  policy: z.object({
    backend: z.string(),
    reason: z.string().nullable(),
    iptables: z.string(),
    inSync: z.boolean(),
    notices: z.array(z.string()),
    lastRepair: z.object({ at: z.string(), what: z.array(z.string()) }).nullable(),
    error: z.string().nullable(),
    counters: z.record(z.string(), z.number()),
  }),
  endpoints: z.object({
    total: count,
    unhealthy: z.array(z.object({ endpoint: z.string(), reason: z.string() })),
  }),
  records: z.object({ broken }),
  guard: z.object({ held: z.array(z.object({ what: z.string(), reason: z.string() })) }),
  host: z.object({ notices: z.array(z.string()) }),
  bgp: bgpStatus.nullable().meta({ description: 'null where it is switched off' }),
});
export type StatusItem = z.output<typeof statusItem>;

// parameters

export const poolParams = exactObject({ pool: nameText });
export const profileParams = exactObject({ profile: nameText });
export const tagParams = exactObject({ profile: nameText, tag: nameText });
export const ruleParams = exactObject({ profile: nameText, direction });
const ENDPOINT = '1 to 1024 characters: an id, a container id or an address';
export const endpointParams = exactObject({
  endpoint: z.string(ENDPOINT).min(1, ENDPOINT).max(1024, ENDPOINT),
});
export const addressParams = exactObject({ address: addressText });
export const nodeQuery = exactObject({ node: nodeText.optional() });
export const forceQuery = exactObject({ force: z.enum(['true', 'false'], SWITCH).optional() });
