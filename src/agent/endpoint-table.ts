/**
 * The endpoints of this node as the store has them, by id, by network and by address.
 *
 * In: records with their revisions. Out: look-ups in constant time. Never: an endpoint of another node.
 */
import type { Known } from '../ipam/address-book.ts';
import type { Address } from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';

export class EndpointTable {
  readonly #endpoints = new Map<string, Known<Endpoint>>();
  readonly #links = new Set<string>();
  readonly #users = new Map<Address, string>();

  set(id: string, endpoint: Known<Endpoint> | null): void {
    const before = this.#endpoints.get(id);
    if (before !== undefined) {
      this.#links.delete(before.value.hostInterface);
      for (const address of before.value.addresses)
        if (this.#users.get(address) === id) this.#users.delete(address);
    }
    if (endpoint !== null) {
      this.#links.add(endpoint.value.hostInterface);
      for (const address of endpoint.value.addresses) this.#users.set(address, id);
    }
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

  /** Id of the one that has the address, or was the last to get it. */
  userOf(address: Address): string | undefined {
    return this.#users.get(address);
  }

  get size(): number {
    return this.#endpoints.size;
  }

  all(): IterableIterator<[string, Known<Endpoint>]> {
    return this.#endpoints.entries();
  }

  /** Those of one network namespace. */
  inNetns({ device, inode }: { readonly device: number; readonly inode: number }): Endpoint[] {
    return [...this.#endpoints.values()]
      .map(({ value }) => value)
      .filter(({ netns }) => netns.device === device && netns.inode === inode);
  }

  ofNetwork(network: string): [string, Endpoint][] {
    return [...this.#endpoints]
      .filter(([, { value }]) => value.network === network)
      .map(([id, { value }]) => [id, value]);
  }
}
