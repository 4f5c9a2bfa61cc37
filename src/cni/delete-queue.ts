/**
 * The delete queue: DELs that the CNI executable put aside because no agent answered (native/shim/PROTOCOL.md).
 *
 * In: files with one request frame each. Out: each carried out once and its file removed. Never: a DEL that undoes an ADD made
 * after it was queued, an entry lost because another could not be carried out.
 */
import { lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { asNetctlError, NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import type { Attacher } from '../model/attachment.ts';
import { decodeRequest } from './frame.ts';
import { parseCall } from './request.ts';
import { runCall } from './server.ts';

const ENTRY = '.delete';
const TAKEN = '.taken';
/** No plugin writes for so long: its whole call takes 30 s at most. */
const abandonedAfterMs = 300_000;

export class DeleteQueue {
  readonly #directory: string;
  readonly #attacher: Attacher;
  readonly #logger: Logger;
  #isDraining = false;

  constructor(directory: string, attacher: Attacher, logger: Logger) {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.#directory = directory;
    this.#attacher = attacher;
    this.#logger = logger;
  }

  /**
   * Carries out what is queued; entries that fail for now stay for the next call. Returns how many were done; a call while another is at
   * work does nothing.
   */
  async drain(): Promise<number> {
    if (this.#isDraining) return 0;
    this.#isDraining = true;
    try {
      const names = readdirSync(this.#directory);
      for (const name of names) if (name.startsWith('.')) this.#removeAbandoned(join(this.#directory, name));
      const left = names.filter((name) => name.endsWith(TAKEN));
      const fresh = names.filter((name) => name.endsWith(ENTRY)).map((name) => this.#take(name));
      const paths = [...new Set([...left, ...fresh])].map((name) => join(this.#directory, name));
      let done = 0;
      for (const path of paths) if (await this.#carryOut(path)) done++;
      if (done > 0) this.#logger.info({ done, of: paths.length }, 'carried out queued deletions');
      return done;
    } catch (error) {
      this.#logger.error({ error: asNetctlError(error).message }, 'the delete queue cannot be read');
      return 0;
    } finally {
      this.#isDraining = false;
    }
  }

  /** What a plugin was writing when it was killed: the runtime called again, that call made a file of its own. */
  #removeAbandoned(path: string): void {
    const file = statSync(path, { throwIfNoEntry: false });
    if (file !== undefined && Date.now() - file.mtimeMs > abandonedAfterMs) rmSync(path, { force: true });
  }

  /** Under another name, so that a DEL that is queued while this one runs is an entry of its own. */
  #take(name: string): string {
    const taken = `${name.slice(0, -ENTRY.length)}${TAKEN}`;
    renameSync(join(this.#directory, name), join(this.#directory, taken));
    return taken;
  }

  async #carryOut(path: string): Promise<boolean> {
    try {
      // Anything else might be waited for, or without end.
      if (!lstatSync(path).isFile()) throw new NetctlError('INVALID', 'it is no file');
      const call = parseCall(decodeRequest(readFileSync(path)));
      if (call.command === 'DEL') await runCall(call, this.#attacher);
    } catch (error) {
      const reason: NetctlError = asNetctlError(error);
      this.#logger.error({ path, error: reason.message }, 'queued deletion failed');
      // What cannot be read will not become readable; what the kernel or the store refused may work later.
      if (reason.kind !== 'invalid' && reason.kind !== 'bug') return false;
    }
    rmSync(path, { force: true, recursive: true });
    return true;
  }
}
