/**
 * Address and interface of every endpoint, the interface by the index that belongs to its name (pure).
 *
 * In: members of the set of all endpoints that come and go. Out: `10.0.0.1,1073741824`, for those that are single addresses on an
 * interface of ours. Never: a pair of an index that belongs to two names here: one of the two interfaces has another one.
 */
import type { IpSetMember } from '../linux/ports.ts';
import { hostInterfaceIndex, hostInterfacePrefix } from '../model/attachment.ts';

/** An address and its interface. */
const SINGLE = /^(.+)\/(?:32|128),(.+)$/;

export class IndexPairs {
  readonly #tell: (pair: string, isThere: boolean) => void;
  /** By index: whose names it belongs to, each with its addresses. */
  readonly #holders = new Map<number, Map<string, Set<string>>>();

  constructor(tell: (pair: string, isThere: boolean) => void) {
    this.#tell = tell;
  }

  change(member: IpSetMember, isThere: boolean): void {
    const [, address, name] = SINGLE.exec(member) ?? [];
    if (address === undefined || !name!.startsWith(hostInterfacePrefix)) return;
    const index = hostInterfaceIndex(name!);
    const before = this.#pairsOf(index);
    this.#note(index, name!, address, isThere);
    const after = this.#pairsOf(index);
    for (const pair of before) if (!after.includes(pair)) this.#tell(pair, false);
    for (const pair of after) if (!before.includes(pair)) this.#tell(pair, true);
  }

  #note(index: number, name: string, address: string, isThere: boolean): void {
    const names = this.#holders.get(index) ?? new Map<string, Set<string>>();
    const addresses = names.get(name) ?? new Set();
    if (isThere) addresses.add(address);
    else addresses.delete(address);
    if (addresses.size > 0) names.set(name, addresses);
    else names.delete(name);
    if (names.size > 0) this.#holders.set(index, names);
    else this.#holders.delete(index);
  }

  #pairsOf(index: number): string[] {
    const [only, ...more] = this.#holders.get(index)?.values() ?? [];
    return only === undefined || more.length > 0 ? [] : Array.from(only, (address) => `${address},${index}`);
  }
}
