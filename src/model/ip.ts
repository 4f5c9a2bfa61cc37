/**
 * Addresses and prefixes, IPv4 and IPv6, as canonical text.
 *
 * In: text from outside, bytes from the kernel, numbers from arithmetic. Out: branded strings that are safe as map keys,
 * in JSON, in rules and on a terminal (IPv6 in the form of RFC 5952). Never: a form that two readers take for
 * different addresses (`010.0.0.1`, `1`, `::ffff:1.2.3.4` with a zone, host bits in a prefix): those are refused.
 */
import { isIPv4, isIPv6 } from 'node:net';
import { invalid } from '../lib/errors.ts';
import { ipv6Bytes, ipv6Text } from './ipv6.ts';

export type Family = 4 | 6;
export type Address = string & { readonly __address: unique symbol };
export type Cidr = string & { readonly __cidr: unique symbol };

/** The families, in the one place that lists them. */
export const families: readonly Family[] = [4, 6];

/** The prefix that holds all addresses of a family. */
export const everything: Readonly<Record<Family, Cidr>> = { 4: '0.0.0.0/0' as Cidr, 6: '::/0' as Cidr };

const DOT = 46;
const ZERO = 48;

/** Bits of an address: 32 or 128. */
export function addressBits(family: Family): number {
  return family === 4 ? 32 : 128;
}

/** @throws INVALID naming `field` */
export function parseAddress(text: unknown, field = 'address'): Address {
  const address = typeof text === 'string' ? canonical(text) : null;
  if (address === null) throw invalid(field, text, 'an IPv4 or IPv6 address such as 10.0.0.1 or fd00::1');
  return address;
}

/** A prefix without host bits; @throws INVALID naming `field` and, for host bits, the prefix that was probably meant. */
export function parseCidr(text: unknown, field = 'cidr'): Cidr {
  const expected = 'a prefix such as 10.0.0.0/8 or fd00::/64';
  if (typeof text !== 'string') throw invalid(field, text, expected);
  const [base, bits, ...rest] = text.split('/');
  const address = canonical(base ?? '');
  if (address === null || bits === undefined || rest.length > 0 || !/^(0|[1-9]\d{0,2})$/.test(bits)) {
    throw invalid(field, text, expected);
  }
  const length = Number(bits);
  const family = familyOf(address);
  if (length > addressBits(family))
    throw invalid(field, text, `a prefix length from 0 to ${addressBits(family)}`);
  const network = networkOf(address, length);
  if (network.split('/')[0] !== address) throw invalid(field, text, `no host bits set, as in ${network}`);
  return network;
}

/** An address as the prefix that holds just it (`10.0.0.1` → `10.0.0.1/32`), a prefix as itself. @throws INVALID */
export function parseAddressOrCidr(text: unknown, field = 'cidr'): Cidr {
  if (typeof text === 'string' && text.includes('/')) return parseCidr(text, field);
  const address = typeof text === 'string' ? canonical(text) : null;
  if (address === null) throw invalid(field, text, 'an address or a prefix such as 10.0.0.1 or 10.0.0.0/8');
  return hostCidr(address);
}

export function familyOf(address: Address | Cidr): Family {
  return address.includes(':') ? 6 : 4;
}

/** fe80::/10: says nothing without the link that it is on. */
export function isLinkLocal(address: Address): boolean {
  return /^fe[89ab][0-9a-f]:/.test(address);
}

export function hostCidr(address: Address): Cidr {
  return `${address}/${addressBits(familyOf(address))}` as Cidr;
}

export function cidrBase(cidr: Cidr): Address {
  return cidr.slice(0, cidr.indexOf('/')) as Address;
}

export function prefixLength(cidr: Cidr): number {
  return Number(cidr.slice(cidr.indexOf('/') + 1));
}

/** The prefix of `length` bits that holds the address. */
export function networkOf(address: Address, length: number): Cidr {
  const family = familyOf(address);
  // Every address that is looked up comes by here: no arithmetic of large integers.
  if (family === 4)
    return `${text4(length === 0 ? 0 : value4(address) & (-1 << (32 - length)))}/${length}` as Cidr;
  const bytes = ipv6Bytes(address);
  if (length < 128) {
    const whole = length >> 3;
    bytes[whole]! &= 0xff00 >> (length & 7);
    bytes.fill(0, whole + 1);
  }
  return `${ipv6Text(bytes)}/${length}` as Cidr;
}

export function cidrContains(cidr: Cidr, address: Address): boolean {
  return familyOf(cidr) === familyOf(address) && networkOf(address, prefixLength(cidr)) === cidr;
}

/** True where the two share an address. */
export function cidrsOverlap(a: Cidr, b: Cidr): boolean {
  const [wide, narrow] = prefixLength(a) <= prefixLength(b) ? [a, b] : [b, a];
  return cidrContains(wide, cidrBase(narrow));
}

/** Addresses in a prefix (2^host bits). */
export function cidrSize(cidr: Cidr): bigint {
  return 1n << BigInt(addressBits(familyOf(cidr)) - prefixLength(cidr));
}

/** The address as an unsigned number of 32 or 128 bits. */
export function addressValue(address: Address): bigint {
  if (familyOf(address) === 4) return BigInt(value4(address) >>> 0);
  const words = new DataView(ipv6Bytes(address).buffer);
  return (words.getBigUint64(0) << 64n) | words.getBigUint64(8);
}

export function addressFrom(family: Family, value: bigint): Address {
  if (family === 4) return text4(Number(value)) as Address;
  const words = new DataView(new ArrayBuffer(16));
  words.setBigUint64(0, value >> 64n);
  words.setBigUint64(8, value);
  return addressFromBytes(new Uint8Array(words.buffer));
}

/** Network byte order, 4 or 16 bytes. */
export function addressBytes(address: Address): Uint8Array {
  if (familyOf(address) === 4) return bytes4(address);
  return ipv6Bytes(address);
}

function bytes4(address: Address): Uint8Array {
  const value = value4(address);
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

/** 32 bits with a sign, digit by digit: tens of thousands of routes are written at a time. */
function value4(address: Address): number {
  let value = 0;
  let byte = 0;
  for (let i = 0; i < address.length; i++) {
    const code = address.charCodeAt(i);
    if (code === DOT) {
      value = (value << 8) | byte;
      byte = 0;
    } else byte = byte * 10 + code - ZERO;
  }
  return (value << 8) | byte;
}

const text4 = (value: number): string =>
  `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}`;

/** @param bytes 4 or 16 bytes in network order */
export function addressFromBytes(bytes: Uint8Array): Address {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}` as Address;
  return ipv6Text(bytes) as Address;
}

function canonical(text: string): Address | null {
  if (isIPv4(text)) return text as Address;
  if (isIPv6(text) && !text.includes('%')) return ipv6Text(ipv6Bytes(text)) as Address;
  return null;
}
