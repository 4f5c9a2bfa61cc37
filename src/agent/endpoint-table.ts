/**
 * The endpoints of this node as the store has them, by id and by network.
 *
 * In: records with their revisions. Out: look-ups in constant time. Never: an endpoint of another node.
 */
import type { Known } from '../ipam/address-book.ts';
import type { Endpoint } from '../model/records.ts';

export class EndpointTable {
  readonly #endpoints = new Map<string, Known<Endpoint>>();
  readonly #links = new Set<string>();

  set(id: string, endpoint: Known<Endpoint> | null): void {
    const before = this.#endpoints.get(id);
    if (before !== undefined) this.#links.delete(before.value.hostInterface);
    if (endpoint !== null) this.#links.add(endpoint.value.hostInterface);
    if (endpoint === null) this.#endpoints.delete(id);
    else this.#endpoints.set(id, endpoint);
  }

  get(id: string): Known<Endpoint> | undefined {
    return this.#endpoints.get(id);
  }

  /** True for the host interface of one of them. */
  hasLink(hostInterface: string): boolean {
    return this.#links.has(hostInterface);
  }

  get size(): number {
    return this.#endpoints.size;
  }

  all(): IterableIterator<[string, Known<Endpoint>]> {
    return this.#endpoints.entries();
  }

  ofNetwork(network: string): [string, Endpoint][] {
    return [...this.#endpoints]
      .filter(([, { value }]) => value.network === network)
      .map(([id, { value }]) => [id, value]);
  }
}
