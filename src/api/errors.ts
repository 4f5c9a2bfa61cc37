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
  exhausted: 507,
  transient: 503,
  kernel: 500,
  bug: 500,
};

/** Codes for which HTTP has a status that says more than their kind's. */
const CODE_STATUS: Partial<Readonly<Record<ErrorCode, number>>> = {
  STALE_GENERATION: 412,
  NOT_OWNER: 403,
  QUOTA_EXCEEDED: 403,
  RESERVATION_EXPIRED: 410,
  NODE_LIMIT: 409,
};

export interface ErrorBody {
  readonly error: { code: string; message: string; retryable: boolean; details: Record<string, unknown> };
}

/** The record is not at the revision that the request's If-Match names. */
export class PreconditionFailed extends NetctlError {
  constructor(what: string, wanted: number, actual: number) {
    super(
      'CONFLICT',
      `${what} was changed meanwhile: If-Match names revision ${wanted}, it is at ${actual}: read it again and repeat the change`,
      { wanted, actual },
    );
  }
}

/** The Idempotency-Key was used for another request. */
export class IdempotencyMismatch extends NetctlError {
  constructor(key: string) {
    super(
      'CONFLICT',
      `Idempotency-Key ${key} was used for another request: repeat a request as it was, and give each new one a key of its own`,
      { key },
    );
  }
}

/** The answer to a failed request. */
export function errorAnswer(thrown: unknown): { status: number; body: ErrorBody; error: NetctlError } {
  const error = toNetctlError(thrown);
  const { code, message, kind, details } = error;
  const status = statusOf(error);
  return {
    status,
    error,
    body: { error: { code, message, retryable: kind === 'transient', details: { ...details } } },
  };
}

function statusOf(error: NetctlError): number {
  if (error instanceof PreconditionFailed) return 412;
  if (error instanceof IdempotencyMismatch) return 422;
  return CODE_STATUS[error.code] ?? STATUS[error.kind];
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
