/**
 * What the running log of BIRD says about sessions: which are up, and which one lost its host.
 *
 * In: lines as `bgp1: State changed to up`. Out: the name of a session whose peer is dead, not merely restarting. A BIRD that ends closes its
 * connections before BFD notices; a host that dies, or whose wire is cut, does not. Never: a restarting peer taken for a dead one.
 */

export class SessionLog {
  readonly #up = new Set<string>();

  /** @param names of the sessions that are established now */
  constructor(names: Iterable<string>) {
    for (const name of names) this.#up.add(name);
  }

  /** The name of the session whose peer has died just now, if that is what the line says. */
  read(line: string): string | null {
    const [, name = '', event = ''] = /^([\w-]+): (.*)$/.exec(line) ?? [];
    if (event === 'State changed to up') this.#up.add(name);
    else if (event === 'BFD session down') return this.#up.delete(name) ? name : null;
    else if (event === 'Connection closed' || event.startsWith('State changed to ')) this.#up.delete(name);
    return null;
  }
}
