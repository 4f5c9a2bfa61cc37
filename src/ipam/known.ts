/**
 * A record with the revision at which it was read.
 *
 * In: nothing. Out: a type. Never: a value without its revision, since a transaction compares with that.
 */
import type { Revision } from '../store/store.ts';

export interface Known<T> {
  readonly value: T;
  readonly modified: Revision;
}
