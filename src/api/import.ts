/**
 * Export and import over HTTP, one record a line: to move to another cluster, or to netctl from another system's list of addresses.
 *
 * In: lines of text. Out: for each what became of it. Never: a record that is there already overwritten; a block, endpoint or node taken over
 * (those are what hosts have, and come with them); a line passed over in silence.
 */
import type { FastifyInstance } from 'fastify';
import { asNetctlError, invalid, NetctlError } from '../lib/errors.ts';
import { addressSetFromJson } from '../model/address-set.ts';
import { checkJson } from '../model/check.ts';
import { parseAddress } from '../model/ip.ts';
import { type KeyKind, parseKey } from '../model/keys.ts';
import { parseMac } from '../model/mac.ts';
import { policyFromJson } from '../model/policy.ts';
import { parseProfileRecord } from '../model/profile.ts';
import {
  addressSchema,
  type Owner,
  ownerPart,
  type Pool,
  poolSchema,
  tenantSchema,
} from '../model/records.ts';
import type { Json } from '../store/store.ts';
import type { ApiDeps } from './deps.ts';
import { isApplied, serialised, typed } from './http.ts';
import { exportAnswer, importAnswer, importBody, importQuery } from './import-schemas.ts';
import { createPool } from './pools.ts';

const ndjson = 'application/x-ndjson';
const mostBytes = 64 << 20;
const mostRefusalsShown = 100;
/** Of these the cluster's operators decide; the rest belongs to hosts that live. Pools first: addresses lie in them. */
const exported = [
  'pool',
  'tenant',
  'address-set',
  'profile',
  'policy',
  'address',
] as const satisfies readonly KeyKind[];

type Outcome = 'imported' | 'unchanged' | 'skipped';

export function importRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);
  // Two imports of the same lines would refuse each other's.
  const oneAtATime = serialised();

  api.get('/v1/export', { schema: { response: { 200: exportAnswer } } }, async (_request, reply) => {
    const { entries, revision } = await deps.store.list('');
    const lines = exported.flatMap((kind) =>
      entries
        .filter(({ key }) => parseKey(key)?.kind === kind)
        .map(({ key, value }) => JSON.stringify({ key, value })),
    );
    const header = JSON.stringify({ netctl: 'export', version: 1, node: deps.node, revision });
    return reply
      .type(ndjson)
      .serializer(String)
      .send(`${[header, ...lines].join('\n')}\n`);
  });

  instance.register(async (scope) => {
    for (const type of [ndjson, 'text/plain'])
      scope.addContentTypeParser(type, { parseAs: 'string', bodyLimit: mostBytes }, (_request, text, done) =>
        done(null, text),
      );
    const schema = {
      consumes: [ndjson, 'text/plain'],
      querystring: importQuery,
      body: importBody,
      response: { 200: importAnswer },
    };
    typed(scope).post('/v1/import', { bodyLimit: mostBytes, schema }, async (request) => {
      const isGone = (): boolean => request.raw.socket.destroyed;
      return oneAtATime(() => importLines(deps, request.body, request.query.tenant, isGone));
    });
  });
}

/** @param isGone whoever asked does not wait any more: what is imported stays */
async function importLines(deps: ApiDeps, text: string, tenant: string, isGone: () => boolean) {
  const counts = { imported: 0, unchanged: 0, skipped: 0 };
  const refused: { line: number; code: string; reason: string }[] = [];
  let refusals = 0;
  for (const [index, line] of text.split('\n').entries()) {
    if (isGone()) break;
    if (line.trim() === '' || line.startsWith('#')) continue;
    try {
      counts[await importLine(deps, line.trim(), tenant)]++;
    } catch (thrown) {
      const error = asNetctlError(thrown);
      // Whether the rest would fare better is not known: what is imported stays, and importing again goes on.
      if (error.kind === 'transient') throw error;
      refusals++;
      if (refused.length < mostRefusalsShown)
        refused.push({ line: index + 1, code: error.code, reason: error.message });
    }
  }
  return { ...counts, refused: refusals, refusals: refused };
}

async function importLine(deps: ApiDeps, line: string, tenant: string): Promise<Outcome> {
  const { ipam } = deps;
  if (!line.startsWith('{')) return ipam.import(plainLine(line, tenant));
  const json = jsonOf(line);
  if ('netctl' in json) return 'skipped';
  if ('ip' in json) {
    const { ip, owner, mac } = json;
    return ipam.import(allocation(ip, owner, mac, tenant));
  }
  const { key, value } = json;
  const parsed = typeof key === 'string' ? parseKey(key) : null;
  if (parsed === null || value === undefined || value === null)
    throw invalid('line', line, 'an object with key and value as exported, or with ip and owner');
  if (parsed.kind === 'address') {
    const { state, owner, mac, onRelease, ttlSeconds } = checkJson(addressSchema, value, 'value');
    if (state === 'cooldown' || state === 'reserved') return 'skipped';
    return ipam.import({ address: parsed.address, owner, mac, onRelease, ttlSeconds });
  }
  if (parsed.kind === 'pool') return importPool(deps, parsed.pool, checkJson(poolSchema, value, 'value'));
  if (parsed.kind === 'tenant') checkJson(tenantSchema, value, 'value');
  else if (parsed.kind === 'profile') parseProfileRecord(value);
  else if (parsed.kind === 'policy') policyFromJson(value);
  else if (parsed.kind === 'address-set') addressSetFromJson(value);
  else return 'skipped';
  const result = await deps.store.transact(
    [{ kind: 'absent', key: key as string }],
    [{ kind: 'put', key: key as string, value: value as Json }],
  );
  if (!result.committed) return 'unchanged';
  await isApplied(deps, result.revision);
  return 'imported';
}

async function importPool(deps: ApiDeps, name: string, pool: Pool): Promise<Outcome> {
  let isThere = false;
  try {
    const { revision } = await createPool(deps.store, pool, (taken) => {
      isThere = taken(name);
      if (isThere) throw new NetctlError('ALREADY_EXISTS', `pool ${name} exists already`);
      return name;
    });
    // What follows may lie in this pool.
    await isApplied(deps, revision);
    return 'imported';
  } catch (error) {
    if (isThere) return 'unchanged';
    throw error;
  }
}

/** `10.0.0.7 OWNER [MAC]`, with white space, commas or semicolons between: what `calicoctl` or a query to Eru's etcd leaves after cut. */
function plainLine(line: string, tenant: string) {
  const [ip, owner, mac, ...rest] = line.split(/[\s,;]+/).filter(Boolean);
  if (ip === undefined || owner === undefined || rest.length > 0)
    throw invalid('line', line, 'an address, an owner, and a MAC if there is one');
  return allocation(ip, owner, mac, tenant);
}

function allocation(ip: unknown, owner: unknown, mac: unknown, tenant: string) {
  return {
    address: parseAddress(ip, 'ip'),
    owner: ownerOf(owner, tenant),
    mac: mac === undefined || mac === null || mac === '' ? null : parseMac(mac, 'mac'),
    onRelease: 'immutable' as const,
    ttlSeconds: null,
  };
}

/** `tenant/app/instance` is taken as it is; `app/instance` and a handle such as a container's id belong to the tenant of the request. */
function ownerOf(text: unknown, tenant: string): Owner {
  const parts = String(text ?? '').split('/');
  const [instance = '', app = 'imported', whose = tenant] = parts.reverse();
  const owner = { tenant: whose, app, instance };
  const isGood = parts.length <= 3 && Object.values(owner).every((part) => ownerPart.safeParse(part).success);
  if (!isGood)
    throw invalid(
      'owner',
      text,
      'TENANT/APP/INSTANCE, APP/INSTANCE or a name, of letters, digits and _ . : @ -',
    );
  return owner;
}

function jsonOf(line: string): Record<string, unknown> {
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch (error) {
    throw new NetctlError('INVALID', `line: not JSON: ${(error as Error).message}`);
  }
}
