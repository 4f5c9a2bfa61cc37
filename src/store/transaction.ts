/**
 * What a transaction means, for the adapters that decide it themselves (SQLite and the in-memory fake).
 *
 * In: compares and writes as the caller gave them, and a way to read versions. Out: the same, checked and with values as JSON
 * text; then the rows to write, or the compare that failed. Never: a value that reads back other than it was written.
 */
import { NetctlError } from '../lib/errors.ts';
import type { Compare, Refusal, Revision, Write } from './store.ts';

export interface Versions {
  readonly created: Revision;
  readonly modified: Revision;
}

/** What compares are held against. */
export interface Records {
  versions(key: string): Versions | undefined;
  /** The key that was written last of those that begin with the prefix. */
  newest(prefix: string): Newest | undefined;
}

export interface Newest {
  readonly key: string;
  readonly modified: Revision;
}

export interface Transaction {
  readonly compares: readonly Compare[];
  readonly writes: readonly { readonly key: string; readonly text: string | null }[];
}

/** One row of the log: the key's new text, or null for its deletion; `created` is meaningless then. */
export interface LoggedChange {
  readonly key: string;
  readonly text: string | null;
  readonly created: Revision;
}

export type Plan = Refusal | { readonly committed: true; readonly changes: readonly LoggedChange[] };

const maxDepth = 512;

/** @throws BUG for a key written twice, a key that is no key, or a value that JSON cannot hold */
export function checkTransaction(compares: readonly Compare[], writes: readonly Write[]): Transaction {
  for (const compare of compares) checkKey(compare.key);
  const seen = new Set<string>();
  return {
    compares,
    writes: writes.map((write) => {
      checkKey(write.key);
      if (seen.has(write.key)) throw new NetctlError('BUG', `transaction writes the key ${write.key} twice`);
      seen.add(write.key);
      return { key: write.key, text: write.kind === 'put' ? textOf(write) : null };
    }),
  };
}

/** The same writes, their values made into text once for all stores that they go to. @throws BUG as checkTransaction does */
export function encodeWrites(writes: readonly Write[]): Write[] {
  return writes.map((write) => (write.kind === 'put' ? { ...write, text: textOf(write) } : write));
}

/** What to write as revision `next`, or the compares that do not hold. Only deletions of absent keys: no changes. */
export function planTransaction(transaction: Transaction, next: Revision, records: Records): Plan {
  const refusal = refusalOf(transaction.compares.flatMap((compare) => contradiction(compare, records) ?? []));
  if (refusal !== null) return refusal;
  const changes: LoggedChange[] = [];
  for (const { key, text } of transaction.writes) {
    const before = records.versions(key);
    if (text === null && before === undefined) continue;
    changes.push({ key, text, created: before?.created ?? next });
  }
  return { committed: true, changes };
}

/** The answer to a transaction that these keys contradict; null for none. */
export function refusalOf([failed, ...others]: readonly string[]): Refusal | null {
  if (failed === undefined) return null;
  return { committed: false, failed, ...(others.length === 0 ? {} : { others }) };
}

/** The key that is not as the compare has it, or null. */
function contradiction(compare: Compare, records: Records): string | null {
  if (compare.kind !== 'unwritten') return holds(compare, records.versions(compare.key)) ? null : compare.key;
  const newest = records.newest(compare.key);
  return newest !== undefined && newest.modified > compare.revision ? newest.key : null;
}

/** Whether a write of the key can make the compare fail. */
export function isAbout(compare: Compare, key: string): boolean {
  return compare.kind === 'unwritten' ? key.startsWith(compare.key) : key === compare.key;
}

/** @throws BUG: keys are built by src/model/keys.ts from checked parts */
export function checkKey(key: string): void {
  if (key === '' || !key.isWellFormed() || key.includes('\0')) {
    throw new NetctlError(
      'BUG',
      `store key ${JSON.stringify(key)} is not valid: expected text that is not empty, without NUL`,
    );
  }
}

/** @throws BUG; the empty prefix means all keys */
export function checkPrefix(prefix: string): void {
  if (prefix !== '') checkKey(prefix);
}

/** Whether a compare of one key holds for one with these versions; undefined: it is absent. */
export function holds(
  compare: Exclude<Compare, { kind: 'unwritten' }>,
  versions: Versions | undefined,
): boolean {
  switch (compare.kind) {
    case 'absent':
      return versions === undefined;
    case 'present':
      return versions !== undefined;
    case 'modified':
      return versions?.modified === compare.revision;
  }
}

function textOf({ key, value, text }: Write & { kind: 'put' }): string {
  if (text !== undefined) return text;
  checkJson(key, value, 0);
  return JSON.stringify(value);
}

/** JSON.stringify alone would drop what it cannot say (undefined, NaN, functions) without a word. */
function checkJson(key: string, value: unknown, depth: number): void {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return;
  if (typeof value === 'number' && Number.isFinite(value)) return;
  if (depth > maxDepth) throw new NetctlError('BUG', `value of ${key} is nested more than ${maxDepth} deep`);
  if (Array.isArray(value)) {
    for (const item of value) checkJson(key, item, depth + 1);
  } else if (isPlainObject(value)) {
    for (const name in value) checkJson(key, value[name], depth + 1);
  } else {
    throw new NetctlError('BUG', `value of ${key} holds what JSON cannot: ${typeof value} ${String(value)}`);
  }
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
