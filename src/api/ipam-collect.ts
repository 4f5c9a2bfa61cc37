/**
 * Collecting leaked addresses over HTTP: one look of this agent, at what it can speak for.
 *
 * In: whether to free what is confirmed. Out: each leak with its verdict, evidence and outcome. Never: an address of another node's
 * freed (its own agent looks).
 */
import type { FastifyInstance } from 'fastify';
import type { ApiDeps } from './deps.ts';
import { typed } from './http.ts';
import { collectAnswer, collectBody } from './ipam-schemas.ts';

export function ipamCollectRoutes(instance: FastifyInstance, { collect }: ApiDeps): void {
  typed(instance).post(
    '/v1/ipam/collect',
    { schema: { body: collectBody, response: { 200: collectAnswer } } },
    async (request) => {
      const { leaks, held } = await collect(request.body);
      return { items: leaks.map((leak) => ({ ...leak })), held };
    },
  );
}
