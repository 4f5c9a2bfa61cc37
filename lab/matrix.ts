/**
 * Who reaches whom on which port: what the profiles say, and what real TCP connections show.
 *
 * In: containers with their addresses, the ports that each may be reached on by each. Out: the matrix, expected and seen side by
 * side. Never: a cell that was not tried.
 */
import type { Container, Target } from './container.ts';

export interface Peer {
  readonly name: string;
  readonly address: string;
  /** Tries the targets from there. */
  readonly connect: Container['connect'];
}

/** `web → db` to the ports that are open; all others must be closed. */
export type Expected = Readonly<Record<string, readonly number[]>>;

export interface Matrix {
  readonly text: string;
  /** Cells that differ from what is expected, as sentences. */
  readonly wrong: readonly string[];
  readonly cells: number;
}

/** A refused packet is dropped without a word, so a closed port shows only by waiting. */
const patienceMs = 1000;

/** Tries every port of every pair that `expected` names, all at once from each source. */
export async function tryMatrix(
  peers: readonly Peer[],
  ports: readonly number[],
  expected: Expected,
): Promise<Matrix> {
  const rowsFrom = async (from: Peer) => {
    const pairs = peers
      .map((to) => ({ to, key: `${from.name} → ${to.name}` }))
      .filter(({ key }) => key in expected);
    const targets = pairs.flatMap(({ to }) => ports.map((port): Target => ({ address: to.address, port })));
    const seen = targets.length === 0 ? [] : await from.connect(targets, patienceMs);
    return pairs.map(({ key }, at) => ({
      key,
      seen: seen.slice(at * ports.length, (at + 1) * ports.length),
      wanted: ports.map((port) => expected[key]!.includes(port)),
    }));
  };
  const rows = (await Promise.all(peers.map(rowsFrom))).flat();
  const width = Math.max(12, ...rows.map(({ key }) => key.length + 2));
  const heading = ports.map((port) => String(port).padStart(5)).join('');
  const line = (cells: readonly boolean[]) => cells.map((open) => (open ? 'open' : '·').padStart(5)).join('');
  const lines = rows.map(({ key, wanted, seen }) => `${key.padEnd(width)}${line(wanted)}   │${line(seen)}`);
  const title = `${''.padEnd(width)}${'expected'.padStart(heading.length)}   │${'seen'.padStart(heading.length)}`;
  const wrong = rows.flatMap(({ key, wanted, seen }) =>
    ports
      .filter((_, at) => wanted[at] !== seen[at])
      .map((port) => `${key} port ${port} should be ${expected[key]!.includes(port) ? 'open' : 'closed'}`),
  );
  return {
    text: [title, `${'port'.padEnd(width)}${heading}   │${heading}`, ...lines].join('\n'),
    wrong,
    cells: rows.length * ports.length,
  };
}
