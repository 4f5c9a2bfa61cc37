/**
 * IPv6 addresses as bytes and as text: every key, route and record of one comes by here, several times for each allocation.
 *
 * In: text that is known to be an IPv6 address without zone; 16 bytes. Out: the bytes; the one text of RFC 5952 (the longest run of
 * zeroes short, the first of equal ones, a single zero not; hexadecimal also where IPv4 is embedded). Never: a check of what comes in.
 */

const colon = 58;
const dot = 46;
const nine = 57;

/** In network order. */
export function ipv6Bytes(text: string): Uint8Array {
  const bytes = new Uint8Array(16);
  let at = 0;
  let gap = -1;
  let start = 0;
  for (let i = 0; i <= text.length; i++) {
    const code = i === text.length ? colon : text.charCodeAt(i);
    if (code === dot) {
      // The last four bytes, written as IPv4.
      for (const part of text.slice(start).split('.')) bytes[at++] = Number(part);
      break;
    }
    if (code !== colon) continue;
    if (i > start) {
      const group = groupOf(text, start, i);
      bytes[at++] = group >> 8;
      bytes[at++] = group & 255;
    } else if (i > 0 && i < text.length) gap = at;
    start = i + 1;
  }
  if (gap !== -1) {
    bytes.copyWithin(16 - (at - gap), gap, at);
    bytes.fill(0, gap, 16 - (at - gap));
  }
  return bytes;
}

/** @param bytes 16, in network order */
export function ipv6Text(bytes: Uint8Array): string {
  let from = -1;
  let length = 1;
  for (let i = 0, run = 0; i < 8; i++) {
    run = bytes[2 * i] === 0 && bytes[2 * i + 1] === 0 ? run + 1 : 0;
    if (run > length) [from, length] = [i - run + 1, run];
  }
  let text = '';
  for (let i = 0; i < 8; i++) {
    if (i === from) {
      text += '::';
      i += length - 1;
      continue;
    }
    if (text !== '' && !text.endsWith(':')) text += ':';
    text += ((bytes[2 * i]! << 8) | bytes[2 * i + 1]!).toString(16);
  }
  return text;
}

function groupOf(text: string, start: number, end: number): number {
  let group = 0;
  for (let i = start; i < end; i++) {
    const code = text.charCodeAt(i);
    // Letters of either case: 'a' and 'A' have the same low bits, which count from 1.
    group = (group << 4) | (code <= nine ? code & 15 : (code & 15) + 9);
  }
  return group;
}
