/**
 * What went through the interfaces of this node's endpoints: `GET /v1/counters`.
 *
 * In: the agent's reading. Out: one item for each endpoint whose interface is there. Never: endpoints of other nodes, whose agents know.
 */
import type { FastifyInstance } from 'fastify';
import { counterList } from './counter-schemas.ts';
import type { ApiDeps } from './deps.ts';
import { typed } from './http.ts';

export function counterRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  typed(instance).get('/v1/counters', { schema: { response: { 200: counterList } } }, async () => ({
    node: deps.node,
    seconds: performance.now() / 1000,
    items: [...(await deps.counters())],
  }));
}
