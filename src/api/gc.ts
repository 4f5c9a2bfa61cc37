/**
 * Collecting leaks in two requests: a plan that shows what would be freed and why, and its application.
 *
 * In: looks at the records and links (src/ipam/collection.ts). Out: a plan that is good for an hour, then what became of it. Never: an
 * address freed that the plan did not show, or whose leak is not seen again when the plan is applied.
 */
import { randomUUID } from 'node:crypto';
import type { FastifyInstance } from 'fastify';
import { NetctlError } from '../lib/errors.ts';
import type { Address } from '../model/ip.ts';
import type { ApiDeps } from './deps.ts';
import { typed } from './http.ts';
import { gcApplied, gcApplyBody, gcPlan, gcPlanBody } from './upkeep-schemas.ts';

const keptMilliseconds = 3_600_000;
const mostPlans = 32;

interface Plan {
  readonly addresses: ReadonlySet<Address>;
  readonly expiresAt: number;
}

export function gcRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);
  const { clock, ipam } = deps;
  const plans = new Map<string, Plan>();

  api.post('/v1/gc/plan', { schema: { body: gcPlanBody, response: { 200: gcPlan } } }, async (request) => {
    const before = clock.now() - request.body.minAgeSeconds * 1000;
    const isOld = (address: Address): boolean =>
      Date.parse(ipam.book.address(address)?.value.allocatedAt ?? '') <= before;
    const { leaks, held } = await deps.collect({ dryRun: true, confirmed: false });
    const meant = leaks.filter(({ address }) => isOld(address));
    const planId = randomUUID();
    const expiresAt = clock.now() + keptMilliseconds;
    for (const [id, plan] of plans)
      if (plan.expiresAt <= clock.now() || plans.size >= mostPlans) plans.delete(id);
    plans.set(planId, { addresses: new Set(meant.map(({ address }) => address)), expiresAt });
    const items = meant.map(({ address, node, verdict, evidence }) => ({ address, node, verdict, evidence }));
    return { planId, expiresAt: new Date(expiresAt).toISOString(), items, held };
  });

  api.post(
    '/v1/gc/apply',
    { schema: { body: gcApplyBody, response: { 200: gcApplied } } },
    async (request) => {
      const { planId, confirmed } = request.body;
      const plan = plans.get(planId);
      if (plan === undefined || plan.expiresAt <= clock.now())
        throw new NetctlError('NOT_FOUND', `there is no plan ${planId} (any more) at this agent: plan anew`, {
          planId,
        });
      const { leaks, held } = await deps.collect({ dryRun: false, confirmed, only: plan.addresses });
      const items = leaks
        .filter(({ address }) => plan.addresses.has(address))
        .map(({ address, node, evidence, outcome }) => ({ address, node, evidence, outcome }));
      if (held === null && items.every(({ outcome }) => outcome !== 'left')) plans.delete(planId);
      return { items, held };
    },
  );
}
