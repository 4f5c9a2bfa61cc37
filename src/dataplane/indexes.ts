/**
 * Interface indexes that are chosen by us, so that one batch can make a link and use it.
 *
 * In: nothing. Out: numbers that are most likely unused; a clash is answered by trying again. Never: one below 100,000, where the
 * kernel's own are.
 */

/** Two different ones: the ends of a pair must not have the same. */
export function twoIndexes(): [number, number] {
  const first = 100_000 + 2 * Math.floor(Math.random() * 4_000_000);
  return [first, first + 1];
}
