/**
 * Errors as HTTP: code or kind → status, and the body that every failed request has.
 *
 * In: anything thrown by a handler, a validator or fastify. Out: status and `{"error":{code,message,retryable,details}}`.
 * Never: a stack trace, a message without the field that it is about.
 */
import type { FastifyError } from 'fastify';
import { asNetctlError, type ErrorCode, type ErrorKind, NetctlError } from '../lib/errors.ts';

const STATUS: Readonly<Record<ErrorKind, number>> = {
  invalid: 400,
  'not-found': 404,
  conflict: 409,
  exhausted: 409,
  transient: 503,
  kernel: 500,
  bug: 500,
};

/** Codes for which HTTP has a status that says more than their kind's. */
const CODE_STATUS: Partial<Readonly<Record<ErrorCode, number>>> = {
  FORBIDDEN: 403,
  IDEMPOTENCY_MISMATCH: 422,
  OUT_OF_RANGE: 422,
  FAMILY_UNSUPPORTED: 422,
  CIDR_OVERLAP: 422,
  PRECONDITION_FAILED: 412,
  REVISION_COMPACTED: 410,
  BUDGET_INSUFFICIENT: 408,
  RATE_LIMITED: 429,
  STALE_GENERATION: 412,
  NOT_OWNER: 403,
  QUOTA_EXCEEDED: 403,
  RESERVATION_EXPIRED: 410,
};

export interface ErrorBody {
  readonly error: { code: string; message: string; retryable: boolean; details: Record<string, unknown> };
}

/** The answer to a failed request. */
export function errorAnswer(thrown: unknown): { status: number; body: ErrorBody; error: NetctlError } {
  const error = toNetctlError(thrown);
  const { code, message, kind, details } = error;
  return {
    status: CODE_STATUS[code] ?? STATUS[kind],
    error,
    body: { error: { code, message, retryable: kind === 'transient', details: { ...details } } },
  };
}

/** Fastify's own refusals (not JSON, too large, wrong content type) are the caller's fault; what else we did not foresee is ours. */
function toNetctlError(thrown: unknown): NetctlError {
  if (thrown instanceof NetctlError) return thrown;
  const status = (thrown as Partial<FastifyError>).statusCode;
  if (status !== undefined && status >= 400 && status < 500) {
    return new NetctlError('INVALID', `request: ${(thrown as Error).message}`);
  }
  return asNetctlError(thrown);
}
