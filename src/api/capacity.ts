/**
 * Numbers over HTTP: which node could take how many addresses, and how full pools, nodes, tenants and apps are.
 *
 * In: requests, the counts of this node's picture. Out: `/v1/capacity`, `/v1/utilization`. Never: a walk over addresses.
 */
import type { FastifyInstance } from 'fastify';
import { whereKept } from '../ipam/kept.ts';
import { capacity, usageBy, usageByPool } from '../ipam/usage.ts';
import { namedTenant, showingTo } from './caller.ts';
import type { ApiDeps } from './deps.ts';
import { typed } from './http.ts';
import { capacityAnswer, capacityBody, utilizationList, utilizationQuery } from './ipam-schemas.ts';

export function capacityRoutes(instance: FastifyInstance, { ipam: { book } }: ApiDeps): void {
  const api = typed(instance);
  const config = { audience: 'tenant' } as const;

  api.post(
    '/v1/capacity',
    { config, schema: { body: capacityBody, response: { 200: capacityAnswer } } },
    async (request) => {
      const { app, stickyInstances, kind, ...wanted } = request.body;
      const tenant = namedTenant(showingTo(request.caller, wanted.tenant));
      const named = wanted.pools[0] === undefined ? undefined : book.pool(wanted.pools[0]);
      const { nodes, pools, quotaLeft } = capacity(book, {
        ...wanted,
        tenant,
        kind: kind ?? named?.kind ?? 'routed',
      });
      const owners = stickyInstances.map((instance) => ({ tenant, app, instance }));
      const sticky = whereKept(
        book,
        owners,
        nodes.map(({ node }) => node),
      );
      return { revision: book.revision, nodes: [...nodes], pools: [...pools], quotaLeft, sticky };
    },
  );

  api.get(
    '/v1/utilization',
    { config, schema: { querystring: utilizationQuery, response: { 200: utilizationList } } },
    async (request) => {
      const { by } = request.query;
      const tenant = showingTo(request.caller, request.query.tenant);
      const items = by === 'pool' ? usageByPool(book, tenant) : usageBy(book, by, tenant);
      return { revision: book.revision, items };
    },
  );
}
