/**
 * Pools over HTTP: add, show, change, remove.
 *
 * In: requests and the store. Out: pool records. Never: two pools that share an address, a pool gone while an address of it
 * is out, a setting accepted that its kind of pool does not carry out.
 */
import type { FastifyInstance } from 'fastify';
import type { z } from 'zod';
import { refuseChanged } from '../ipam/fenced.ts';
import { invalid, NetctlError } from '../lib/errors.ts';
import { type Cidr, cidrBase, cidrContains, cidrsOverlap, prefixLength } from '../model/ip.ts';
import { keyPrefix, poolKey } from '../model/keys.ts';
import { parseName, poolNameOf } from '../model/names.ts';
import { addressSchema, blockSchema, defaultBlockSize, type Pool, poolSchema } from '../model/records.ts';
import type { Compare, Revision, Store, Write } from '../store/store.ts';
import { type Caller, sees } from './caller.ts';
import type { ApiDeps } from './deps.ts';
import { byName, changedAnswer, ifMatch, isApplied, setRevision, typed } from './http.ts';
import {
  type PoolItem,
  poolAdd,
  poolChanged,
  poolItem,
  poolList,
  poolParams,
  poolSet,
  removed,
} from './schemas.ts';
import { MAX_ATTEMPTS, parserOf, raced, readAll, readOne, readReadable, rewrite } from './store-access.ts';

const parsePool = parserOf(poolSchema);

export function poolRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);
  const { store } = deps;

  const config = { audience: 'tenant' } as const;
  api.get('/v1/pools', { config, schema: { response: { 200: poolList } } }, async ({ caller }) => {
    const { revision, found, broken } = await readReadable(store, 'pool', parsePool);
    const items = found.map(({ key, value, revision }) => ({ name: key.pool, ...value, revision }));
    const shown = items.flatMap((item) => shownTo(caller, item) ?? []);
    return {
      revision,
      items: shown.sort((a, b) => byName(a.name, b.name)),
      broken: caller.operator ? broken : [],
    };
  });

  api.get(
    '/v1/pools/:pool',
    { config, schema: { params: poolParams, response: { 200: poolItem } } },
    async (request, reply) => {
      const { pool } = request.params;
      const found = await readOne(store, poolKey(pool), parsePool);
      const item = found === null ? null : { name: pool, ...found.value, revision: found.revision };
      const shown = item === null ? null : shownTo(request.caller, item);
      if (shown === null) throw noPool(pool);
      setRevision(reply, shown.revision);
      return shown;
    },
  );

  api.post(
    '/v1/pools',
    { schema: { body: poolAdd, response: { 201: poolChanged } } },
    async (request, reply) => {
      const item = await addPool(store, request.body);
      reply.code(201);
      return changedAnswer(deps, reply, item);
    },
  );

  const setSchema = { params: poolParams, body: poolSet, response: { 200: poolChanged } };
  api.patch('/v1/pools/:pool', { schema: setSchema }, async (request, reply) => {
    const item = await setPool(store, request.params.pool, request.body, ifMatch(request));
    return changedAnswer(deps, reply, item);
  });

  api.delete(
    '/v1/pools/:pool',
    { schema: { params: poolParams, response: { 200: removed } } },
    async (request) => {
      const revision = await removePool(store, request.params.pool, ifMatch(request));
      return { revision, applied: await isApplied(deps, revision) };
    },
  );
}

/** To a tenant: the pools that it may use, without the names of the others that may. */
function shownTo(caller: Caller, item: PoolItem): PoolItem | null {
  if (caller.operator) return item;
  const tenants = item.tenants.filter((tenant) => sees(caller, tenant));
  return item.tenants.length > 0 && tenants.length === 0 ? null : { ...item, tenants };
}

async function addPool(store: Store, { name: wanted, ...body }: z.output<typeof poolAdd>): Promise<PoolItem> {
  const pool = checkedPool({ ...body, blockSize: body.blockSize ?? defaultBlockSize(body.cidr) });
  const { name, revision } = await createPool(store, pool, (taken) => {
    const name = wanted ?? (taken('default') ? parseName(poolNameOf(body.cidr), 'name') : 'default');
    if (!taken(name)) return name;
    throw new NetctlError(
      'ALREADY_EXISTS',
      `pool ${name} exists already: choose another name, or change it with \`netctl pool set ${name}\``,
    );
  });
  return { name, ...pool, revision };
}

/**
 * Makes a pool that shares no address with any other, also with one that is added at the same moment by another agent.
 * @param nameOf told which names are taken @throws INVALID, CIDR_OVERLAP, CONFLICT, what `nameOf` throws
 */
export async function createPool(
  store: Store,
  pool: Pool,
  nameOf: (taken: (name: string) => boolean) => string,
): Promise<{ name: string; revision: Revision }> {
  for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
    const { revision, found } = await readAll(store, 'pool', parsePool);
    const pools = new Map(found.map(({ key, value }) => [key.pool, value]));
    const name = nameOf((name) => pools.has(name));
    checkNewPool(pool, pools);
    const key = poolKey(name);
    const result = await store.transact(
      [{ kind: 'absent', key }, noOtherPool(revision)],
      [{ kind: 'put', key, value: pool }],
    );
    if (result.committed) return { name, revision: result.revision };
  }
  throw raced('the pools');
}

/** No pool was added or changed since. */
export function noOtherPool(revision: Revision): Compare {
  return { kind: 'unwritten', key: keyPrefix.pool, revision };
}

/** What no container can have as its address. */
const unusable: readonly (readonly [net: string, what: string])[] = [
  ['0.0.0.0/8', 'this network'],
  ['127.0.0.0/8', 'loopback'],
  ['169.254.0.0/16', 'link-local addresses'],
  ['224.0.0.0/4', 'multicast'],
  ['::/127', 'loopback'],
  ['::ffff:0:0/96', 'IPv4 addresses in the form of IPv6'],
  ['fe80::/10', 'link-local addresses'],
  ['ff00::/8', 'multicast'],
];

/** @param others by name @throws INVALID, CIDR_OVERLAP */
export function checkNewPool(pool: Pool, others: ReadonlyMap<string, Pool>): void {
  checkedPool(pool);
  for (const [net, what] of unusable)
    if (cidrsOverlap(pool.cidr, net as Cidr))
      throw invalid('cidr', pool.cidr, `unicast addresses: ${net} (${what}) is none of a container`);
  for (const [name, other] of others) {
    if (!cidrsOverlap(other.cidr, pool.cidr)) continue;
    throw new NetctlError(
      'CIDR_OVERLAP',
      `cidr: ${pool.cidr} overlaps ${other.cidr} of pool ${name}: choose a prefix that shares no address with it`,
      { field: 'cidr', pool: name },
    );
  }
}

/** @throws INVALID when something is to change that is fixed */
export function checkPoolChange(name: string, current: Pool, wanted: Pool): void {
  for (const field of ['cidr', 'kind', 'blockSize'] as const)
    if (current[field] !== wanted[field]) throw isFixed(`pool ${name}: ${field}`, field);
  checkedPool(wanted);
}

async function setPool(
  store: Store,
  name: string,
  changes: z.output<typeof poolSet>,
  ifMatch: Revision | undefined,
): Promise<PoolItem> {
  const { cidr, kind, blockSize, ...settable } = changes;
  for (const [field, value] of Object.entries({ cidr, kind, blockSize })) {
    if (value === undefined) continue;
    throw isFixed(field, field);
  }
  const given = Object.fromEntries(Object.entries(settable).filter(([, value]) => value !== undefined));
  const { value, revision } = await rewrite(store, {
    key: poolKey(name),
    what: `pool ${name}`,
    parse: parsePool,
    serialise: (pool) => pool,
    change: (pool) => checkedPool({ ...pool, ...given }),
    missing: () => noPool(name),
    ifMatch,
  });
  return { name, ...value, revision };
}

/**
 * Disabled first: who takes an address compares the pool's revision, so from then on none is taken, and all that was taken before can
 * be seen here. Cut short, the pool stays disabled.
 * @throws NOT_FOUND, IN_USE, CONFLICT
 */
export async function removePool(
  store: Store,
  name: string,
  ifMatch: Revision | undefined,
): Promise<Revision> {
  const key = poolKey(name);
  const pool = await readOne(store, key, parsePool);
  if (pool === null) throw noPool(name);
  refuseChanged(`pool ${name}`, ifMatch, pool.revision);
  await refuseInUse(store, name);
  const replace = async (after: Revision, write: Write): Promise<Revision> => {
    const result = await store.transact([{ kind: 'modified', key, revision: after }], [write]);
    if (!result.committed) throw raced(`pool ${name}`);
    return result.revision;
  };
  const closed = await replace(pool.revision, { kind: 'put', key, value: { ...pool.value, disabled: true } });
  try {
    await refuseInUse(store, name);
  } catch (error) {
    await replace(closed, { kind: 'put', key, value: pool.value });
    throw error;
  }
  return replace(closed, { kind: 'delete', key });
}

async function refuseInUse(store: Store, pool: string): Promise<void> {
  const addresses = (await readAll(store, 'address', parserOf(addressSchema))).found.filter(
    ({ value }) => value.pool === pool,
  );
  const blocks = (await readAll(store, 'block', parserOf(blockSchema))).found.filter(
    ({ value }) => value.pool === pool,
  );
  if (addresses.length === 0 && blocks.length === 0) return;
  const cooling = addresses.filter(({ value }) => value.state === 'cooldown').length;
  const nodes = [...new Set(blocks.map(({ value }) => value.node))].sort();
  const claims =
    blocks.length === 0 ? '' : `, ${plural(blocks.length, 'block')} claimed by ${nodes.join(', ')}`;
  throw new NetctlError(
    'IN_USE',
    `pool ${pool} is in use: ${plural(addresses.length, 'address', 'addresses')} (${cooling} in cooldown)${claims}: ` +
      `disable it with \`netctl pool set ${pool} --disabled\`, remove its containers, and try again when the cooldown is over`,
    { pool, addresses: addresses.length, cooldown: cooling, blocks: blocks.length, nodes },
  );
}

/** Nodes share a macvlan pool without claiming parts of it, and what is on the wire there is not translated by the host. */
function refuseForMacvlan({ kind, cidr, blockSize, maxBlocksPerNode, natOutgoing }: Pool): void {
  if (kind !== 'macvlan') return;
  if (blockSize !== defaultBlockSize(cidr))
    throw invalid('blockSize', blockSize, 'nothing for a macvlan pool: it has no blocks');
  if (maxBlocksPerNode !== null)
    throw invalid('maxBlocksPerNode', maxBlocksPerNode, 'null for a macvlan pool: it has no blocks');
  if (natOutgoing)
    throw invalid('natOutgoing', true, 'false for a macvlan pool: its traffic does not pass the host');
}

/** What is right for each field by itself may be wrong for this prefix. @throws INVALID naming the field */
function checkedPool(wanted: Readonly<Record<string, unknown>>): Pool {
  const result = poolSchema.safeParse(wanted);
  if (!result.success) {
    const issue = result.error.issues[0]!;
    const field = String(issue.path[0] ?? 'pool');
    throw invalid(field, wanted[field], issue.message.replace(/^expected /, ''));
  }
  refuseForMacvlan(result.data);
  const { cidr, excludes, gateway } = result.data;
  const outside = excludes.find(
    (exclude) => prefixLength(exclude) < prefixLength(cidr) || !cidrContains(cidr, cidrBase(exclude)),
  );
  if (outside !== undefined) throw invalid('excludes', outside, `prefixes inside the pool's ${cidr}`);
  if (gateway !== null && !cidrContains(cidr, gateway))
    throw invalid('gateway', gateway, `an address inside the pool's ${cidr}`);
  return result.data;
}

function isFixed(what: string, field: string): NetctlError {
  return new NetctlError(
    'INVALID',
    `${what}: cannot be changed: it is fixed when a pool is added; add another pool instead`,
    { field },
  );
}

function noPool(name: string): NetctlError {
  return new NetctlError('NOT_FOUND', `there is no pool ${name}: see \`netctl pool show\``, { pool: name });
}

function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}
