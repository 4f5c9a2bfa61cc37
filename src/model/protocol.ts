/**
 * IP protocols by name and number.
 *
 * In: a name or 1 to 255 (as number or digits). Out: the number, or the name that rules show. Never: a name that /etc/protocols
 * of one host knows and that of another does not.
 */
import { z } from 'zod';
import { invalid } from '../lib/errors.ts';

export const ICMP = 1;
export const ICMPV6 = 58;
const TCP = 6;
const UDP = 17;
const SCTP = 132;

const NAMES: Readonly<Record<string, number>> = {
  tcp: TCP,
  udp: UDP,
  sctp: SCTP,
  icmp: ICMP,
  icmpv6: ICMPV6,
};
const ACCEPTED = 'tcp, udp, sctp, icmp, icmpv6 or a number from 1 to 255';

/** @throws INVALID */
export function parseProtocol(value: string | number, field = 'protocol'): number {
  const number = protocolNumber(value);
  if (number === null) throw invalid(field, value, ACCEPTED);
  return number;
}

export const protocolSchema = z
  .union([z.string(), z.number()], ACCEPTED)
  .refine((value) => protocolNumber(value) !== null, ACCEPTED);

/** The name where there is one, else the number. */
export function protocolName(protocol: number): string | number {
  return Object.keys(NAMES).find((name) => NAMES[name] === protocol) ?? protocol;
}

/** True for the protocols whose ports rules can match. */
export function carriesPorts(protocol: number | null): boolean {
  return protocol === TCP || protocol === UDP || protocol === SCTP;
}

function protocolNumber(value: string | number): number | null {
  if (typeof value === 'string' && Object.hasOwn(NAMES, value)) return NAMES[value]!;
  const number = typeof value === 'string' && /^[1-9]\d{0,2}$/.test(value) ? Number(value) : value;
  return typeof number === 'number' && Number.isInteger(number) && number >= 1 && number <= 255
    ? number
    : null;
}
