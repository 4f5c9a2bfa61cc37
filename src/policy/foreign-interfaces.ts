/**
 * Host interfaces of endpoints that another CNI plugin has made, whose names no pattern of ours matches (pure, in memory).
 *
 *     FORWARD ──► nctl-foreign ──► nctl-FORWARD, nctl-FORWARD-to      INPUT ──► nctl-foreign-in ──► nctl-INPUT
 *
 * In: interfaces that come and go with their endpoints. Out: per family a set of them, and the chains that lead into those of all
 * endpoints. Never: a family of such an interface that nobody judges, though its endpoint has no address of it.
 */
import { type Family, families } from '../model/ip.ts';
import { compileForeign } from './compile.ts';
import type { CountedSets } from './counted-sets.ts';
import { chains as chainNames, foreignSet } from './names.ts';
import { everyPrefix } from './set-members.ts';
import type { ToldChains } from './told-chains.ts';

export class ForeignInterfaces {
  readonly #sets: CountedSets;
  readonly #chains: ToldChains;
  readonly #tellBase: (family: Family) => void;
  #users = 0;

  /** @param tellBase the chains of all endpoints name the set while there is an interface */
  constructor(sets: CountedSets, chains: ToldChains, tellBase: (family: Family) => void) {
    this.#sets = sets;
    this.#chains = chains;
    this.#tellBase = tellBase;
  }

  get any(): boolean {
    return this.#users > 0;
  }

  add(hostInterface: string): void {
    const isFirst = ++this.#users === 1;
    for (const family of families) {
      if (isFirst) this.#sets.acquire(foreignSet(family), { type: 'net,iface', family });
      for (const net of everyPrefix(family)) this.#sets.add(foreignSet(family), `${net},${hostInterface}`);
      if (!isFirst) continue;
      this.#tellBase(family);
      for (const chain of compileForeign(family)) this.#chains.tell(family, chain);
    }
  }

  remove(hostInterface: string): void {
    const isLast = --this.#users === 0;
    for (const family of families) {
      for (const net of everyPrefix(family)) this.#sets.remove(foreignSet(family), `${net},${hostInterface}`);
      if (!isLast) continue;
      for (const name of [chainNames.foreign, chainNames.foreignIn]) this.#chains.untell(family, name);
      this.#tellBase(family);
      this.#sets.release(foreignSet(family));
    }
  }
}
