/**
 * Where the policy of this node's endpoints is enforced: `GET /v1/enforcement`.
 *
 * In: what the agent knows. Out: one item for each endpoint. Never: endpoints of other nodes, whose agents know.
 */
import type { FastifyInstance } from 'fastify';
import type { ApiDeps } from './deps.ts';
import { enforcementList } from './enforcement-schemas.ts';
import { typed } from './http.ts';

export function enforcementRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  typed(instance).get('/v1/enforcement', { schema: { response: { 200: enforcementList } } }, async () => ({
    node: deps.node,
    items: [...deps.enforcement()],
  }));
}
