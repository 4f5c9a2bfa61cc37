/**
 * The texts of BGP that reach BIRD's configuration: communities, prefix matches, passwords.
 *
 * In: text from outside. Out: the canonical form, of characters that mean nothing else to BIRD. Never: a quote, a control
 * character or a line end in a password: BIRD's strings have no escapes.
 */
import { invalid } from '../lib/errors.ts';
import { addressBits, type Cidr, familyOf, parseCidr, prefixLength } from './ip.ts';

/** `64512:100` (RFC 1997) or `64512:1:2` (RFC 8092). @throws INVALID naming `field` */
export function parseCommunity(text: unknown, field = 'community'): string {
  const parts =
    typeof text === 'string' && /^\d{1,10}(:\d{1,10}){1,2}$/.test(text) ? text.split(':').map(Number) : [];
  const most = parts.length === 2 ? 0xffff : 0xffff_ffff;
  if (parts.length === 0 || parts.some((part) => part > most))
    throw invalid(
      field,
      text,
      'two numbers up to 65535, as 64512:100, or three up to 4294967295, as 64512:1:2',
    );
  return parts.join(':');
}

export interface PrefixMatch {
  readonly cidr: Cidr;
  /** Lengths from `min` to `max`. */
  readonly min: number;
  readonly max: number;
}

/** `CIDR [ge N] [le N]` in its shortest form; see `prefixMatchOf`. @throws INVALID naming `field` */
export function parsePrefixMatch(text: unknown, field = 'prefix'): string {
  const accepted =
    'a prefix, with ge and le for the lengths: 10.0.0.0/8, 10.0.0.0/8 le 24, 10.0.0.0/8 ge 16 le 24';
  const [, net, ge, le] =
    (typeof text === 'string' && /^(\S+)(?: +ge +(\d{1,3}))?(?: +le +(\d{1,3}))?$/.exec(text.trim())) || [];
  if (net === undefined) throw invalid(field, text, accepted);
  const cidr = parseCidr(net, field);
  const [own, most] = [prefixLength(cidr), addressBits(familyOf(cidr))];
  const min = ge === undefined ? own : Number(ge);
  const max = le === undefined ? (ge === undefined ? own : most) : Number(le);
  if (min < own || max < min || max > most)
    throw invalid(field, text, `lengths from ${own} to ${most}, ge not above le`);
  return [
    cidr,
    ...(min > own ? [`ge ${min}`] : []),
    ...(max > own && !(min > own && max === most) ? [`le ${max}`] : []),
  ].join(' ');
}

/** @param text as `parsePrefixMatch` returned it */
export function prefixMatchOf(text: string): PrefixMatch {
  const [net, ...words] = text.split(' ');
  const cidr = net as Cidr;
  const value = (word: string): number | null =>
    words.includes(word) ? Number(words[words.indexOf(word) + 1]) : null;
  const [ge, le] = [value('ge'), value('le')];
  const own = prefixLength(cidr);
  return { cidr, min: ge ?? own, max: le ?? (ge === null ? own : addressBits(familyOf(cidr))) };
}

/** A secret of TCP MD5 as Linux takes it. @throws INVALID naming `field`, without the text */
export function parsePassword(text: unknown, field = 'password'): string {
  if (typeof text !== 'string' || !/^[\x20\x21\x23-\x7e]{1,80}$/.test(text))
    throw invalid(field, '(not shown)', '1 to 80 printable ASCII characters without the double quote');
  return text;
}
