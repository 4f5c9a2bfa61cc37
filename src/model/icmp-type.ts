/**
 * ICMP types by name (RFC 792, 950, 1256; RFC 4443, 4861) and number.
 *
 * In: a name or number, the family. Out: the number. Never: a name that means another type in the other family.
 */
import { z } from 'zod';
import type { Family } from './ip.ts';

const NAMES: Readonly<Record<Family, Readonly<Record<string, number>>>> = {
  4: {
    'echo-reply': 0,
    'destination-unreachable': 3,
    'source-quench': 4,
    redirect: 5,
    'echo-request': 8,
    'router-advertisement': 9,
    'router-solicitation': 10,
    'time-exceeded': 11,
    'parameter-problem': 12,
    'timestamp-request': 13,
    'timestamp-reply': 14,
    'address-mask-request': 17,
    'address-mask-reply': 18,
  },
  6: {
    'destination-unreachable': 1,
    'packet-too-big': 2,
    'time-exceeded': 3,
    'parameter-problem': 4,
    'echo-request': 128,
    'echo-reply': 129,
    'router-solicitation': 133,
    'router-advertisement': 134,
    'neighbour-solicitation': 135,
    'neighbour-advertisement': 136,
    redirect: 137,
  },
};
const ACCEPTED = '0 to 254, or a name such as echo-request';

/** iptables reads ICMP type 255 as "any", so it is not a type here. */
export const icmpTypeSchema = z
  .union([z.int(), z.string()], ACCEPTED)
  .refine((value) => (typeof value === 'number' ? value >= 0 && value <= 254 : isName(value)), ACCEPTED);

/** null for a name that the family does not have. */
export function icmpTypeNumber(value: number | string, family: Family): number | null {
  if (typeof value === 'number') return value;
  return Object.hasOwn(NAMES[family], value) ? NAMES[family][value]! : null;
}

/** The names of the family, for errors. */
export function icmpTypeNames(family: Family): string {
  return Object.keys(NAMES[family]).join(', ');
}

function isName(value: string): boolean {
  return icmpTypeNumber(value, 4) !== null || icmpTypeNumber(value, 6) !== null;
}
