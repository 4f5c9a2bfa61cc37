/**
 * Which request to cut connections was done last, in a file of the run directory, which is empty after the host has booted.
 *
 * In: the request. Out: the same after a restart of the agent. Never: half of one.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import type { FlushMark } from '../agent/connection-flush.ts';

export class FlushMarkFile implements FlushMark {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  read(): string | null {
    try {
      return readFileSync(this.#path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw error;
    }
  }

  write(request: string): void {
    writeFileSync(`${this.#path}.new`, request, { mode: 0o600 });
    renameSync(`${this.#path}.new`, this.#path);
  }
}
