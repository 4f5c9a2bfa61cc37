/**
 * Nodes over HTTP: which there are, and the end of one that will not come back.
 *
 * In: requests, the store, address management. Out: node records; a removed node's blocks, endpoints and record gone. Never: a node with
 * containers removed without `force`; the node that answers removed by itself.
 */
import type { FastifyInstance } from 'fastify';
import { NetctlError } from '../lib/errors.ts';
import { keyPrefix, nodeKey } from '../model/keys.ts';
import { nodeSchema } from '../model/records.ts';
import type { Store } from '../store/store.ts';
import { nodeParams } from './bgp-record-schemas.ts';
import type { ApiDeps } from './deps.ts';
import { byName, isApplied, typed } from './http.ts';
import { forceQuery, nodeList, removed } from './schemas.ts';
import { parserOf, readAll } from './store-access.ts';

/** In one transaction; etcd takes 128. */
const mostDeletions = 100;

export function nodeRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);

  api.get('/v1/nodes', { schema: { response: { 200: nodeList } } }, async () => {
    const { revision, found } = await readAll(deps.store, 'node', parserOf(nodeSchema));
    const items = found.map(({ key, value, revision }) => ({ name: key.node, ...value, revision }));
    return { revision, items: items.sort((a, b) => byName(a.name, b.name)) };
  });

  const schema = { params: nodeParams, querystring: forceQuery, response: { 200: removed } };
  api.delete('/v1/nodes/:node', { schema }, async (request) => {
    await removeNode(deps, request.params.node, request.query.force === 'true');
    const { revision } = await deps.store.list(nodeKey(request.params.node));
    return { revision, applied: await isApplied(deps, revision) };
  });
}

/** Repeated after a failure half-way it goes on where it stopped. @throws NOT_FOUND, CONFLICT, IN_USE */
async function removeNode({ store, ipam, node: self }: ApiDeps, node: string, force: boolean): Promise<void> {
  if (node === self)
    throw new NetctlError(
      'CONFLICT',
      `node ${node} is the one that answers: stop its agent and ask another node`,
    );
  const endpoints = (await store.list(`${keyPrefix.endpoint}${node}/`)).entries;
  const record = await store.get(nodeKey(node));
  const { blocks, addresses } = ipam.holdings(node);
  const isEmpty = blocks.length + addresses.length + endpoints.length === 0;
  if (record === null && isEmpty)
    throw new NetctlError('NOT_FOUND', `there is no node ${node}: see \`netctl node show\``, { node });
  if (!isEmpty && !force)
    throw new NetctlError(
      'IN_USE',
      `node ${node} has ${endpoints.length} endpoints, ${addresses.length} addresses and ${blocks.length} blocks: if it will not come back, ` +
        'remove it with --force; if it does live, it tears its containers’ network down',
      { node, endpoints: endpoints.length, addresses: addresses.length, blocks: blocks.length },
    );
  await deleteAll(store, record === null ? [] : [nodeKey(node)]);
  await ipam.removeNode(node);
  await deleteAll(
    store,
    endpoints.map(({ key }) => key),
  );
}

async function deleteAll(store: Store, keys: readonly string[]): Promise<void> {
  for (let at = 0; at < keys.length; at += mostDeletions)
    await store.transact(
      [],
      keys.slice(at, at + mostDeletions).map((key) => ({ kind: 'delete', key })),
    );
}
