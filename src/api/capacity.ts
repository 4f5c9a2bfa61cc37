/**
 * Numbers over HTTP: which node could take how many addresses, and how full pools, nodes, tenants and apps are.
 *
 * In: requests, the counts of this node's picture. Out: `/v1/capacity`, `/v1/utilization`. Never: a walk over addresses.
 */
import type { FastifyInstance } from 'fastify';
import { capacity, usageBy, usageByPool } from '../ipam/usage.ts';
import type { ApiDeps } from './deps.ts';
import { typed } from './http.ts';
import { capacityAnswer, capacityBody, utilizationList, utilizationQuery } from './ipam-schemas.ts';

export function capacityRoutes(instance: FastifyInstance, { ipam: { book } }: ApiDeps): void {
  const api = typed(instance);

  api.post(
    '/v1/capacity',
    { schema: { body: capacityBody, response: { 200: capacityAnswer } } },
    async (request) => {
      const { nodes, pools, quotaLeft } = capacity(book, { ...request.body, kind: 'routed' });
      return { revision: book.revision, nodes: [...nodes], pools: [...pools], quotaLeft };
    },
  );

  api.get(
    '/v1/utilization',
    { schema: { querystring: utilizationQuery, response: { 200: utilizationList } } },
    async (request) => {
      const { by, tenant = null } = request.query;
      const items = by === 'pool' ? usageByPool(book, tenant) : usageBy(book, by, tenant);
      return { revision: book.revision, items };
    },
  );
}
