/**
 * What a failed call to etcd means: whether anything can have been done, and who has to act.
 *
 * In: the error of a gRPC call. Out: a NetctlError whose details have `outcome`. Never: `refused` for a call that etcd may have
 * carried out; only a caller that reads again can tell then.
 */
import { type ServiceError, status } from '@grpc/grpc-js';
import { NetctlError } from '../lib/errors.ts';

/** `not-sent` and `refused`: nothing was done, which time may mend or may not. `unknown`: it may have been, or may still be. */
export type Outcome = 'not-sent' | 'refused' | 'unknown';

/** etcd refuses before it proposes anything to the cluster, and says so under its own name, with one of these codes. */
const refusals: ReadonlySet<status> = new Set([
  status.INVALID_ARGUMENT,
  status.NOT_FOUND,
  status.ALREADY_EXISTS,
  status.PERMISSION_DENIED,
  status.RESOURCE_EXHAUSTED,
  status.FAILED_PRECONDITION,
  status.OUT_OF_RANGE,
  status.UNIMPLEMENTED,
  status.UNAUTHENTICATED,
]);

/** The limits of one request: operations per transaction (128 by default), bytes (1.5 MiB by default; gRPC's own is 0.5 MiB above). */
const tooLarge =
  /^(etcdserver: too many operations in txn request|etcdserver: request is too large|grpc: received message larger than max)/;

/** Also what an old or missing token is called by the servers that do not tell the two apart. */
const tokenProblem = /^etcdserver: (invalid auth token|revision of auth store is old|user name is empty)/;

export function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'details' in error && 'metadata' in error;
}

export function outcomeOf({ code, details }: ServiceError): Outcome {
  if (details === 'etcdserver: no leader') return 'not-sent';
  if (tooLarge.test(details)) return 'refused';
  return details.startsWith('etcdserver: ') && refusals.has(code) ? 'refused' : 'unknown';
}

/** The token has expired or the users have changed: the call was refused before it was looked at. */
export function isTokenProblem(error: unknown): boolean {
  return isServiceError(error) && tokenProblem.test(error.details);
}

/** The member cannot serve, or nobody knows: another one may. */
export function isMemberProblem({ code }: ServiceError): boolean {
  return code === status.UNAVAILABLE || code === status.DEADLINE_EXCEEDED;
}

export function isTooLargeToReceive(error: unknown): boolean {
  return (
    isServiceError(error) &&
    error.code === status.RESOURCE_EXHAUSTED &&
    /^Received message/.test(error.details)
  );
}

/** `what` is the call in words, as the subject of a sentence: "transaction of 3 writes". */
export function etcdError(endpoint: string, what: string, error: unknown): NetctlError {
  if (error instanceof NetctlError) return error;
  if (!isServiceError(error))
    return unavailable(endpoint, `${what} failed: ${String(error)}`, 'unknown', error);
  const reason = error.details.replace(/^etcdserver: /, '');
  if (/required revision (has been compacted|is a future revision)/.test(reason))
    return new NetctlError('STORE_COMPACTED', `etcd ${endpoint}: ${what}: ${reason}`, {}, error);
  const outcome = outcomeOf(error);
  if (tooLarge.test(error.details))
    return new NetctlError('INVALID', `etcd ${endpoint} refuses a ${what}: ${reason}`, { outcome }, error);
  const explained = error.code === status.DEADLINE_EXCEEDED ? 'no answer in time' : reason;
  return unavailable(endpoint, `${what} failed: ${explained}`, outcome, error);
}

export function unavailable(
  endpoint: string,
  problem: string,
  outcome: Outcome,
  cause?: unknown,
): NetctlError {
  const unsure = outcome === 'unknown' ? '; it is not known whether it was carried out' : '';
  return new NetctlError('STORE_UNAVAILABLE', `etcd ${endpoint}: ${problem}${unsure}`, { outcome }, cause);
}
