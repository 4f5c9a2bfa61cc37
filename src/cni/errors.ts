/**
 * Our errors as CNI error objects (CNI specification 1.1.0, "Error"; docs/errors.md lists the numbers).
 *
 * In: any thrown value. Out: code, msg and details as the runtime prints them, on one line. Never: an empty answer.
 */
import { asNetctlError, type ErrorCode, type NetctlError } from '../lib/errors.ts';

/** 0–99 are the specification's, from 100 on ours. */
export const cniCodes: Readonly<Record<ErrorCode, number>> = {
  INVALID: 7,
  NOT_FOUND: 3,
  TRY_AGAIN: 11,
  AGENT_UNAVAILABLE: 11,
  BUDGET_INSUFFICIENT: 11,
  RATE_LIMITED: 11,
  NETNS_INVALID: 8,
  STORE_UNAVAILABLE: 100,
  STORE_COMPACTED: 100,
  REVISION_COMPACTED: 100,
  POOL_EXHAUSTED: 101,
  ADDRESS_UNAVAILABLE: 102,
  ADDRESS_IN_USE: 102,
  ADDRESS_RESERVED: 102,
  ADDRESS_EXCLUDED: 102,
  OUT_OF_RANGE: 102,
  POOL_NOT_FOUND: 103,
  POOL_DISABLED: 103,
  FAMILY_UNSUPPORTED: 103,
  ADDRESS_QUARANTINED: 105,
  DUPLICATE_ADDRESS: 102,
  AFFINITY_MISMATCH: 106,
  NODE_LIMIT: 107,
  QUOTA_EXCEEDED: 108,
  PORT_IN_USE: 114,
  PORTS_EXHAUSTED: 114,
  STALE_GENERATION: 109,
  NOT_OWNER: 110,
  FORBIDDEN: 110,
  RESERVATION_EXPIRED: 113,
  CONFLICT: 104,
  ALREADY_EXISTS: 104,
  IN_USE: 104,
  CIDR_OVERLAP: 104,
  PRECONDITION_FAILED: 104,
  IDEMPOTENCY_MISMATCH: 104,
  RECORD_BROKEN: 104,
  GATEWAY_UNREACHABLE: 115,
  INTERFACE_EXISTS: 111,
  LINK: 111,
  KERNEL: 111,
  ROUTE: 112,
  POLICY: 120,
  BUG: 199,
};

/** An error of the protocol itself, with the number that the specification gives it. */
export class CniError extends Error {
  readonly code: number;
  readonly details: string;

  constructor(code: number, message: string, details = '') {
    super(message);
    this.code = code;
    this.details = details;
  }
}

/** JSON text of the error object. @param cniVersion that of the request, where it is known */
export function cniErrorText(thrown: unknown, cniVersion = '1.0.0'): string {
  const { code, msg, details } = describe(thrown);
  return JSON.stringify({
    cniVersion,
    code,
    msg: oneLine(msg),
    ...(details === '' ? {} : { details: oneLine(details) }),
  });
}

function describe(thrown: unknown): { code: number; msg: string; details: string } {
  if (thrown instanceof CniError) return { code: thrown.code, msg: thrown.message, details: thrown.details };
  const error: NetctlError = asNetctlError(thrown);
  return { code: cniCodes[error.code], msg: error.message, details: '' };
}

const oneLine = (text: string): string => text.replace(/\s+/g, ' ').trim();
