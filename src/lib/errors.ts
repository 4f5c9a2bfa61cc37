/**
 * The one table of errors: a code says what is wrong, its kind says what to do about it.
 *
 * In: code, message, details. Out: a NetctlError that the CNI front (numbers), the API (HTTP status) and the
 * command line (exit code) translate by kind or code. Never: an error that is only a string.
 */

/** What a caller can do: `invalid` mend the request, `conflict` look again, `transient` retry later, `bug` report. */
export type ErrorKind = 'invalid' | 'not-found' | 'conflict' | 'exhausted' | 'transient' | 'kernel' | 'bug';

const KINDS = {
  INVALID: 'invalid',
  FORBIDDEN: 'invalid',
  IDEMPOTENCY_MISMATCH: 'invalid',
  OUT_OF_RANGE: 'invalid',
  FAMILY_UNSUPPORTED: 'invalid',
  NOT_FOUND: 'not-found',
  ALREADY_EXISTS: 'conflict',
  CONFLICT: 'conflict',
  CIDR_OVERLAP: 'conflict',
  PRECONDITION_FAILED: 'conflict',
  REVISION_COMPACTED: 'conflict',
  RECORD_BROKEN: 'conflict',
  IN_USE: 'conflict',
  POOL_NOT_FOUND: 'not-found',
  POOL_DISABLED: 'conflict',
  POOL_EXHAUSTED: 'exhausted',
  ADDRESS_IN_USE: 'conflict',
  ADDRESS_RESERVED: 'conflict',
  ADDRESS_EXCLUDED: 'conflict',
  ADDRESS_UNAVAILABLE: 'conflict',
  ADDRESS_QUARANTINED: 'conflict',
  DUPLICATE_ADDRESS: 'conflict',
  AFFINITY_MISMATCH: 'conflict',
  NODE_LIMIT: 'exhausted',
  QUOTA_EXCEEDED: 'exhausted',
  PORT_IN_USE: 'conflict',
  PORTS_EXHAUSTED: 'exhausted',
  STALE_GENERATION: 'conflict',
  NOT_OWNER: 'conflict',
  RESERVATION_EXPIRED: 'conflict',
  NETNS_INVALID: 'invalid',
  INTERFACE_EXISTS: 'conflict',
  LINK: 'kernel',
  ROUTE: 'kernel',
  KERNEL: 'kernel',
  POLICY: 'kernel',
  STORE_UNAVAILABLE: 'transient',
  STORE_COMPACTED: 'transient',
  AGENT_UNAVAILABLE: 'transient',
  GATEWAY_UNREACHABLE: 'transient',
  TRY_AGAIN: 'transient',
  BUDGET_INSUFFICIENT: 'transient',
  RATE_LIMITED: 'transient',
  BUG: 'bug',
} as const satisfies Record<string, ErrorKind>;

export type ErrorCode = keyof typeof KINDS;

/** Every code with its kind, for the fronts that translate and the test that keeps docs/errors.md equal. */
export const errorKinds: Readonly<Record<ErrorCode, ErrorKind>> = KINDS;

export class NetctlError extends Error {
  readonly code: ErrorCode;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, details: Record<string, unknown> = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'NetctlError';
    this.code = code;
    this.details = details;
  }

  get kind(): ErrorKind {
    return KINDS[this.code];
  }
}

/** Bad input: names the field, the value as given (shortened), and what is accepted. */
export function invalid(field: string, value: unknown, accepted: string): NetctlError {
  const fault = value === undefined ? 'nothing given' : `${show(value)} is not valid`;
  return new NetctlError('INVALID', `${field}: ${fault}: expected ${accepted}`, {
    field,
    value,
    accepted,
  });
}

/** Any thrown value as a NetctlError; what we did not foresee is a bug and keeps its cause. */
export function asNetctlError(thrown: unknown): NetctlError {
  if (thrown instanceof NetctlError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new NetctlError('BUG', `unexpected error: ${message}`, {}, thrown);
}

function show(value: unknown): string {
  const text = typeof value === 'string' ? JSON.stringify(value) : (JSON.stringify(value) ?? String(value));
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
