/**
 * The delete queue: DELs that the CNI executable put aside because no agent answered (native/shim/PROTOCOL.md).
 *
 * In: files with one request frame each. Out: each carried out once and its file removed. Never: a DEL that undoes an ADD made
 * after it was queued, an entry lost because another could not be carried out.
 */
import { mkdirSync, readdirSync, readFileSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { asNetctlError, type NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import type { Attacher } from '../model/attachment.ts';
import { decodeRequest } from './frame.ts';
import { parseCall } from './request.ts';
import { runCall } from './server.ts';

export class DeleteQueue {
  readonly #directory: string;
  readonly #attacher: Attacher;
  readonly #logger: Logger;

  constructor(directory: string, attacher: Attacher, logger: Logger) {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.#directory = directory;
    this.#attacher = attacher;
    this.#logger = logger;
  }

  /** Carries out what is queued; entries that fail for now stay for the next call. Returns how many were done. */
  async drain(): Promise<number> {
    const names = readdirSync(this.#directory).filter((name) => name.endsWith('.delete'));
    let done = 0;
    for (const name of names) if (await this.#carryOut(join(this.#directory, name))) done++;
    if (done > 0) this.#logger.info({ done, of: names.length }, 'carried out queued deletions');
    return done;
  }

  async #carryOut(path: string): Promise<boolean> {
    try {
      const call = parseCall(decodeRequest(readFileSync(path)));
      if (call.command === 'DEL') await runCall(call, this.#attacher);
    } catch (error) {
      const reason: NetctlError = asNetctlError(error);
      this.#logger.error({ path, error: reason.message }, 'queued deletion failed');
      // What cannot be read will not become readable; what the kernel or the store refused may work later.
      if (reason.kind !== 'invalid' && reason.kind !== 'bug') return false;
    }
    unlinkSync(path);
    return true;
  }
}
