/**
 * What sets and maps say of address and interface of the endpoints, the interface by the index that belongs to its name (pure).
 *
 * In: pairs of address and name that come, get other data, and go. Out: `10.0.0.1,1073741824` with the same data, for those that are single
 * addresses on an interface of ours. Never: a pair of an index that belongs to two names here, in whichever family: one of the two interfaces
 * has another one.
 */
import type { NftData } from '../linux/nftables-port.ts';
import { hostInterfaceIndex, hostInterfacePrefix } from '../model/attachment.ts';
import type { Family } from '../model/ip.ts';

type Data = NftData | null;

interface Holder {
  readonly addresses: Map<string, Data>;
  /** How many addresses of the other family its name has. */
  others: number;
}

/** An address, with or without its length, and its interface. */
const SINGLE: Readonly<Record<Family, RegExp>> = {
  4: /^([^/]+)(?:\/32)?,(.+)$/,
  6: /^([^/]+)(?:\/128)?,(.+)$/,
};

export class IndexPairs {
  readonly #single: RegExp;
  readonly #tell: (pair: string, data: Data | undefined) => void;
  /** By index: whose names it belongs to. */
  readonly #holders = new Map<number, Map<string, Holder>>();

  /** @param tell hears of a pair's data, undefined when it is to go */
  constructor(family: Family, tell: (pair: string, data: Data | undefined) => void) {
    this.#single = SINGLE[family];
    this.#tell = tell;
  }

  /** @param data undefined: it is not there any more */
  change(member: string, data: Data | undefined): void {
    const [, address, name] = this.#single.exec(member) ?? [];
    if (address === undefined) return;
    this.#changeHolder(name!, ({ addresses }) => {
      if (data === undefined) addresses.delete(address);
      else addresses.set(address, data);
    });
  }

  /** A pair of the other family, whose interface has an index, too. */
  changeOther(member: string, isThere: boolean): void {
    const name = member.slice(member.indexOf(',') + 1);
    this.#changeHolder(name, (holder) => {
      holder.others += isThere ? 1 : -1;
    });
  }

  #changeHolder(name: string, change: (holder: Holder) => void): void {
    if (!name.startsWith(hostInterfacePrefix)) return;
    const index = hostInterfaceIndex(name);
    const before = new Map(this.#pairsOf(index));
    const names = this.#holders.get(index) ?? new Map<string, Holder>();
    const holder = names.get(name) ?? { addresses: new Map<string, Data>(), others: 0 };
    change(holder);
    if (holder.addresses.size + holder.others > 0) names.set(name, holder);
    else names.delete(name);
    if (names.size > 0) this.#holders.set(index, names);
    else this.#holders.delete(index);
    const after = this.#pairsOf(index);
    for (const address of before.keys())
      if (!after.has(address)) this.#tell(`${address},${index}`, undefined);
    for (const [address, data] of after)
      if (!before.has(address) || before.get(address) !== data) this.#tell(`${address},${index}`, data);
  }

  #pairsOf(index: number): ReadonlyMap<string, Data> {
    const [only, ...more] = this.#holders.get(index)?.values() ?? [];
    return only === undefined || more.length > 0 ? new Map() : only.addresses;
  }
}
