/**
 * NAT outgoing: what pools that ask for it send to where no pool is leaves with the address of the host (pure, in memory).
 *
 * In: pools. Out: two sets and the chain nctl-nat per family, while a pool of that family asks. Never: a rule in table nat that
 * no pool needs (each costs every new connection of the host); traffic between pools changed.
 */
import { type Cidr, type Family, familyOf } from '../model/ip.ts';
import { compileNat } from './compile.ts';
import type { CountedSets } from './counted-sets.ts';
import { chains as chainNames, natPoolSet, poolSet } from './names.ts';
import { setMembers } from './set-members.ts';
import type { ToldChains } from './told-chains.ts';

interface Pool {
  readonly cidr: Cidr;
  readonly natOutgoing: boolean;
}

export class NatPools {
  readonly #sets: CountedSets;
  readonly #chains: ToldChains;
  readonly #pools = new Map<string, Pool>();
  /** How many pools ask. */
  readonly #asking: Record<Family, number> = { 4: 0, 6: 0 };

  constructor(sets: CountedSets, chains: ToldChains) {
    this.#sets = sets;
    this.#chains = chains;
  }

  onPool(name: string, pool: Pool | null): void {
    const old = this.#pools.get(name);
    if (pool === null) this.#pools.delete(name);
    else this.#pools.set(name, { cidr: pool.cidr, natOutgoing: pool.natOutgoing });
    if (pool !== null) this.#count('add', pool);
    if (old !== undefined) this.#count('remove', old);
  }

  #count(what: 'add' | 'remove', { cidr, natOutgoing }: Pool): void {
    const family = familyOf(cidr);
    const sets = [poolSet(family), ...(natOutgoing ? [natPoolSet(family)] : [])];
    for (const { member } of setMembers([cidr])) for (const set of sets) this.#sets[what](set, member);
    if (natOutgoing) this.#ask(family, what === 'add' ? 1 : -1);
  }

  #ask(family: Family, difference: 1 | -1): void {
    const before = this.#asking[family];
    this.#asking[family] += difference;
    const sets = [poolSet(family), natPoolSet(family)];
    if (before === 0) {
      for (const set of sets) this.#sets.acquire(set, { type: 'net', family });
      this.#chains.tell(family, compileNat(family));
    } else if (this.#asking[family] === 0) {
      this.#chains.untell(family, chainNames.nat);
      for (const set of sets) this.#sets.release(set);
    }
  }
}
