/**
 * What the running log of BIRD says about sessions: which one lost its host.
 *
 * In: lines as `mesh_1: State changed to up`, with the time. Out: the name of a session whose peer is dead, not merely restarting. A BIRD
 * that ends closes its connections, and BFD runs out afterwards; a host that dies, or whose wire is cut, is noticed by BFD alone.
 * Never: a restarting peer taken for a dead one.
 */

export class SessionLog {
  readonly #bfdMilliseconds: number;
  /** Sessions that are established, with the time from which on BFD means the process at the other end that there is now. */
  readonly #up = new Map<string, number>();
  readonly #closedAt = new Map<string, number>();

  /**
   * @param names of the sessions that are established now
   * @param bfdMilliseconds how long BFD takes at most to notice that a peer has ended
   */
  constructor(names: Iterable<string>, bfdMilliseconds: number) {
    this.#bfdMilliseconds = bfdMilliseconds;
    for (const name of names) this.#up.set(name, Number.NEGATIVE_INFINITY);
  }

  /** The name of the session whose peer has died just now, if that is what the line says. @param now in milliseconds */
  read(line: string, now: number): string | null {
    const [, name = '', event = ''] = /^(\w+): (.*)$/.exec(line) ?? [];
    if (event === 'State changed to up') {
      const closedAt = this.#closedAt.get(name) ?? Number.NEGATIVE_INFINITY;
      this.#up.set(name, closedAt + this.#bfdMilliseconds);
    } else if (event === 'BFD session down') {
      const since = this.#up.get(name);
      this.#up.delete(name);
      return since !== undefined && now > since ? name : null;
    } else if (event === 'Connection closed' || event.startsWith('State changed to ')) {
      this.#up.delete(name);
      if (event === 'Connection closed') this.#closedAt.set(name, now);
    }
    return null;
  }
}
