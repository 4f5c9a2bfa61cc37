/**
 * How many addresses are in which state, kept up with every record: a question costs one look-up.
 *
 * In: records that come and go. Out: counts by pool, node, tenant and app. Never: a walk over addresses.
 */
import type { AddressRecord } from '../model/records.ts';

export type State = AddressRecord['state'];
export type Counts = Readonly<Record<State, number>>;
export type Dimension = 'pool' | 'node' | 'tenant' | 'app';

const none: Counts = { reserved: 0, bound: 0, active: 0, retained: 0, cooldown: 0, quarantined: 0 };

export class AddressCounts {
  readonly #counts: Readonly<Record<Dimension | 'node-pool', Map<string, Record<State, number>>>> = {
    pool: new Map(),
    node: new Map(),
    tenant: new Map(),
    app: new Map(),
    'node-pool': new Map(),
  };

  /** @param by 1 when the record comes, -1 when it goes */
  add({ pool, node, owner, state }: AddressRecord, by: 1 | -1): void {
    this.#add('pool', pool, state, by);
    if (node !== null) {
      this.#add('node', node, state, by);
      this.#add('node-pool', `${node}/${pool}`, state, by);
    }
    this.#add('tenant', owner.tenant, state, by);
    this.#add('app', `${owner.tenant}/${owner.app}`, state, by);
  }

  of(dimension: Dimension, key: string): Counts {
    return this.#counts[dimension].get(key) ?? none;
  }

  ofNodeInPool(node: string, pool: string): Counts {
    return this.#counts['node-pool'].get(`${node}/${pool}`) ?? none;
  }

  all(dimension: Dimension): ReadonlyMap<string, Counts> {
    return this.#counts[dimension];
  }

  #add(dimension: Dimension | 'node-pool', key: string, state: State, by: 1 | -1): void {
    let counts = this.#counts[dimension].get(key);
    if (counts === undefined) {
      counts = { ...none };
      this.#counts[dimension].set(key, counts);
    }
    counts[state] += by;
    if (by < 0 && heldCount(counts) + counts.cooldown === 0) this.#counts[dimension].delete(key);
  }
}

/** Addresses that count against limits and quotas: all but those in cooldown. */
export function heldCount(counts: Counts): number {
  return counts.reserved + counts.bound + counts.active + counts.retained + counts.quarantined;
}

/** Addresses that count against a node's limit: what it uses and what is reserved for it. */
export function usedOnNode(counts: Counts): number {
  return counts.reserved + counts.bound + counts.active;
}
