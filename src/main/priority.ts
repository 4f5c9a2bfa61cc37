/**
 * Sets the agent's thread before what else the host runs: an ADD or DEL is a millisecond of work, and on a busy host it would wait several
 * times for as long, for a processor.
 *
 * In: nothing. Out: the priority of this thread and of those that it starts (Node's helpers, which stand already, keep theirs). Never: an
 * agent that does not start because it may not have it; another priority than the one that somebody has started it with.
 */
import { getPriority, setPriority } from 'node:os';
import type { Logger } from '../lib/logger.ts';

/** As `nice` counts: above what is at 0, below what a host puts first itself. */
const priority = -10;

export function takePriority(logger: Pick<Logger, 'debug'>): void {
  if (getPriority() !== 0) return;
  try {
    setPriority(priority);
  } catch (error) {
    logger.debug({ priority, error: String(error) }, 'no priority for the agent: it may not set it');
  }
}
