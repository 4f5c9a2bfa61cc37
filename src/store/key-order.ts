/**
 * The order of keys: by the bytes of their UTF-8 form, as etcd and SQLite's BINARY collation have it.
 *
 * In: keys and prefixes. Out: their order, the end of a prefix's range. Never: JavaScript's own order of strings, which
 * differs above U+D7FF.
 */

/** Negative, zero or positive, for sorting. */
export function compareKeys(a: string, b: string): number {
  // Only surrogates sort otherwise in JavaScript: behind them are the code points that come last in bytes.
  if (surrogate.test(a) || surrogate.test(b)) return Buffer.compare(Buffer.from(a), Buffer.from(b));
  return a < b ? -1 : a > b ? 1 : 0;
}

const surrogate = /[\ud800-\udfff]/;

/**
 * The least string above every key that begins with the prefix, or null if there is none (the empty prefix: all keys).
 * Bytes of UTF-8 sort like code points, so the last code point that can grow is raised by one.
 */
export function prefixEnd(prefix: string): string | null {
  const points = Array.from(prefix, (character) => character.codePointAt(0)!);
  while (points.at(-1) === 0x10ffff) points.pop();
  const last = points.pop();
  if (last === undefined) return null;
  const firstSurrogate = 0xd800;
  const afterSurrogates = 0xe000;
  return String.fromCodePoint(...points, last + 1 === firstSurrogate ? afterSurrogates : last + 1);
}
