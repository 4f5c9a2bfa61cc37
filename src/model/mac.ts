/**
 * MAC addresses as lower-case text `aa:bb:cc:dd:ee:ff`.
 *
 * In: text from outside, bytes from the kernel. Out: a branded string. Never: a multicast or all-zero address.
 */
import { createHash } from 'node:crypto';
import { invalid } from '../lib/errors.ts';
import { type Address, addressBytes, familyOf } from './ip.ts';

export type Mac = string & { readonly __mac: unique symbol };

/** A unicast MAC address. @throws INVALID naming `field` */
export function parseMac(text: unknown, field = 'mac'): Mac {
  const expected = 'a unicast MAC address such as 02:42:0a:00:00:01';
  if (typeof text !== 'string' || !/^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$/.test(text))
    throw invalid(field, text, expected);
  const mac = text.toLowerCase() as Mac;
  if (mac === '00:00:00:00:00:00' || (Number.parseInt(mac.slice(0, 2), 16) & 1) === 1)
    throw invalid(field, text, expected);
  return mac;
}

export function macBytes(mac: Mac): Uint8Array {
  const bytes = new Uint8Array(6);
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(mac.slice(3 * i, 3 * i + 2), 16);
  return bytes;
}

export function macFromBytes(bytes: Uint8Array): Mac {
  let text = '';
  for (const octet of bytes) text += `${text === '' ? '' : ':'}${octet < 16 ? '0' : ''}${octet.toString(16)}`;
  return text as Mac;
}

/** The locally administered MAC of an endpoint whose address is not known yet. @param id 16 hex digits */
export function macOfEndpoint(id: string): Mac {
  return macFromBytes(Uint8Array.of(0x06, ...Buffer.from(id.slice(0, 10), 'hex')));
}

/**
 * The locally administered MAC that goes with an address: 02:42 and its four bytes, as Docker does; for IPv6 four bytes of a
 * hash. The same address always has the same MAC, so that neighbours' tables stay right when a container is made anew.
 */
export function macOf(address: Address): Mac {
  const bytes =
    familyOf(address) === 4
      ? addressBytes(address)
      : createHash('sha256').update(address).digest().subarray(0, 4);
  return macFromBytes(Uint8Array.of(0x02, 0x42, ...bytes));
}
