/**
 * The end of what is over: cooldowns, reservations, retentions, then blocks of this node that have none left.
 *
 * In: a call every second. Out: transactions. Never: an address free before its connections are gone; the same trouble told every second.
 */
import type { Ipam } from '../ipam/ipam.ts';
import { asNetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import type { LateFlush } from './late-flush.ts';

export interface ExpiryParts {
  readonly ipam: Pick<Ipam, 'expire'>;
  readonly logger: Pick<Logger, 'warn'>;
  /** Why the cluster cannot be asked; null when it can. */
  clusterTrouble(): string | null;
}

export class Expiry {
  readonly #parts: ExpiryParts;
  readonly #lateFlush: LateFlush;
  #trouble = '';

  constructor(parts: ExpiryParts, lateFlush: LateFlush) {
    this.#parts = parts;
    this.#lateFlush = lateFlush;
  }

  /** What cannot be freed now waits for the next call. */
  async run(): Promise<void> {
    if (!(await this.#lateFlush.settle())) return;
    const { ipam, logger, clusterTrouble } = this.#parts;
    let trouble = '';
    await ipam
      .expire(() => clusterTrouble() !== null)
      .catch((error: unknown) => {
        trouble = asNetctlError(error).message;
      });
    if (trouble !== '' && trouble !== this.#trouble)
      logger.warn({ error: trouble }, 'some of what is over cannot be freed yet');
    this.#trouble = trouble;
  }
}
