/**
 * Documents over HTTP: records of several kinds applied, read back and deleted in the form in which people keep them in files.
 *
 * In: documents `{kind, name, …}`. Out: what each one changed. Never: some of the documents written and others not (one
 * transaction); an address set gone while rules need it (they deny without it) unless the caller insists.
 */
import { isDeepStrictEqual } from 'node:util';
import type { FastifyInstance } from 'fastify';
import { refuseChanged } from '../ipam/fenced.ts';
import { invalid, NetctlError } from '../lib/errors.ts';
import { bgpPeerSchema, passwordIsSet } from '../model/bgp.ts';
import {
  addressSetsOf,
  type Document,
  type DocumentKind,
  documentKey,
  documentOf,
  documentRuleTexts,
  parseDocument,
} from '../model/document.ts';
import { hostEndpointFromJson } from '../model/host-endpoint.ts';
import { type Key, keyPrefix, parseKey } from '../model/keys.ts';
import { type Pool, poolSchema } from '../model/records.ts';
import type { Compare, Entry, Json, Revision, Store, Write } from '../store/store.ts';
import type { ApiDeps } from './deps.ts';
import { byName, ifMatch, isApplied, serialised, typed } from './http.ts';
import { checkNewPool, checkPoolChange, noOtherPool, removePool } from './pools.ts';
import { removeProfile } from './profiles.ts';
import { applied, documentApply, documentList, documentName, documentQuery, removed } from './schemas.ts';
import { flushRequest, raced, readReadable, reasonOf } from './store-access.ts';

/** What documents name, and what is so while it is not there: worth a word, since it may come later. */
interface Reference {
  readonly kind: DocumentKind;
  readonly what: string;
  readonly meanwhile: string;
  readonly namesOf: (kind: DocumentKind, record: unknown) => Iterable<string>;
}

const references: readonly Reference[] = [
  {
    kind: 'address-set',
    what: 'address set',
    meanwhile: 'the rules that name it deny',
    namesOf: addressSetsOf,
  },
  { kind: 'profile', what: 'profile', meanwhile: 'it denies', namesOf: hostProfilesOf },
  { kind: 'bgp-filter', what: 'bgp-filter', meanwhile: 'its sessions pass nothing', namesOf: filtersOf },
];

interface Options {
  readonly flush: boolean;
  /** That If-Match names. */
  readonly revision: Revision | undefined;
}

type Action = 'created' | 'changed' | 'unchanged';

export function documentRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);
  const { store } = deps;
  const oneAtATime = serialised();

  api.get(
    '/v1/documents',
    { schema: { querystring: documentQuery, response: { 200: documentList } } },
    async (request) => {
      const { kind, name } = request.query;
      const { revision, items, broken } = await readDocuments(store, kind);
      if (name === undefined) return { revision, items, broken };
      const [item] = items.filter((each) => each.name === name);
      if (item !== undefined) return { revision, items: [item], broken: [] };
      const fault = broken.find(({ key }) => key === documentKey(kind, name));
      throw fault === undefined ? noDocument(kind, name) : isBroken(kind, name, fault.reason);
    },
  );

  const applySchema = { body: documentApply, response: { 200: applied } };
  api.post('/v1/documents', { schema: applySchema }, async (request) => {
    const { documents, dryRun, flushConnections } = request.body;
    const parsed = documents.map((json, i) => parseDocument(json, `documents[${i}]`));
    refuseRepeated(parsed);
    const revision = ifMatch(request);
    if (revision !== undefined && parsed.length > 1)
      throw invalid('If-Match', `"${revision}"`, 'no revision where there are several documents');
    const options = { dryRun: dryRun === true, flush: flushConnections === true, revision };
    const result = await oneAtATime(() => apply(store, parsed, options));
    const warnings: string[] = [];
    for (const reference of references) warnings.push(...(await missing(store, parsed, reference)));
    warnings.push(...(await sharedInterfaces(store, parsed)));
    const isInForce = dryRun === true || (await isApplied(deps, result.revision));
    const impact =
      dryRun === true
        ? await deps.impact(new Map(parsed.map(({ key, record }) => [key, record as Json])))
        : null;
    return { ...result, warnings, applied: isInForce, impact };
  });

  const deleteSchema = { querystring: documentName, response: { 200: removed } };
  api.delete('/v1/documents', { schema: deleteSchema }, async (request) => {
    const { kind, name, force, flushConnections } = request.query;
    const options = {
      force: force === 'true',
      flush: flushConnections === 'true',
      revision: ifMatch(request),
    };
    const revision = await remove(store, kind, name, options);
    return { revision, applied: await isApplied(deps, revision) };
  });
}

async function readDocuments(store: Store, kind: DocumentKind) {
  const { revision, found, broken } = await readReadable(store, kind, (json) => json);
  const items = [];
  for (const { key, value, revision } of found) {
    const name = nameOf(key);
    try {
      const document = documentOf(kind, name, value);
      items.push({ kind, name, document, text: documentRuleTexts(document), revision });
    } catch (error) {
      broken.push({ key: documentKey(kind, name), reason: reasonOf(error) });
    }
  }
  return { revision, items: items.sort((a, b) => byName(a.name, b.name)), broken };
}

function nameOf(key: Key): string {
  switch (key.kind) {
    case 'profile':
      return key.profile;
    case 'policy':
      return key.policy;
    case 'address-set':
      return key.set;
    case 'pool':
      return key.pool;
    case 'bgp-peer':
      return key.peer;
    case 'bgp-filter':
      return key.filter;
    case 'host-endpoint':
      return `${key.node}/${key.name}`;
    default:
      throw new NetctlError('BUG', `${key.kind} is not a kind of document`);
  }
}

async function apply(
  store: Store,
  documents: readonly Document[],
  { dryRun, flush, revision: wanted }: Options & { dryRun: boolean },
): Promise<{ revision: Revision; items: { kind: DocumentKind; name: string; action: Action }[] }> {
  const compares: Compare[] = [];
  const writes: Write[] = [];
  const items: { kind: DocumentKind; name: string; action: Action }[] = [];
  let revision = 0;
  compares.push(...(await checkPools(store, documents)));
  for (const { kind, name, key, record: given } of documents) {
    const entry = await store.get(key);
    refuseChanged(`${kind} ${name}`, wanted, entry?.modified ?? 0);
    const record = kind === 'bgp-peer' ? withPassword(name, given, entry) : given;
    const action =
      entry === null ? 'created' : isDeepStrictEqual(entry.value, record) ? 'unchanged' : 'changed';
    items.push({ kind, name, action });
    revision = Math.max(revision, entry?.modified ?? 0);
    if (action === 'unchanged') continue;
    compares.push(
      entry === null ? { kind: 'absent', key } : { kind: 'modified', key, revision: entry.modified },
    );
    writes.push({ kind: 'put', key, value: record as Json });
  }
  if (dryRun || writes.length === 0) return { revision, items };
  const result = await store.transact(compares, [...writes, ...flushRequest(flush)]);
  if (!result.committed) throw raced('one of the documents');
  return { revision: result.revision, items };
}

/** Pools must not overlap, neither with those of the store nor with each other; what is fixed stays. @returns what must hold still */
async function checkPools(store: Store, documents: readonly Document[]): Promise<Compare[]> {
  const applied = documents.filter(({ kind }) => kind === 'pool');
  if (applied.length === 0) return [];
  const { revision, found } = await readReadable(store, 'pool', (json) => poolSchema.parse(json));
  const pools = new Map<string, Pool>(found.map(({ key, value }) => [key.pool, value]));
  for (const { name, record } of applied) {
    const pool = record as unknown as Pool;
    const current = pools.get(name);
    if (current === undefined) checkNewPool(pool, pools);
    else checkPoolChange(name, current, pool);
    pools.set(name, pool);
  }
  return pools.size > found.length ? [noOtherPool(revision)] : [];
}

/** A sentence for each that is neither among the documents nor in the store. */
async function missing(
  store: Store,
  documents: readonly Document[],
  { kind: wanted, what, meanwhile, namesOf }: Reference,
): Promise<string[]> {
  const warnings: string[] = [];
  for (const { kind, name, record } of documents) {
    for (const named of namesOf(kind, record)) {
      if (documents.some((other) => other.kind === wanted && other.name === named)) continue;
      if ((await store.get(documentKey(wanted, named))) !== null) continue;
      warnings.push(`${kind} ${name}: there is no ${what} ${named}: ${meanwhile}`);
    }
  }
  return warnings;
}

/** A sentence for each host endpoint whose interface another one of its node names: it is one list of rules that decides. */
async function sharedInterfaces(store: Store, documents: readonly Document[]): Promise<string[]> {
  const applied = documents.filter(({ kind }) => kind === 'host-endpoint');
  if (applied.length === 0) return [];
  const { found } = await readReadable(store, 'host-endpoint', hostEndpointFromJson);
  const interfaces = new Map(found.map(({ key, value }) => [nameOf(key), value.interface]));
  for (const { name, record } of applied) interfaces.set(name, hostEndpointFromJson(record).interface);
  return applied.flatMap(({ name }) => {
    const [node, own] = name.split('/') as [string, string];
    const same = [...interfaces.keys()]
      .filter((each) => each.startsWith(`${node}/`) && interfaces.get(each) === interfaces.get(name))
      .map((each) => each.slice(node.length + 1));
    if (same.length < 2) return [];
    const others = same
      .filter((each) => each !== own)
      .sort()
      .join(', ');
    const [first] = same.toSorted();
    const what = interfaces.get(name);
    return [
      `host-endpoint ${name}: ${what} of ${node} is that of ${others} too: only ${first} decides there, the first by name`,
    ];
  });
}

/** A record that was shown and is applied again keeps its password. */
function withPassword(name: string, record: Document['record'], entry: Entry | null): Document['record'] {
  if (record['password'] !== passwordIsSet) return record;
  const { password } = (entry?.value ?? {}) as { password?: unknown };
  if (typeof password === 'string') return { ...record, password };
  throw invalid(
    'password',
    passwordIsSet,
    `the password of bgp-peer ${name} itself: it has none that could be kept`,
  );
}

/** The profiles that a host endpoint names. */
function hostProfilesOf(kind: DocumentKind, record: unknown): Set<string> {
  return new Set(kind === 'host-endpoint' ? hostEndpointFromJson(record).profiles : []);
}

/** The filters that a peer names. */
function filtersOf(kind: DocumentKind, record: unknown): Set<string> {
  if (kind !== 'bgp-peer') return new Set();
  const { importFilters, exportFilters } = bgpPeerSchema.parse(record);
  return new Set([...importFilters, ...exportFilters]);
}

async function remove(
  store: Store,
  kind: DocumentKind,
  name: string,
  { force, flush, revision }: Options & { force: boolean },
): Promise<Revision> {
  if (kind === 'profile') return removeProfile(store, name, force, revision, flush);
  if (kind === 'pool') return removePool(store, name, revision);
  const key = documentKey(kind, name);
  const entry = await store.get(key);
  if (entry === null) throw noDocument(kind, name);
  refuseChanged(`${kind} ${name}`, revision, entry.modified);
  if (kind === 'address-set' && !force) await refuseInUse(store, kind, name);
  if (kind === 'bgp-filter' && !force) await refuseInUse(store, kind, name);
  const result = await store.transact(
    [{ kind: 'modified', key, revision: entry.modified }],
    [{ kind: 'delete', key }, ...flushRequest(flush)],
  );
  if (!result.committed) throw raced(`${kind} ${name}`);
  return result.revision;
}

/** Who names the address set or filter would deny, or pass nothing, without it. */
async function refuseInUse(store: Store, kind: 'address-set' | 'bgp-filter', name: string): Promise<void> {
  const users: string[] = [];
  for (const user of kind === 'address-set' ? (['profile', 'policy'] as const) : (['bgp-peer'] as const)) {
    for (const { key, value } of await entriesOf(store, keyPrefix[user])) {
      try {
        const named = kind === 'address-set' ? addressSetsOf(user, value) : filtersOf(user, value);
        if (named.has(name)) users.push(`${user} ${key.slice(keyPrefix[user].length)}`);
      } catch {
        // A broken record names nothing: it denies as a whole.
      }
    }
  }
  if (users.length === 0) return;
  const [what, then] =
    kind === 'address-set'
      ? [`address set ${name} is used by rules of`, 'these rules then deny']
      : [`bgp-filter ${name} is used by`, 'its sessions then pass nothing'];
  throw new NetctlError(
    'IN_USE',
    `${what} ${users.join(', ')}: change them first, or use --force: ${then}`,
    kind === 'address-set' ? { set: name, users } : { filter: name, users },
  );
}

async function entriesOf(store: Store, prefix: string) {
  return (await store.list(prefix)).entries.filter(({ key }) => parseKey(key) !== null);
}

function refuseRepeated(documents: readonly Document[]): void {
  const seen = new Set<string>();
  for (const { kind, name, key } of documents) {
    if (seen.has(key)) throw new NetctlError('INVALID', `documents: ${kind} ${name} is there more than once`);
    seen.add(key);
  }
}

function noDocument(kind: DocumentKind, name: string): NetctlError {
  return new NetctlError('NOT_FOUND', `there is no ${kind} ${name}: see \`netctl get ${kind}\``, {
    kind,
    name,
  });
}

function isBroken(kind: DocumentKind, name: string, reason: string): NetctlError {
  return new NetctlError(
    'CONFLICT',
    `${kind} ${name} in the store is not valid: ${reason}: apply it anew, or delete it`,
    {
      kind,
      name,
    },
  );
}
