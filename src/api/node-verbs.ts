/**
 * Taking nodes out of use over HTTP: drain, fence, readmit, forget.
 *
 * In: the word of a scheduler or an operator that a node is to be emptied, or is dead. Out: the node's state, and what is in use there.
 * Never: an address freed because a node is silent; a node forgotten without its name being said twice.
 */
import type { FastifyInstance } from 'fastify';
import { invalid, NetctlError } from '../lib/errors.ts';
import type { NodeState } from '../model/records.ts';
import type { Caller } from './caller.ts';
import type { ApiDeps } from './deps.ts';
import { typed } from './http.ts';
import { forgetNode } from './nodes.ts';
import { nodeParams, nodeRemoved } from './schemas.ts';
import { forgetBody, type NodeAffected, nodeAffected, nodeReadmitted, stateBody } from './upkeep-schemas.ts';

export function nodeVerbRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);
  const params = nodeParams;

  for (const [verb, state] of [
    ['drain', 'drained'],
    ['fence', 'fenced'],
  ] as const) {
    api.post(
      `/v1/nodes/:node/${verb}`,
      { schema: { params, body: stateBody, response: { 200: nodeAffected } } },
      async (request) => close(deps, request.caller, request.params.node, state),
    );
  }

  api.post(
    '/v1/nodes/:node/readmit',
    { schema: { params, body: stateBody, response: { 200: nodeReadmitted } } },
    async (request) => {
      const { node } = request.params;
      await deps.ipam.reopenNode(node);
      return { node };
    },
  );

  api.post(
    '/v1/nodes/:node/forget',
    { schema: { params, body: forgetBody, response: { 200: nodeRemoved } } },
    async (request) => {
      const { node } = request.params;
      const { confirm, force } = request.body;
      if (confirm !== node) throw invalid('confirm', confirm, `the name of the node, ${node}`);
      return forgetNode(deps, node, force);
    },
  );
}

async function close(
  { ipam, clock, node: self }: ApiDeps,
  caller: Caller,
  node: string,
  state: NodeState['state'],
): Promise<NodeAffected> {
  if (!ipam.book.nodes().has(node))
    throw new NetctlError('NOT_FOUND', `there is no node ${node}: see \`netctl node show\``, { node });
  if (state === 'fenced' && node === self)
    throw new NetctlError('IN_USE', `node ${node} is the one that you ask: ask the agent of another node`, {
      node,
    });
  const since = new Date(clock.now()).toISOString();
  const affected = await ipam.closeNode(node, { state, since, by: caller.name.slice(0, 256) });
  const items = affected.map(({ address, record }) => {
    const { owner, onRelease, container, generation } = record;
    return { address, owner, state: record.state, onRelease, container, generation };
  });
  return { node, state, items };
}
