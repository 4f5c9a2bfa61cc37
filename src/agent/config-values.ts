/**
 * How a value of the configuration is checked.
 *
 * In: a value of the YAML file, or a text (flag, environment). Out: the value as the agent uses it. Never: a value out of its range; an
 * error that does not name the key, the value, and what is accepted.
 */
import { invalid } from '../lib/errors.ts';
import { type Address, familyOf, isLinkLocal, parseAddress } from '../model/ip.ts';
import { parseProtocolPort, protocolPortText } from '../model/protocol-port.ts';

export function oneOf(...accepted: readonly string[]) {
  return (value: unknown, key: string): string => {
    if (typeof value !== 'string' || !accepted.includes(value))
      throw invalid(key, value, accepted.join(' or '));
    return value;
  };
}

export function integer(least: number, most: number) {
  return (value: unknown, key: string): number => {
    const number = typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value;
    if (typeof number !== 'number' || !Number.isInteger(number) || number < least || number > most) {
      throw invalid(key, value, `a whole number from ${least} to ${most}`);
    }
    return number;
  };
}

export function boolean(value: unknown, key: string): boolean {
  if (value === true || value === 'true') return true;
  if (value === false || value === 'false') return false;
  throw invalid(key, value, 'true or false');
}

/** `null`, as a flag and in the environment too. */
export function nullable<T>(parse: (value: unknown, key: string) => T) {
  return (value: unknown, key: string): T | null =>
    value === null || value === 'null' ? null : parse(value, key);
}

export function ofFamily(family: 4 | 6) {
  return (value: unknown, key: string): Address => {
    const address = parseAddress(value, key);
    if (familyOf(address) !== family || isLinkLocal(address))
      throw invalid(key, value, `an IPv${family} address, not a link-local one`);
    return address;
  };
}

export function urls(value: unknown, key: string): string[] {
  const list = typeof value === 'string' ? value.split(',').filter(Boolean) : value;
  const isUrl = (url: unknown): boolean => typeof url === 'string' && /^https?:\/\/[^\s/,]+$/.test(url);
  if (!Array.isArray(list) || !list.every(isUrl)) {
    throw invalid(key, value, 'addresses such as https://10.0.0.1:2379');
  }
  return list as string[];
}

export function hostAndPort(value: unknown, key: string): string {
  const expected = 'an address and a port such as 127.0.0.1:9091 or [fd00::1]:7443';
  const [, host = '', port = ''] = /^(\[[^\]]+\]|[^:[\]]+):(\d{1,5})$/.exec(String(value)) ?? [];
  if (Number(port) < 1 || Number(port) > 65535) throw invalid(key, value, expected);
  try {
    parseAddress(host.replace(/^\[|\]$/g, ''), key);
  } catch {
    throw invalid(key, value, expected);
  }
  return String(value);
}

export function keyPrefix(value: unknown, key: string): string {
  if (typeof value !== 'string' || !/^\/([\w.-]+\/)+$/.test(value))
    throw invalid(key, value, 'a path such as /netctl/v1/');
  return value;
}

export function text(value: unknown, key: string): string {
  if (typeof value !== 'string' || value === '') throw invalid(key, value, 'a text that is not empty');
  return value;
}

export function absolutePath(value: unknown, key: string): string {
  // A unix socket's path has at most 107 bytes, and names of up to 16 are made below it.
  if (typeof value !== 'string' || !/^\/[^\0\n]{0,89}$/.test(value))
    throw invalid(key, value, 'an absolute path of at most 90 bytes');
  return value.length > 1 ? value.replace(/\/+$/, '') : value;
}

export function ports(value: unknown, key: string): string[] {
  const list = typeof value === 'string' ? value.split(',').filter(Boolean) : value;
  if (!Array.isArray(list)) throw invalid(key, value, 'a list such as [tcp:22, udp:68]');
  return list.map((text) => protocolPortText(parseProtocolPort(text, key)));
}

export function labels(value: unknown, key: string): Record<string, string> {
  const expected = 'labels such as {rack: r1} (a flag: rack=r1,zone=a)';
  if (Array.isArray(value) || (typeof value !== 'string' && typeof value !== 'object'))
    throw invalid(key, value, expected);
  const entries =
    typeof value === 'string'
      ? value
          .split(',')
          .filter(Boolean)
          .map((pair) => pair.split('='))
      : Object.entries(value ?? {});
  for (const entry of entries) {
    if (entry.length !== 2 || !entry.every((part) => /^[\w./-]{1,253}$/.test(String(part)))) {
      throw invalid(key, value, expected);
    }
  }
  return Object.fromEntries(entries.map(([name, text]) => [name, String(text)]));
}
