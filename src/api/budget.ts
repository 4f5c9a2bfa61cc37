/**
 * X-Request-Timeout-Ms: how long the caller will wait. What cannot be done in that time is refused before it is begun, so that the caller
 * knows that nothing was.
 *
 * In: the header; how long such requests took of late. Out: BUDGET_INSUFFICIENT, or nothing. Never: a refusal by durations that are old (a
 * slow moment would shut out everybody for good).
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { invalid, NetctlError } from '../lib/errors.ts';
import type { ApiDeps } from './deps.ts';

const header = 'x-request-timeout-ms';
const keptSamples = 32;
const sampleMilliseconds = 60_000;
/** What the store takes at most to decide something, or to find that the cluster does not answer. */
const unreachableMilliseconds = 3000;

interface Sample {
  readonly at: number;
  readonly milliseconds: number;
}

/** For every request of the instance that changes something. */
export function keepBudgets(instance: FastifyInstance, { clock, status }: ApiDeps): void {
  const samples = new Map<string, Sample[]>();

  instance.addHook('preValidation', async (request, reply) => {
    const budget = budgetOf(request);
    if (budget === null || request.method === 'GET') return;
    const now = clock.now();
    const recent = (samples.get(operationOf(request)) ?? [])
      .filter(({ at }) => now - at < sampleMilliseconds)
      .map(({ milliseconds }) => milliseconds)
      .sort((a, b) => a - b);
    const usual = recent[Math.ceil(recent.length * 0.9) - 1] ?? 0;
    const isCutOff = status().store.cluster?.reachable === false;
    const expected = Math.max(1, usual, isCutOff ? unreachableMilliseconds : 0);
    const left = budget - reply.elapsedTime;
    if (left >= expected) return;
    throw new NetctlError(
      'BUDGET_INSUFFICIENT',
      `${Math.max(0, Math.floor(left))} ms are left and such requests take ${Math.ceil(expected)} ms at the moment: nothing was done`,
      { budgetMs: budget, expectedMs: Math.ceil(expected) },
    );
  });

  instance.addHook('onResponse', async (request, reply) => {
    if (request.method === 'GET' || reply.statusCode >= 400) return;
    const operation = operationOf(request);
    const of = samples.get(operation) ?? [];
    of.push({ at: clock.now(), milliseconds: reply.elapsedTime });
    if (of.length > keptSamples) of.shift();
    samples.set(operation, of);
  });
}

/** Says, from then on, that the caller's time is over. */
export function lateness(request: FastifyRequest, reply: FastifyReply): () => NetctlError | null {
  const budget = budgetOf(request);
  return () =>
    budget === null || reply.elapsedTime < budget
      ? null
      : new NetctlError('BUDGET_INSUFFICIENT', `not begun: the ${budget} ms of the request are over`, {
          budgetMs: budget,
        });
}

/** @throws INVALID */
function budgetOf({ headers }: FastifyRequest): number | null {
  const text = headers[header];
  if (text === undefined) return null;
  if (typeof text !== 'string' || !/^\d{1,7}$/.test(text))
    throw invalid('X-Request-Timeout-Ms', text, 'a number of milliseconds from 0 to 9999999');
  return Number(text);
}

/** One per route, so that there are as many as routes. */
function operationOf({ method, routeOptions }: FastifyRequest): string {
  return `${method} ${routeOptions.url}`;
}
