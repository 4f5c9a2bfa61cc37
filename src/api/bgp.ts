/**
 * BGP over HTTP: peers, what holds for the whole cluster, and which nodes reflect routes.
 *
 * In: requests and the store. Out: records, without their passwords. Never: a password in an answer, not even that of the request.
 */
import type { FastifyInstance } from 'fastify';
import type { z } from 'zod';
import { refuseChanged } from '../ipam/fenced.ts';
import { invalid, NetctlError } from '../lib/errors.ts';
import { type BgpPeer, type BgpSettings, bgpPeerSchema, passwordIsSet } from '../model/bgp.ts';
import { familyOf } from '../model/ip.ts';
import { bgpPeerKey, nodeKey, settingsKey } from '../model/keys.ts';
import { type Node, nodeSchema, type Settings, settingsSchema } from '../model/records.ts';
import type { Revision, Store } from '../store/store.ts';
import {
  type BgpSettingsItem,
  bgpPeerAdd,
  bgpPeerChanged,
  bgpPeerItem,
  bgpPeerList,
  bgpPeerParams,
  bgpSettingsChanged,
  bgpSettingsItem,
  bgpSettingsSet,
  nodeChanged,
  nodeSet,
} from './bgp-record-schemas.ts';
import type { ApiDeps } from './deps.ts';
import { byName, changedAnswer, ifMatch, isApplied, setRevision, typed } from './http.ts';
import { nodeParams, removed } from './schemas.ts';
import { create, parserOf, raced, readOne, readReadable, rewrite } from './store-access.ts';

const parsePeer = parserOf(bgpPeerSchema);
const parseSettings = parserOf(settingsSchema);

export function bgpRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);
  const { store } = deps;

  api.get('/v1/bgp/peers', { schema: { response: { 200: bgpPeerList } } }, async () => {
    const { revision, found, broken } = await readReadable(store, 'bgp-peer', parsePeer);
    const items = found.map(({ key, value, revision }) => peerItem(key.peer, value, revision));
    return { revision, items: items.sort((a, b) => byName(a.name, b.name)), broken };
  });

  const showSchema = { params: bgpPeerParams, response: { 200: bgpPeerItem } };
  api.get('/v1/bgp/peers/:peer', { schema: showSchema }, async (request, reply) => {
    const { peer } = request.params;
    const found = await readOne(store, bgpPeerKey(peer), parsePeer);
    if (found === null) throw noPeer(peer);
    setRevision(reply, found.revision);
    return peerItem(peer, found.value, found.revision);
  });

  const addSchema = { body: bgpPeerAdd, response: { 201: bgpPeerChanged } };
  api.post('/v1/bgp/peers', { schema: addSchema }, async (request, reply) => {
    const { name, ...peer } = request.body;
    if (peer.password === passwordIsSet) throw invalid('password', passwordIsSet, 'the password itself');
    const exists = (): NetctlError =>
      new NetctlError(
        'ALREADY_EXISTS',
        `bgp-peer ${name} exists already: choose another name, or remove it with \`netctl bgp peer remove ${name}\``,
      );
    const revision = await create(store, bgpPeerKey(name), peer, exists);
    reply.code(201);
    return changedAnswer(deps, reply, peerItem(name, peer, revision));
  });

  const removeSchema = { params: bgpPeerParams, response: { 200: removed } };
  api.delete('/v1/bgp/peers/:peer', { schema: removeSchema }, async (request) => {
    const revision = await removePeer(store, request.params.peer, ifMatch(request));
    return { revision, applied: await isApplied(deps, revision) };
  });

  api.get('/v1/bgp/settings', { schema: { response: { 200: bgpSettingsItem } } }, async (_request, reply) => {
    const found = await readOne(store, settingsKey, parseSettings);
    if (found !== null) setRevision(reply, found.revision);
    return settingsItem((found?.value ?? settingsSchema.parse({})).bgp, found?.revision ?? 0);
  });

  const setSchema = { body: bgpSettingsSet, response: { 200: bgpSettingsChanged } };
  api.patch('/v1/bgp/settings', { schema: setSchema }, async (request, reply) => {
    const { value, revision } = await setBgp(store, request.body, ifMatch(request));
    return changedAnswer(deps, reply, settingsItem(value.bgp, revision));
  });

  const nodeSchemas = { params: nodeParams, body: nodeSet, response: { 200: nodeChanged } };
  api.patch('/v1/nodes/:node', { schema: nodeSchemas }, async (request, reply) => {
    const { node } = request.params;
    const { value, revision } = await setNode(store, node, request.body, ifMatch(request));
    return changedAnswer(deps, reply, { name: node, ...value, revision });
  });
}

function peerItem(name: string, peer: BgpPeer, revision: Revision) {
  return { name, ...peer, password: peer.password === null ? null : passwordIsSet, revision };
}

function settingsItem(settings: BgpSettings, revision: Revision): BgpSettingsItem {
  return { ...settings, meshPassword: settings.meshPassword === null ? null : passwordIsSet, revision };
}

async function removePeer(store: Store, name: string, ifMatch: Revision | undefined): Promise<Revision> {
  const key = bgpPeerKey(name);
  // A broken record can be removed as well.
  const entry = await store.get(key);
  if (entry === null) throw noPeer(name);
  refuseChanged(`bgp-peer ${name}`, ifMatch, entry.modified);
  const unchanged = { kind: 'modified', key, revision: entry.modified } as const;
  const result = await store.transact([unchanged], [{ kind: 'delete', key }]);
  if (!result.committed) throw raced(`bgp-peer ${name}`);
  return result.revision;
}

/** The settings are there from the first change on. */
async function setBgp(
  store: Store,
  changes: z.output<typeof bgpSettingsSet>,
  ifMatch: Revision | undefined,
): Promise<{ value: Settings; revision: Revision }> {
  if (changes.meshPassword === passwordIsSet)
    throw invalid('meshPassword', passwordIsSet, 'the password itself, or null for none');
  await store.transact(
    [{ kind: 'absent', key: settingsKey }],
    [{ kind: 'put', key: settingsKey, value: settingsSchema.parse({}) }],
  );
  const given = Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined));
  return rewrite(store, {
    key: settingsKey,
    what: 'the settings',
    parse: parseSettings,
    serialise: (settings) => settings,
    change: (settings) => {
      const bgp = { ...settings.bgp, ...given };
      if (bgp.keepaliveSeconds !== null && bgp.keepaliveSeconds > bgp.holdSeconds)
        throw invalid('keepaliveSeconds', bgp.keepaliveSeconds, `at most the hold time, ${bgp.holdSeconds}`);
      return { ...settings, bgp };
    },
    missing: () => new NetctlError('NOT_FOUND', 'there are no settings'),
    ifMatch,
  });
}

function setNode(
  store: Store,
  node: string,
  { routeReflectorClusterId: id }: z.output<typeof nodeSet>,
  ifMatch: Revision | undefined,
): Promise<{ value: Node; revision: Revision }> {
  if (id !== undefined && id !== null && familyOf(id) === 6)
    throw invalid('routeReflectorClusterId', id, 'a number in the form of an IPv4 address, as 244.0.0.1');
  return rewrite(store, {
    key: nodeKey(node),
    what: `node ${node}`,
    parse: parserOf(nodeSchema),
    serialise: (record) => record,
    change: (record) => (id === undefined ? record : { ...record, routeReflectorClusterId: id }),
    missing: () =>
      new NetctlError('NOT_FOUND', `there is no node ${node}: see \`netctl node show\``, { node }),
    ifMatch,
  });
}

function noPeer(name: string): NetctlError {
  return new NetctlError('NOT_FOUND', `there is no bgp-peer ${name}: see \`netctl bgp peer show\``, {
    peer: name,
  });
}
