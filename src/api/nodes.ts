/**
 * Nodes over HTTP: which there are and whether their agents live, and taking one out of the cluster.
 *
 * In: node records, what agents say of themselves, requests. Out: `/v1/nodes`. Never: a node removed whose agent is known to live,
 * unless that is forced; "alive" or "gone" of another node while the cluster cannot be asked (null then).
 */
import type { FastifyInstance } from 'fastify';
import { lookAtNode, type RemovalRequest, removeNode } from '../ipam/remove-node.ts';
import { NetctlError } from '../lib/errors.ts';
import { statusKey } from '../model/keys.ts';
import { agentPresenceSchema, nodeSchema } from '../model/records.ts';
import type { ApiDeps } from './deps.ts';
import { byName, typed } from './http.ts';
import { nodeHoldings, nodeList, nodeParams, nodeRemoval, nodeRemoved } from './schemas.ts';
import { parserOf, readAll, readReadable } from './store-access.ts';

export function nodeRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);

  api.get('/v1/nodes', { schema: { response: { 200: nodeList } } }, async () => {
    const { revision, found } = await readAll(deps.store, 'node', parserOf(nodeSchema));
    const lives = await livesOf(deps);
    const items = found.map(({ key, value, revision }) => ({
      name: key.node,
      ...value,
      ...lives(key.node, value.startedAt),
      state: deps.ipam.book.nodeState(key.node)?.state ?? null,
      revision,
    }));
    return { revision, items: items.sort((a, b) => byName(a.name, b.name)) };
  });

  api.get(
    '/v1/nodes/:node/holdings',
    { schema: { params: nodeParams, response: { 200: nodeHoldings } } },
    async (request) => {
      const { node } = request.params;
      const { holdings, steps } = await lookAtNode(deps.store, removal(deps, node));
      if (steps.length === 0) throw noNode(node);
      return holdings;
    },
  );

  api.delete(
    '/v1/nodes/:node',
    { schema: { params: nodeParams, querystring: nodeRemoval, response: { 200: nodeRemoved } } },
    async (request) => forgetNode(deps, request.params.node, request.query.force === 'true'),
  );
}

/** Takes the node out of the cluster, with all that it has. @throws NOT_FOUND; IN_USE for this node, and for one that lives unless forced */
export async function forgetNode(deps: ApiDeps, node: string, force: boolean) {
  if (node === deps.node)
    throw new NetctlError(
      'IN_USE',
      `node ${node} is the one that you ask: stop its agent, and ask that of another node`,
      { node },
    );
  const asked = removal(deps, node);
  if ((await lookAtNode(deps.store, asked)).steps.length === 0) throw noNode(node);
  const lives = await livesOf(deps);
  const { alive } = lives(node, '');
  if (alive === true && !force)
    throw new NetctlError(
      'IN_USE',
      `the agent of node ${node} is running: stop it first, or force it (its endpoints are torn down then)`,
      { node },
    );
  const holdings = await removeNode(deps.store, asked);
  // What was empty or free at once goes now, the rest when its cooldown is over.
  await deps.ipam.expire();
  return { ...holdings, forced: alive === true };
}

const removal = ({ node: self, clock }: ApiDeps, node: string): RemovalRequest => ({
  node,
  self,
  now: new Date(clock.now()),
});

function noNode(node: string): NetctlError {
  return new NetctlError(
    'NOT_FOUND',
    `there is no node ${node}, nor anything of it: see \`netctl node show\``,
    {
      node,
    },
  );
}

type Life = { alive: boolean | null; since: string | null; problems: string[] };

/** What is known of the agents: of this one for certain, of others as long as the cluster answers. */
async function livesOf(deps: ApiDeps): Promise<(node: string, startedAt: string) => Life> {
  const status = deps.status();
  const { found } = await readReadable(deps.store, 'status', parserOf(agentPresenceSchema));
  const present = new Map(found.map(({ key, value }) => [statusKey(key.node, key.name), value]));
  return (node, startedAt) => {
    if (node === deps.node) return { alive: true, since: startedAt, problems: [] };
    if (status.store.cluster?.reachable !== true) return { alive: null, since: null, problems: [] };
    const agent = present.get(statusKey(node, 'agent'));
    if (agent === undefined) return { alive: false, since: null, problems: [] };
    return { alive: true, since: agent.startedAt, problems: agent.problems };
  };
}
