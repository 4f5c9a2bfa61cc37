/**
 * Tenants and settings over HTTP: how many addresses a tenant may have, and whether nodes lend each other addresses.
 *
 * In: requests and the store. Out: tenant records, the cluster's settings. Never: a quota below what a tenant has refused (it takes no
 * more then, and keeps what it has); a name of a tenant shown to another.
 */
import type { FastifyInstance } from 'fastify';
import { heldCount } from '../ipam/counts.ts';
import { refuseChanged } from '../ipam/fenced.ts';
import { NetctlError } from '../lib/errors.ts';
import { settingsKey, tenantKey } from '../model/keys.ts';
import { settingsSchema, tenantSchema } from '../model/records.ts';
import type { Compare, Revision, Store, Write } from '../store/store.ts';
import { sees } from './caller.ts';
import type { ApiDeps } from './deps.ts';
import { byName, ifMatch, isApplied, setRevision, typed } from './http.ts';
import { removed } from './schemas.ts';
import { parserOf, raced, readOne, readReadable } from './store-access.ts';
import {
  settingsBody,
  settingsChanged,
  settingsItem,
  type TenantItem,
  tenantBody,
  tenantChanged,
  tenantList,
  tenantParams,
} from './tenant-schemas.ts';

const parseTenant = parserOf(tenantSchema);
const parseSettings = parserOf(settingsSchema);

export function tenantRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);
  const { store, ipam } = deps;
  const shown = (name: string, maxAddresses: number | null, revision: Revision): TenantItem => {
    const used = heldCount(ipam.book.counts.of('tenant', name));
    return { name, maxAddresses, used, revision };
  };

  const config = { audience: 'tenant' } as const;
  api.get('/v1/tenants', { config, schema: { response: { 200: tenantList } } }, async ({ caller }) => {
    const { revision, found, broken } = await readReadable(store, 'tenant', parseTenant);
    const items = found
      .filter(({ key }) => sees(caller, key.tenant))
      .map(({ key, value, revision }) => shown(key.tenant, value.maxAddresses, revision));
    return {
      revision,
      items: items.sort((a, b) => byName(a.name, b.name)),
      broken: caller.operator ? broken : [],
    };
  });

  const params = tenantParams;
  api.put(
    '/v1/tenants/:tenant',
    { schema: { params, body: tenantBody, response: { 200: tenantChanged } } },
    async (request, reply) => {
      const { tenant } = request.params;
      const { maxAddresses } = request.body;
      const key = tenantKey(tenant);
      const revision = await write(
        store,
        `tenant ${tenant}`,
        { kind: 'put', key, value: { maxAddresses } },
        ifMatch(request),
      );
      setRevision(reply, revision);
      const applied = await isApplied(deps, revision);
      return { revision, applied, item: shown(tenant, maxAddresses, revision) };
    },
  );

  api.delete('/v1/tenants/:tenant', { schema: { params, response: { 200: removed } } }, async (request) => {
    const { tenant } = request.params;
    const key = tenantKey(tenant);
    if ((await store.get(key)) === null)
      throw new NetctlError('NOT_FOUND', `tenant ${tenant} has no quota: see \`netctl tenant show\``, {
        tenant,
      });
    const revision = await write(store, `tenant ${tenant}`, { kind: 'delete', key }, ifMatch(request));
    return { revision, applied: await isApplied(deps, revision) };
  });

  api.get('/v1/settings', { schema: { response: { 200: settingsItem } } }, async (_request, reply) => {
    const found = await readOne(store, settingsKey, parseSettings);
    const { value, revision } = found ?? { value: settingsSchema.parse({}), revision: 0 };
    setRevision(reply, revision);
    return { ...value, revision };
  });

  api.patch(
    '/v1/settings',
    { schema: { body: settingsBody, response: { 200: settingsChanged } } },
    async (request, reply) => {
      const before = await readOne(store, settingsKey, parseSettings);
      const value = { ...(before?.value ?? settingsSchema.parse({})), ...request.body };
      const change: Write = { kind: 'put', key: settingsKey, value };
      // What this request does not name must not be what somebody else had a moment ago.
      const revision = await write(store, 'settings', change, ifMatch(request) ?? before?.revision ?? 0);
      setRevision(reply, revision);
      const applied = await isApplied(deps, revision);
      return { revision, applied, item: { ...value, revision } };
    },
  );
}

/** Whatever stands there, broken or not, unless If-Match says what must. @throws PRECONDITION_FAILED, CONFLICT */
async function write(
  store: Store,
  what: string,
  change: Write,
  wanted: Revision | undefined,
): Promise<Revision> {
  const entry = await store.get(change.key);
  refuseChanged(what, wanted, entry?.modified ?? 0);
  const unchanged: Compare =
    entry === null
      ? { kind: 'absent', key: change.key }
      : { kind: 'modified', key: change.key, revision: entry.modified };
  const result = await store.transact([unchanged], [change]);
  if (!result.committed) throw raced(what);
  return result.revision;
}
