/**
 * A store that suddenly looks empty does not empty the host: deleting many of our links at once needs proof.
 *
 * In: how many of our links stand, which of them the store does not know. Out: which may go now, which are held. Never: most of a
 * host's endpoints removed because a database was restored, wiped or mistaken for another, unless an operator said so.
 */
export interface Verdict {
  readonly remove: readonly string[];
  readonly held: readonly string[];
}

/** A few left-overs are normal after a crash, whatever their share. */
const alwaysAllowed = 3;
const largestShare = 0.25;

export function judgeDeletion(standing: number, unknown: readonly string[], confirmed: boolean): Verdict {
  const harmless = unknown.length <= alwaysAllowed || unknown.length <= standing * largestShare;
  return confirmed || harmless ? { remove: unknown, held: [] } : { remove: [], held: unknown };
}
