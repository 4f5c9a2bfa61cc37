/**
 * What this node knows of pools, blocks and addresses: the picture that assignments are planned on, so that planning reads
 * nothing from the store.
 *
 * In: records with their revisions, from the syncer and from our own transactions, in any order and repeatedly; holds of
 * addresses that a transaction in flight wants. Out: answers in constant time. Never: a decision; the transaction's compares
 * decide, the book only proposes.
 */
import { type Address, type Cidr, cidrContains } from '../model/ip.ts';
import type { AddressRecord, Block, Pool } from '../model/records.ts';
import type { Revision } from '../store/store.ts';
import { blockOf } from './blocks.ts';

export interface Known<T> {
  readonly value: T;
  readonly modified: Revision;
}

export class AddressBook {
  readonly #pools = new Map<string, Pool>();
  readonly #blocks = new Map<Cidr, Known<Block>>();
  readonly #addresses = new Map<Address, Known<AddressRecord>>();
  readonly #blocksByOwner = new Index<Cidr>();
  readonly #addressesByPool = new Index<Address>();
  readonly #addressesByBlock = new Index<Address>();
  readonly #cooling = new Set<Address>();
  /** How many transactions in flight want the address or block. */
  readonly #held = new Map<string, number>();

  onPool(name: string, pool: Pool | null): void {
    const members = this.#addressesByPool.of(name);
    for (const address of members) this.#indexInBlock(address, name, false);
    if (pool === null) this.#pools.delete(name);
    else this.#pools.set(name, pool);
    for (const address of members) this.#indexInBlock(address, name, true);
  }

  onBlock(cidr: Cidr, block: Known<Block> | null): void {
    const before = this.#blocks.get(cidr);
    if (block !== null && before !== undefined && before.modified > block.modified) return;
    if (before !== undefined) this.#blocksByOwner.delete(ownerOf(before.value), cidr);
    if (block === null) this.#blocks.delete(cidr);
    else {
      this.#blocks.set(cidr, block);
      this.#blocksByOwner.add(ownerOf(block.value), cidr);
    }
  }

  onAddress(address: Address, record: Known<AddressRecord> | null): void {
    const before = this.#addresses.get(address);
    if (record !== null && before !== undefined && before.modified > record.modified) return;
    if (before !== undefined) {
      this.#addressesByPool.delete(before.value.pool, address);
      this.#indexInBlock(address, before.value.pool, false);
    }
    if (record?.value.state === 'cooldown') this.#cooling.add(address);
    else this.#cooling.delete(address);
    if (record === null) this.#addresses.delete(address);
    else {
      this.#addresses.set(address, record);
      this.#addressesByPool.add(record.value.pool, address);
      this.#indexInBlock(address, record.value.pool, true);
    }
  }

  /** Pools in the order of their names. */
  pools(): [string, Pool][] {
    return [...this.#pools].sort(([a], [b]) => (a < b ? -1 : 1));
  }

  pool(name: string): Pool | undefined {
    return this.#pools.get(name);
  }

  poolOf(address: Address): [string, Pool] | undefined {
    return this.pools().find(([, pool]) => cidrContains(pool.cidr, address));
  }

  block(cidr: Cidr): Known<Block> | undefined {
    return this.#blocks.get(cidr);
  }

  blocks(): ReadonlyMap<Cidr, Known<Block>> {
    return this.#blocks;
  }

  blocksOf(node: string, pool: string): ReadonlySet<Cidr> {
    return this.#blocksByOwner.of(ownerOf({ node, pool }));
  }

  address(address: Address): Known<AddressRecord> | undefined {
    return this.#addresses.get(address);
  }

  /** Released addresses that are kept back for a while. */
  cooling(): ReadonlySet<Address> {
    return this.#cooling;
  }

  /** Has a record or is wanted by a transaction in flight. */
  isTaken(address: Address): boolean {
    return this.#addresses.has(address) || this.#held.has(address);
  }

  /** No address of the block has a record or is wanted. */
  isEmpty(block: Cidr): boolean {
    if (this.#addressesByBlock.of(block).size > 0) return false;
    return ![...this.#held.keys()].some((key) =>
      key.includes('/') ? key === block : cidrContains(block, key as Address),
    );
  }

  /** Keeps others of this process from proposing the same address or block until `unhold`. */
  hold(keys: Iterable<Address | Cidr>): void {
    for (const key of keys) this.#held.set(key, (this.#held.get(key) ?? 0) + 1);
  }

  unhold(keys: Iterable<Address | Cidr>): void {
    for (const key of keys) {
      const others = (this.#held.get(key) ?? 0) - 1;
      if (others > 0) this.#held.set(key, others);
      else this.#held.delete(key);
    }
  }

  isHeld(key: Address | Cidr): boolean {
    return this.#held.has(key);
  }

  #indexInBlock(address: Address, poolName: string, present: boolean): void {
    const pool = this.#pools.get(poolName);
    if (pool === undefined) return;
    if (present) this.#addressesByBlock.add(blockOf(pool, address), address);
    else this.#addressesByBlock.delete(blockOf(pool, address), address);
  }
}

const ownerOf = (block: { node: string; pool: string }): string => `${block.node}/${block.pool}`;

/** Sets by key; a key without members takes no memory. */
class Index<T> {
  readonly #sets = new Map<string, Set<T>>();
  static readonly #none: ReadonlySet<never> = new Set();

  of(key: string): ReadonlySet<T> {
    return this.#sets.get(key) ?? Index.#none;
  }

  add(key: string, member: T): void {
    const set = this.#sets.get(key);
    if (set === undefined) this.#sets.set(key, new Set([member]));
    else set.add(member);
  }

  delete(key: string, member: T): void {
    const set = this.#sets.get(key);
    if (set?.delete(member) && set.size === 0) this.#sets.delete(key);
  }
}
