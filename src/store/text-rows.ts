/**
 * Records and changes as stores keep them, values as text, and what they are to who asks (pure).
 *
 * In: rows. Out: entries and changes. Never: a value parsed before somebody looks at it.
 */
import type { Change, Entry, Json, Revision } from './store.ts';
import type { Versions } from './transaction.ts';

export interface RecordRow extends Versions {
  readonly key: string;
  readonly value: string;
}

export interface ChangeRow {
  readonly revision: Revision;
  readonly key: string;
  readonly value: string | null;
  readonly created: Revision;
}

/** The value is parsed when somebody asks for it: most watchers pass over the echo of what they know. */
export function toEntry({ key, value: text, created, modified }: RecordRow): Entry {
  let value: Json = null;
  return {
    key,
    get value() {
      value ??= JSON.parse(text) as Json;
      return value;
    },
    created,
    modified,
  };
}

export function toChange({ revision, key, value, created }: ChangeRow): Change {
  return { key, entry: value === null ? null : toEntry({ key, value, created, modified: revision }) };
}
