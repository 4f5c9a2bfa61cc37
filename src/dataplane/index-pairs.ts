/**
 * What sets and maps say of address and interface of the endpoints, the interface by the index that belongs to its name (pure).
 *
 * In: elements with the interface's name that come, get other data, and go. Out: `10.0.0.1,1073741824` with the same data, for those that are
 * single addresses on an interface of ours. Never: a pair of an index that belongs to two names here, in whichever family: one of the two
 * interfaces has another one.
 */
import type { NftData } from '../linux/nftables-port.ts';
import { hostInterfaceIndex, hostInterfacePrefix } from '../model/attachment.ts';
import { addressBits, type Family } from '../model/ip.ts';

/** undefined: not there. */
type Data = NftData | null | undefined;

interface Owner {
  readonly name: string;
  /** That name it, in all sets and families. */
  elements: number;
  /** Another name with the same index. */
  rival: Owner | null;
}

/** Whose the indexes are, for all families together. */
export class IndexOwners {
  readonly #owners = new Map<number, Owner>();
  readonly #listeners: ((name: string) => void)[] = [];

  /** @param listener hears of a name that has to share its index from now on, or no longer */
  onChange(listener: (name: string) => void): void {
    this.#listeners.push(listener);
  }

  isAlone(index: number): boolean {
    return this.#owners.get(index)?.rival === null;
  }

  /** An element more names it. */
  join(name: string, index: number): void {
    const first = this.#owners.get(index) ?? null;
    for (let owner = first; owner !== null; owner = owner.rival) {
      if (owner.name !== name) continue;
      owner.elements++;
      return;
    }
    this.#owners.set(index, { name, elements: 1, rival: first });
    if (first !== null && first.rival === null) this.#tell(first.name);
  }

  leave(name: string, index: number): void {
    let before: Owner | null = null;
    let owner = this.#owners.get(index) ?? null;
    for (; owner !== null && owner.name !== name; owner = owner.rival) before = owner;
    if (owner === null || --owner.elements > 0) return;
    if (before !== null) before.rival = owner.rival;
    else if (owner.rival !== null) this.#owners.set(index, owner.rival);
    else this.#owners.delete(index);
    const left = this.#owners.get(index);
    if (left?.rival === null) this.#tell(left.name);
  }

  #tell(name: string): void {
    for (const listener of this.#listeners) listener(name);
  }
}

/** The elements of one set or map. */
export class IndexPairs {
  readonly #single: string;
  readonly #owners: IndexOwners;
  readonly #tell: (pair: string, data: Data) => void;

  /**
   * @param elements all that `change` has been told of and are there, for when a name comes to share its index, or no longer does
   * @param tell hears of a pair's data, undefined when it is to go (it may be gone already)
   */
  constructor(
    family: Family,
    owners: IndexOwners,
    elements: () => Iterable<readonly [element: string, data: Data]>,
    tell: (pair: string, data: Data) => void,
  ) {
    this.#single = `/${addressBits(family)}`;
    this.#owners = owners;
    this.#tell = tell;
    owners.onChange((name) => {
      const index = hostInterfaceIndex(name);
      const isAlone = owners.isAlone(index);
      for (const [element, data] of elements())
        if (element.endsWith(`,${name}`)) this.#pass(element, index, isAlone ? data : undefined);
    });
  }

  /** @param before what was said of it */
  change(element: string, data: Data, before: Data): void {
    const name = element.slice(element.indexOf(',') + 1);
    if (data === before || !name.startsWith(hostInterfacePrefix)) return;
    const index = hostInterfaceIndex(name);
    if (before === undefined && data !== undefined) this.#owners.join(name, index);
    // What goes is gone before the other name, which may have the same address, has the index for itself.
    if (data === undefined || this.#owners.isAlone(index)) this.#pass(element, index, data);
    if (before !== undefined && data === undefined) this.#owners.leave(name, index);
  }

  #pass(element: string, index: number, data: Data): void {
    const end = element.indexOf(',');
    const slash = element.indexOf('/');
    if (slash >= 0 && element.slice(slash, end) !== this.#single) return;
    this.#tell(`${element.slice(0, slash < 0 ? end : slash)},${index}`, data);
  }
}
