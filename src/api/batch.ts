/**
 * Many operations in one request: a deployment of hundreds of containers takes one round trip and few transactions.
 *
 * In: up to 1000 operations. Out: for each its result or its error, in their order; with `atomic` all or none. Never: force in a batch
 * (each forced change is asked for, and logged, by itself); an operation begun when the caller's time is over.
 */
import { randomUUID } from 'node:crypto';
import type { FastifyInstance } from 'fastify';
import type { BatchItem } from '../ipam/batch.ts';
import type { Operation } from '../ipam/operations.ts';
import { isDecidedHere, lookFirst, mayBePast } from '../ipam/second-look.ts';
import { asNetctlError, NetctlError } from '../lib/errors.ts';
import { type BatchCall, batchAnswer, batchBody } from './batch-schemas.ts';
import { lateness } from './budget.ts';
import type { Caller } from './caller.ts';
import type { ApiDeps } from './deps.ts';
import { errorAnswer } from './errors.ts';
import { typed } from './http.ts';
import { steps } from './steps.ts';

interface Prepared {
  readonly operation: Operation;
  answer(result: unknown): unknown;
  isNothing?(result: unknown): boolean;
}

export function batchRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  typed(instance).post(
    '/v1/allocations/batch',
    { config: { audience: 'tenant-or-node' }, schema: { body: batchBody, response: { 200: batchAnswer } } },
    async (request, reply) => {
      const { atomic, operations } = request.body;
      const isOwn = operations.every((call) => 'address' in call && isDecidedHere(deps.ipam, call.address));
      const unheard = isOwn ? null : await lookFirst(deps.ipam);
      const prepared = operations.map((call) => prepare(deps, request.caller, call));
      const refusal = prepared.findIndex((one) => one instanceof NetctlError);
      const refused = prepared[refusal];
      if (atomic && refused instanceof NetctlError) {
        const { code, message, details } = trueError(deps, refused, unheard);
        throw new NetctlError(code, `operations[${refusal}]: ${message}`, { ...details, operation: refusal });
      }
      const allowed = prepared.filter((one): one is Prepared => !(one instanceof NetctlError));
      const isLate = lateness(request, reply);
      const done = await deps.ipam
        .batch(
          allowed.map(({ operation }) => operation),
          { atomic, isLate },
        )
        .catch((thrown: unknown) => {
          throw trueError(deps, asNetctlError(thrown), unheard);
        });
      let next = 0;
      const items = prepared.map((one) => {
        if (one instanceof NetctlError) return shown({ ok: false, error: trueError(deps, one, unheard) });
        return shown(trueItem(deps, done[next++]!, one, unheard), one);
      });
      return { items, failed: items.filter(({ status }) => status >= 400).length };
    },
  );
}

/** Who may not do it finds that out here, for each operation by itself. */
function prepare(deps: ApiDeps, caller: Caller, call: BatchCall): Prepared | NetctlError {
  try {
    const { op, ...rest } = call;
    const body = op === 'reserve' ? { id: randomUUID(), ...rest } : rest;
    return steps[op](deps, caller, body as never) as Prepared;
  } catch (error) {
    return asNetctlError(error);
  }
}

/** @param unheard why the cluster could not be asked what has changed since */
function trueError(deps: ApiDeps, error: NetctlError, unheard: NetctlError | null): NetctlError {
  return unheard !== null && mayBePast(deps.ipam, error) ? unheard : error;
}

function trueItem(
  deps: ApiDeps,
  item: BatchItem,
  { isNothing }: Prepared,
  unheard: NetctlError | null,
): BatchItem {
  if (!item.ok) return { ok: false, error: trueError(deps, item.error, unheard) };
  return unheard !== null && isNothing?.(item.result) ? { ok: false, error: unheard } : item;
}

function shown(item: BatchItem, prepared?: Prepared) {
  if (item.ok) return { status: 200, result: prepared?.answer(item.result) };
  const { status, body } = errorAnswer(item.error);
  return { status, error: body.error };
}
