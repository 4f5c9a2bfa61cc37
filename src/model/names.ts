/**
 * Names that come from outside and end up in keys, chains, sets and interfaces, with the one rule for each.
 *
 * In: text. Out: branded text that is safe in a store key and in a rule. Never: a name with a slash, white space or control
 * character.
 */
import { invalid } from '../lib/errors.ts';
import type { Cidr } from './ip.ts';

const NAME = /^[a-zA-Z0-9_.-]{1,40}$/;

/**
 * Profile and tag names: the rule of calicoctl v0.4, 1 to 40 characters. `.` and `..` are none: no path of the API could name them.
 * @throws INVALID naming `field`
 */
export function parseName(text: unknown, field: string): string {
  if (typeof text !== 'string' || !NAME.test(text) || text === '.' || text === '..') {
    throw invalid(field, text, '1 to 40 letters, digits, "_", "." or "-"');
  }
  return text;
}

/** Node names: host names in their short or long form. @throws INVALID */
export function parseNodeName(text: unknown, field: string): string {
  if (typeof text !== 'string' || !/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/.test(text)) {
    throw invalid(field, text, '1 to 63 letters, digits, "_", "." or "-", a letter or digit first');
  }
  return text;
}

/** Interface names as the kernel and the CNI libraries take them. @throws INVALID */
export function parseInterfaceName(text: unknown, field = 'interface'): string {
  if (typeof text !== 'string' || !/^[^\s/:\0]{1,15}$/.test(text) || text === '.' || text === '..') {
    throw invalid(field, text, '1 to 15 characters without white space, "/" or ":"');
  }
  return text;
}

/** A name for an interface that is to be made: the kernel reads "%" as a place for a number, and has settings called `all` and `default`. @throws INVALID */
export function parseNewInterfaceName(text: unknown, field: string): string {
  const name = parseInterfaceName(text, field);
  if (!/^[!-~]+$/.test(name) || name.includes('%') || name === 'all' || name === 'default') {
    throw invalid(
      field,
      text,
      '1 to 15 printable characters of ASCII without "/", ":" and "%", not all or default',
    );
  }
  return name;
}

/** What a pool is called that nobody gave a name: after its prefix. */
export const poolNameOf = (cidr: Cidr): string => cidr.replace(/[/:]/g, '-');
