/**
 * Files that the configuration names.
 *
 * In: a key and its value. Out: the bytes. Never: an error that does not say which key named the file.
 */
import { readFileSync } from 'node:fs';
import { invalid } from '../lib/errors.ts';

/** @throws INVALID naming `key` */
export function fileOf(key: string, path: string | null, what = 'a PEM file'): Buffer {
  try {
    return readFileSync(path ?? '');
  } catch (error) {
    throw invalid(key, path, `${what} that can be read (${(error as NodeJS.ErrnoException).code})`);
  }
}
