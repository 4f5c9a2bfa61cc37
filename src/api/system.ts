/**
 * Routes about the agent itself: version, status, configuration, and the document that describes the API.
 *
 * In: what the agent reports. Out: `/v1/version`, `/v1/status`, `/v1/config`, `/v1/openapi.json`.
 * Never: a secret of the configuration (the agent leaves them out of what it hands over).
 */
import type { FastifyInstance } from 'fastify';
import type { ApiDeps } from './deps.ts';
import { typed } from './http.ts';
import { configList, statusItem, versionItem } from './schemas.ts';
import { bgpProblems, problemsOf } from './status.ts';

export function systemRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);

  const anyone = { audience: 'anyone' } as const;
  api.get('/v1/openapi.json', { config: anyone, schema: { hide: true } }, () => instance.swagger());

  api.get('/v1/version', { config: anyone, schema: { response: { 200: versionItem } } }, () => ({
    version: deps.version,
    node: deps.node,
  }));

  api.get('/v1/status', { schema: { response: { 200: statusItem } } }, async () => {
    const status = deps.status();
    const bgp = await deps.bgpStatus();
    const problems = [...problemsOf(status), ...(bgp === null ? [] : bgpProblems(bgp))];
    const { agent, store, policy, endpoints, records, guard } = status;
    return {
      node: deps.node,
      healthy: problems.length === 0,
      problems,
      agent,
      store,
      policy: {
        ...policy,
        counters: { ...policy.counters },
        notices: [...policy.notices],
        lastRepair: policy.lastRepair && { at: policy.lastRepair.at, what: [...policy.lastRepair.what] },
      },
      endpoints: { total: endpoints.total, unhealthy: [...endpoints.unhealthy] },
      records: { broken: [...records.broken] },
      guard: { held: [...guard.held] },
      bgp,
    };
  });

  api.get('/v1/config', { schema: { response: { 200: configList } } }, () => ({ items: [...deps.config()] }));
}
