/**
 * How the API reads and changes records: typed reads, and one way to change a record under a compare.
 *
 * In: store, key, the change as a pure function of what stands there. Out: what stands there afterwards and its revision.
 * Never: a write without a compare on what was read; a change carried out twice because its answer was lost (an error of
 * the store is passed on, not repeated).
 */
import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { ZodError, type z } from 'zod';
import type { Step } from '../ipam/draft.ts';
import { refuseChanged } from '../ipam/fenced.ts';
import { NetctlError } from '../lib/errors.ts';
import { connectionFlushKey, type Key, type KeyKind, keyPrefix, parseKey } from '../model/keys.ts';
import type { Compare, Entry, Json, Revision, Store, Write } from '../store/store.ts';

/** How often a change looks again when other writers keep being quicker. */
export const MAX_ATTEMPTS = 8;

export interface Found<T, K extends KeyKind = KeyKind> {
  readonly key: Extract<Key, { kind: K }>;
  readonly value: T;
  readonly revision: Revision;
}

/** All records of a kind, as of one revision. @throws RECORD_BROKEN naming the key of a record that does not pass its check */
export async function readAll<T, K extends KeyKind>(
  store: Store,
  kind: K,
  parse: (json: Json) => T,
): Promise<{ revision: Revision; found: Found<T, K>[] }> {
  const { revision, entries } = await store.list(keyPrefix[kind]);
  const found: Found<T, K>[] = [];
  for (const entry of entries) {
    const key = parseKey(entry.key);
    if (key?.kind !== kind) continue;
    found.push({ key: key as Found<T, K>['key'], value: read(entry, parse), revision: entry.modified });
  }
  return { revision, found };
}

/** As `readAll`, for showing: a broken record does not hide the others, it is listed with the reason. */
export async function readReadable<T, K extends KeyKind>(
  store: Store,
  kind: K,
  parse: (json: Json) => T,
): Promise<{ revision: Revision; found: Found<T, K>[]; broken: { key: string; reason: string }[] }> {
  const { revision, entries } = await store.list(keyPrefix[kind]);
  const found: Found<T, K>[] = [];
  const broken: { key: string; reason: string }[] = [];
  for (const entry of entries) {
    const key = parseKey(entry.key);
    if (key?.kind !== kind) continue;
    try {
      found.push({ key: key as Found<T, K>['key'], value: parse(entry.value), revision: entry.modified });
    } catch (error) {
      broken.push({ key: entry.key, reason: reasonOf(error) });
    }
  }
  return { revision, found, broken };
}

/** One record, or null. @throws RECORD_BROKEN as `readAll` */
export async function readOne<T>(
  store: Store,
  key: string,
  parse: (json: Json) => T,
): Promise<{ value: T; revision: Revision } | null> {
  const entry = await store.get(key);
  return entry === null ? null : { value: read(entry, parse), revision: entry.modified };
}

/** A parser for `readAll` and `readOne` out of a record's schema. */
export function parserOf<S extends z.ZodType>(schema: S): (json: Json) => z.output<S> {
  return (json) => schema.parse(json);
}

/** Makes the record. @throws the error of `exists` when there is one */
export async function create(
  store: Store,
  key: string,
  value: Json,
  exists: () => NetctlError,
): Promise<Revision> {
  const result = await store.transact([{ kind: 'absent', key }], [{ kind: 'put', key, value }]);
  if (!result.committed) throw exists();
  return result.revision;
}

export interface Rewrite<T> {
  readonly key: string;
  /** For messages: `profile web`. */
  readonly what: string;
  readonly parse: (json: Json) => T;
  readonly serialise: (value: T) => Json;
  /** The new value; called again on a fresh read after a lost race. Throws to refuse. */
  readonly change: (current: T) => T | Promise<T>;
  /** What else must hold when it is written; `change` has looked at it too. */
  readonly compares?: readonly Compare[];
  /** What else is written with it. */
  readonly writes?: readonly Write[];
  /** Both, where they come of the change: asked after each. */
  readonly more?: () => Step;
  readonly missing: () => NetctlError;
  readonly ifMatch: Revision | undefined;
  /** False for a change that means what it means only on the value that the caller saw (positions in a list). */
  readonly retry?: boolean;
}

/** Reads, changes and writes one record; writes nothing when the change changes nothing. */
export async function rewrite<T>(
  store: Store,
  request: Rewrite<T>,
): Promise<{ value: T; revision: Revision }> {
  const { key, what } = request;
  for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
    const entry = await store.get(key);
    if (entry === null) throw request.missing();
    refuseChanged(what, request.ifMatch, entry.modified);
    const value = await request.change(read(entry, request.parse));
    const json = request.serialise(value);
    if (isDeepStrictEqual(json, entry.value)) return { value, revision: entry.modified };
    const unchanged: Compare = { kind: 'modified', key, revision: entry.modified };
    const more = request.more?.();
    const result = await store.transact(
      [unchanged, ...(request.compares ?? []), ...(more?.compares ?? [])],
      [{ kind: 'put', key, value: json }, ...(request.writes ?? []), ...(more?.writes ?? [])],
    );
    if (result.committed) return { value, revision: result.revision };
    if (request.retry === false) break;
  }
  throw raced(what);
}

/** With a change of policy, to cut the connections that it denies: on every host, once it has the change. */
export function flushRequest(isAsked: boolean): Write[] {
  return isAsked ? [{ kind: 'put', key: connectionFlushKey, value: { id: randomUUID() } }] : [];
}

export function raced(what: string): NetctlError {
  return new NetctlError(
    'CONFLICT',
    `${what} was changed by somebody else at the same time: look at it and repeat the change`,
  );
}

function read<T>(entry: Entry, parse: (json: Json) => T): T {
  try {
    return parse(entry.value);
  } catch (error) {
    throw new NetctlError(
      'RECORD_BROKEN',
      `the store holds a record that is not valid: ${entry.key}: ${reasonOf(error)}: delete it and make it anew`,
      { key: entry.key },
      error,
    );
  }
}

/** One line; zod's own errors are JSON. */
export function reasonOf(error: unknown): string {
  if (error instanceof ZodError) {
    const [issue] = error.issues;
    return `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not valid'}`;
  }
  return error instanceof Error ? error.message : String(error);
}
