/**
 * Assignment: the addresses that a new endpoint gets, as one half of the transaction that makes the endpoint.
 *
 * In: the address book, a request. Out: a proposal: addresses, compares and writes; the caller adds the endpoint's own writes,
 * commits, and tells how it went. A lost race (`committed: false`) is answered by proposing anew. Never: an address whose
 * absence the transaction does not compare, an address of a pool that is being removed, one family without the other when both were asked for.
 */
import { NetctlError } from '../lib/errors.ts';
import { type Address, type Cidr, families, familyOf } from '../model/ip.ts';
import { addressKey, blockKey, ownerKey, poolKey } from '../model/keys.ts';
import { type Mac, macOf } from '../model/mac.ts';
import type { AddressRecord, Block, Owner, Pool } from '../model/records.ts';
import type { Compare, Json, Write } from '../store/store.ts';
import type { AddressBook } from './address-book.ts';
import { blockOf, candidateBlocks, isAssignable, nextFree } from './blocks.ts';

export interface AssignRequest {
  readonly node: string;
  readonly endpoint: string;
  readonly owner: Owner;
  /** Pool names in order of preference; empty means any enabled routed pool. */
  readonly pools: readonly string[];
  /** Exactly these, or empty for one of each family that has a pool. */
  readonly addresses: readonly Address[];
  /** null: the one that goes with the first address. */
  readonly mac: Mac | null;
  readonly now: Date;
}

export interface Proposal {
  readonly addresses: readonly Address[];
  readonly mac: Mac;
  readonly compares: readonly Compare[];
  readonly writes: readonly Write[];
  /** Must be called once when the transaction's outcome is known (or it was given up). */
  settle(): void;
}

interface Choice {
  readonly address: Address;
  readonly poolName: string;
  readonly block: Cidr;
}

/**
 * @throws POOL_NOT_FOUND, POOL_EXHAUSTED, ADDRESS_UNAVAILABLE, each naming what was asked for
 */
export class Assigner {
  readonly #book: AddressBook;
  /** Where the next search in a block begins, so that a released address is the last one to be given again. */
  readonly #cursors = new Map<Cidr, number>();

  constructor(book: AddressBook) {
    this.#book = book;
  }

  propose(request: AssignRequest): Proposal {
    const choices: Choice[] = [];
    const held = (): (Address | Cidr)[] => choices.flatMap(({ address, block }) => [address, block]);
    try {
      for (const choose of this.#choosers(request)) {
        const choice = choose();
        choices.push(choice);
        this.#book.hold([choice.address, choice.block]);
      }
    } catch (error) {
      this.#book.unhold(held());
      throw error;
    }
    return { ...this.#transaction(request, choices), settle: () => this.#book.unhold(held()) };
  }

  #choosers(request: AssignRequest): (() => Choice)[] {
    if (request.addresses.length > 0)
      return request.addresses.map((address) => () => this.#explicit(request, address));
    const pools = this.#poolsFor(request);
    return families
      .map((family) => pools.filter(([, pool]) => familyOf(pool.cidr) === family))
      .filter((candidates) => candidates.length > 0)
      .map((candidates) => () => this.#automatic(request, candidates));
  }

  #poolsFor(request: AssignRequest): [string, Pool][] {
    if (request.pools.length === 0) {
      const pools = this.#book.pools().filter(([, pool]) => pool.kind === 'routed' && !pool.disabled);
      if (pools.length > 0) return pools;
      throw new NetctlError(
        'POOL_NOT_FOUND',
        'there is no enabled pool: add one with `netctl pool add CIDR`',
      );
    }
    return request.pools.map((name) => [name, this.#usablePool(name)]);
  }

  #usablePool(name: string): Pool {
    const pool = this.#book.pool(name);
    if (pool === undefined)
      throw new NetctlError('POOL_NOT_FOUND', `there is no pool ${name}: see \`netctl pool show\``, {
        pool: name,
      });
    if (pool.disabled) throw new NetctlError('POOL_NOT_FOUND', `pool ${name} is disabled`, { pool: name });
    if (pool.kind !== 'routed')
      throw new NetctlError('POOL_NOT_FOUND', `pool ${name} is not for routed endpoints`, { pool: name });
    return pool;
  }

  #automatic(request: AssignRequest, pools: readonly [string, Pool][]): Choice {
    for (const [poolName, pool] of pools) {
      for (const block of this.#book.blocksOf(request.node, poolName)) {
        const choice = this.#inBlock(poolName, pool, block);
        if (choice !== null) return choice;
      }
      for (const block of candidateBlocks(pool, request.node, (cidr) => this.#isUnclaimed(cidr))) {
        const choice = this.#inBlock(poolName, pool, block);
        if (choice !== null) return choice;
      }
    }
    const names = pools.map(([name]) => name).join(', ');
    throw new NetctlError('POOL_EXHAUSTED', `no free address for node ${request.node} in pool ${names}`, {
      pools: names,
    });
  }

  #isUnclaimed(block: Cidr): boolean {
    return this.#book.block(block) === undefined;
  }

  #inBlock(poolName: string, pool: Pool, block: Cidr): Choice | null {
    const found = nextFree(pool, block, this.#cursors.get(block) ?? 0, (address) =>
      this.#book.isTaken(address),
    );
    if (found === null) return null;
    this.#cursors.set(block, found.cursor);
    return { address: found.address, poolName, block };
  }

  #explicit(request: AssignRequest, address: Address): Choice {
    const refuse = (why: string): NetctlError =>
      new NetctlError('ADDRESS_UNAVAILABLE', `address ${address} ${why}`, { address });
    const [poolName] = this.#book.poolOf(address) ?? [];
    if (poolName === undefined) throw refuse('is in no pool: see `netctl pool show`');
    if (request.pools.length > 0 && !request.pools.includes(poolName)) {
      throw refuse(`is in pool ${poolName}, not in ${request.pools.join(', ')}`);
    }
    const pool = this.#usablePool(poolName);
    if (!isAssignable(pool, address))
      throw refuse(`is kept out of pool ${poolName} (excluded, gateway, or the pool's first or last)`);
    const record = this.#book.address(address)?.value;
    if (record?.state === 'cooldown')
      throw refuse(`was released a moment ago and is free again at ${record.cooldownUntil}`);
    if (record !== undefined) {
      const { tenant, app, instance } = record.owner;
      throw refuse(
        `is taken by ${tenant}/${app}/${instance}${record.node === null ? '' : ` on node ${record.node}`}`,
      );
    }
    if (this.#book.isHeld(address)) throw refuse('is being given to another endpoint right now');
    const block = blockOf(pool, address);
    const owner = this.#book.block(block)?.value.node;
    if (owner !== undefined && owner !== request.node) throw refuse(`is in block ${block} of node ${owner}`);
    return { address, poolName, block };
  }

  #transaction(request: AssignRequest, choices: readonly Choice[]): Omit<Proposal, 'settle'> {
    const poolNames = new Set(choices.map((choice) => choice.poolName));
    const compares: Compare[] = [...poolNames].map((name) => ({ kind: 'present', key: poolKey(name) }));
    const writes: Write[] = [];
    for (const block of new Set(choices.map((choice) => choice.block))) {
      const key = blockKey(block);
      const known = this.#book.block(block);
      if (known !== undefined) {
        compares.push({ kind: 'modified', key, revision: known.modified });
      } else {
        const pool = choices.find((choice) => choice.block === block)?.poolName ?? '';
        const claim: Block = { pool, node: request.node, claimedAt: request.now.toISOString() };
        compares.push({ kind: 'absent', key });
        writes.push({ kind: 'put', key, value: claim });
      }
    }
    const [primary] = choices;
    if (primary === undefined)
      throw new NetctlError('POOL_NOT_FOUND', 'no pool has addresses for this endpoint');
    const mac = request.mac ?? macOf(primary.address);
    for (const { address, poolName } of choices) {
      const record: AddressRecord = {
        pool: poolName,
        state: 'active',
        owner: request.owner,
        node: request.node,
        endpoint: request.endpoint,
        mac,
        onRelease: 'delete',
        generation: 1,
        allocatedAt: request.now.toISOString(),
        cooldownUntil: null,
      };
      compares.push({ kind: 'absent', key: addressKey(address) });
      writes.push({ kind: 'put', key: addressKey(address), value: record as unknown as Json });
      writes.push({ kind: 'put', key: ownerKey(request.owner, address), value: { pool: poolName } });
    }
    return { addresses: choices.map(({ address }) => address), mac, compares, writes };
  }
}
