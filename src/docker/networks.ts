/**
 * What this host's Docker networks were created with. Docker keeps its networks to itself and does not tell them again after a restart.
 *
 * In: Docker's id of a network, its options. Out: the same, after a restart too: a file for each in the state directory. Never: half a
 * file, a name from outside in a path unchecked.
 */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { invalid, NetctlError } from '../lib/errors.ts';
import type { Options } from './options.ts';

const fileSchema = z.strictObject({ options: z.record(z.string(), z.unknown()) });

export class DockerNetworks {
  readonly #directory: string;

  /** @param directory made when it is needed */
  constructor(directory: string) {
    this.#directory = directory;
  }

  add(id: string, options: Options): void {
    const path = this.#path(id);
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    writeFileSync(`${path}.new`, JSON.stringify({ options }), { mode: 0o600, flush: true });
    renameSync(`${path}.new`, path);
  }

  /** @throws NOT_FOUND */
  options(id: string): Options {
    let text: string;
    try {
      text = readFileSync(this.#path(id), 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      throw new NetctlError(
        'NOT_FOUND',
        `netctl does not know the Docker network ${id.slice(0, 12)}: remove and create it`,
      );
    }
    return fileSchema.parse(JSON.parse(text)).options;
  }

  delete(id: string): void {
    rmSync(this.#path(id), { force: true });
  }

  #path(id: string): string {
    return join(this.#directory, `${parseDockerId(id, 'NetworkID')}.json`);
  }
}

/** Docker's ids: 64 hexadecimal digits (a swarm's: 25 letters and digits). @throws INVALID */
export function parseDockerId(id: unknown, field: string): string {
  if (typeof id !== 'string' || !/^[a-z0-9]{12,64}$/.test(id))
    throw invalid(field, id, '12 to 64 lower-case letters and digits');
  return id;
}
