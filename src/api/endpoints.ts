/**
 * Endpoints over HTTP: show them, and change which profiles, labels, extra sources, rate limits and published ports one has.
 *
 * In: requests and endpoint records. Out: the records; a changed list of profiles is a rewritten record, from which every host
 * computes its policy anew. Never: a profile given to an endpoint that does not exist (a missing profile denies everything).
 */
import type { FastifyInstance } from 'fastify';
import type { z } from 'zod';
import type { Step } from '../ipam/draft.ts';
import { planPublish } from '../ipam/ports.ts';
import { NetctlError } from '../lib/errors.ts';
import { endpointKey, profileKey } from '../model/keys.ts';
import { refuseUnpublishable } from '../model/publishable.ts';
import { noLimits, orNone, type RateLimits } from '../model/rate-limits.ts';
import { type Endpoint, endpointSchema } from '../model/records.ts';
import type { Revision, Store } from '../store/store.ts';
import type { ApiDeps } from './deps.ts';
import { byName, changedAnswer, ifMatch, setRevision, typed } from './http.ts';
import {
  type EndpointItem,
  endpointChanged,
  endpointItem,
  endpointList,
  endpointParams,
  endpointProfiles,
  endpointSet,
  nodeQuery,
} from './schemas.ts';
import { parserOf, readReadable, rewrite } from './store-access.ts';

const parseEndpoint = parserOf(endpointSchema);

export function endpointRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);
  const { store } = deps;

  api.get(
    '/v1/endpoints',
    { schema: { querystring: nodeQuery, response: { 200: endpointList } } },
    async (request) => {
      return listEndpoints(store, request.query.node);
    },
  );

  const oneSchema = { params: endpointParams, querystring: nodeQuery, response: { 200: endpointItem } };
  api.get('/v1/endpoints/:endpoint', { schema: oneSchema }, async (request, reply) => {
    const item = await findEndpoint(store, request.params.endpoint, request.query.node);
    setRevision(reply, item.revision);
    return item;
  });

  const setSchema = {
    params: endpointParams,
    querystring: nodeQuery,
    body: endpointSet,
    response: { 200: endpointChanged },
  };
  api.patch('/v1/endpoints/:endpoint', { schema: setSchema }, async (request, reply) => {
    const endpoint = await findEndpoint(store, request.params.endpoint, request.query.node);
    const item = await setEndpoint(deps, endpoint, request.body, ifMatch(request));
    return changedAnswer(deps, reply, item);
  });

  const profilesSchema = {
    params: endpointParams,
    querystring: nodeQuery,
    body: endpointProfiles,
    response: { 200: endpointChanged },
  };
  api.post('/v1/endpoints/:endpoint/profiles', { schema: profilesSchema }, async (request, reply) => {
    const endpoint = await findEndpoint(store, request.params.endpoint, request.query.node);
    const item = await changeProfiles(store, endpoint, request.body, ifMatch(request));
    return changedAnswer(deps, reply, item);
  });
}

/** Labels, extra sources, rate limits and ports: what is given replaces what was. */
async function setEndpoint(
  { store, ipam }: ApiDeps,
  { id, node }: EndpointItem,
  { labels, extraSources, rateLimits, portMappings }: z.output<typeof endpointSet>,
  ifMatch: Revision | undefined,
): Promise<EndpointItem> {
  let published: Step = { compares: [], writes: [] };
  const { value, revision } = await rewrite(store, {
    key: endpointKey(node, id),
    what: `endpoint ${id}`,
    parse: parseEndpoint,
    serialise: (endpoint) => endpoint,
    change: (endpoint): Endpoint => {
      const ports = portMappings ?? endpoint.portMappings;
      refuseUnpublishable(endpoint, ports);
      const owner = ipam.book.address(endpoint.addresses[0]!)?.value.owner ?? null;
      published =
        portMappings === undefined ? published : planPublish(ipam.book.ports, { node, id, owner }, ports);
      return {
        ...endpoint,
        labels: labels ?? endpoint.labels,
        extraSources: extraSources ?? endpoint.extraSources,
        rateLimits: changedLimits(endpoint.rateLimits, rateLimits),
        portMappings: ports,
      };
    },
    more: () => published,
    missing: () => isGone(id),
    ifMatch,
  });
  return { id, node, ...value, revision };
}

function changedLimits(
  now: RateLimits | null,
  change: z.output<typeof endpointSet>['rateLimits'],
): RateLimits | null {
  if (change === undefined) return now;
  return change === null ? null : orNone({ ...(now ?? noLimits), ...change });
}

function isGone(id: string): NetctlError {
  return new NetctlError('NOT_FOUND', `endpoint ${id} is gone: its container was removed meanwhile`);
}

/** By node, then by id. */
export async function listEndpoints(
  store: Store,
  node?: string,
): Promise<{ revision: Revision; items: EndpointItem[]; broken: { key: string; reason: string }[] }> {
  const { revision, found, broken } = await readReadable(store, 'endpoint', parseEndpoint);
  const items = found
    .filter(({ key }) => node === undefined || key.node === node)
    .map(
      ({ key, value, revision }): EndpointItem => ({ id: key.endpoint, node: key.node, ...value, revision }),
    );
  return {
    revision,
    items: items.sort((a, b) => byName(a.node, b.node) || byName(a.id, b.id)),
    broken,
  };
}

/** The one endpoint whose id, container id or address this is, or the only one whose id or container id begins so. */
async function findEndpoint(store: Store, wanted: string, node?: string): Promise<EndpointItem> {
  const { items } = await listEndpoints(store, node);
  const exact = items.filter(
    ({ id, containerId, addresses }) =>
      id === wanted || containerId === wanted || addresses.some((address) => address === wanted),
  );
  const matches =
    exact.length > 0
      ? exact
      : items.filter(({ id, containerId }) => id.startsWith(wanted) || containerId.startsWith(wanted));
  const [match, ...others] = matches;
  if (match === undefined) {
    const where = node === undefined ? '' : ` on node ${node}`;
    throw new NetctlError(
      'NOT_FOUND',
      `there is no endpoint ${wanted}${where}: see \`netctl endpoint show\``,
      { endpoint: wanted },
    );
  }
  if (others.length > 0) {
    const ids = matches.map(({ id }) => id);
    throw new NetctlError('CONFLICT', `endpoint ${wanted} may mean ${shortList(ids)}: give more of its id`, {
      matches: ids,
    });
  }
  return match;
}

async function changeProfiles(
  store: Store,
  { id, node }: EndpointItem,
  { action, profiles }: z.output<typeof endpointProfiles>,
  ifMatch: Revision | undefined,
): Promise<EndpointItem> {
  const added = action === 'remove' ? [] : [...new Set(profiles)];
  const { value, revision } = await rewrite(store, {
    key: endpointKey(node, id),
    what: `endpoint ${id}`,
    parse: parseEndpoint,
    serialise: (endpoint) => endpoint,
    change: async (endpoint): Promise<Endpoint> => {
      for (const profile of added) await refuseMissingProfile(store, profile);
      return { ...endpoint, profiles: changedList(id, endpoint.profiles, action, profiles) };
    },
    compares: added.map((profile) => ({ kind: 'present', key: profileKey(profile) })),
    missing: () => isGone(id),
    ifMatch,
  });
  return { id, node, ...value, revision };
}

function changedList(
  id: string,
  current: readonly string[],
  action: 'append' | 'remove' | 'set',
  named: readonly string[],
): string[] {
  if (action === 'set') return [...new Set(named)];
  if (action === 'append') return [...new Set([...current, ...named])];
  const absent = named.find((profile) => !current.includes(profile));
  if (absent !== undefined) {
    const has = current.length === 0 ? 'none' : current.join(', ');
    throw new NetctlError('NOT_FOUND', `endpoint ${id} does not have profile ${absent}: it has ${has}`, {
      profile: absent,
    });
  }
  return current.filter((profile) => !named.includes(profile));
}

async function refuseMissingProfile(store: Store, profile: string): Promise<void> {
  if ((await store.get(profileKey(profile))) !== null) return;
  throw new NetctlError(
    'NOT_FOUND',
    `there is no profile ${profile}: add it first with \`netctl profile add ${profile}\``,
    { profile },
  );
}

/** The first few of them, and how many more there are. */
export function shortList(names: readonly string[], most = 5): string {
  const more = names.length - most;
  return more > 0 ? `${names.slice(0, most).join(', ')} and ${more} more` : names.join(', ');
}
