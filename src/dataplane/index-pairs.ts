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
    if (address === undefined || !name!.startsWith(hostInterfacePrefix)) return;
    this.#changeHolder(name!, ({ addresses }, index, isAlone) => {
      const known = addresses.get(address);
      if (data === undefined) addresses.delete(address);
      else addresses.set(address, data);
      if (isAlone && known !== data) this.#tell(`${address},${index}`, data);
    });
  }

  /** A pair of the other family, whose interface has an index, too. */
  changeOther(member: string, isThere: boolean): void {
    const name = member.slice(member.indexOf(',') + 1);
    if (!name.startsWith(hostInterfacePrefix)) return;
    this.#changeHolder(name, (holder) => {
      holder.others += isThere ? 1 : -1;
    });
  }

  /** Where a second name comes to the index, or only one is left, all pairs of the other go or come. */
  #changeHolder(name: string, change: (holder: Holder, index: number, isAlone: boolean) => void): void {
    const index = hostInterfaceIndex(name);
    const names = this.#holders.get(index) ?? new Map<string, Holder>();
    const holder = names.get(name) ?? { addresses: new Map<string, Data>(), others: 0 };
    if (names.size === 1 && !names.has(name)) this.#tellAll(index, names, false);
    names.set(name, holder);
    change(holder, index, names.size === 1);
    this.#holders.set(index, names);
    if (holder.addresses.size + holder.others > 0) return;
    names.delete(name);
    if (names.size === 1) this.#tellAll(index, names, true);
    if (names.size === 0) this.#holders.delete(index);
  }

  #tellAll(index: number, names: ReadonlyMap<string, Holder>, isThere: boolean): void {
    for (const { addresses } of names.values())
      for (const [address, data] of addresses) this.#tell(`${address},${index}`, isThere ? data : undefined);
  }
}
