/**
 * One transaction of the IPAM in the making: every change of an address with its compare and its entry in the owners' index.
 *
 * In: records as known, records as wanted. Out: compares and writes. Never: a key written twice, a record changed without a compare
 * on the revision that was read, an index that disagrees with its record.
 */
import type { Address, Cidr } from '../model/ip.ts';
import { addressKey, blockKey, ownerKey } from '../model/keys.ts';
import type { AddressRecord, Block, Owner } from '../model/records.ts';
import type { Compare, Json, Write } from '../store/store.ts';
import { type Known, textOf } from './address-book.ts';

export interface Step {
  readonly compares: readonly Compare[];
  readonly writes: readonly Write[];
}

export class Draft {
  readonly #compares = new Map<string, Compare>();
  readonly #writes = new Map<string, Write>();

  /** The steps of others become part of this one. */
  add(step: Step): this {
    for (const compare of step.compares) this.compare(compare);
    for (const write of step.writes) this.#writes.set(write.key, write);
    return this;
  }

  compare(compare: Compare): this {
    // "Is there" says less than a compare on the revision of the same key.
    if (compare.kind !== 'present' || !this.#compares.has(compare.key))
      this.#compares.set(compare.key, compare);
    return this;
  }

  put(key: string, value: object): this {
    this.#writes.set(key, { kind: 'put', key, value: value as Json });
    return this;
  }

  delete(key: string): this {
    this.#writes.set(key, { kind: 'delete', key });
    return this;
  }

  /** `before`: undefined means that there is none, and the transaction says so. */
  compareTo(key: string, before: Pick<Known<unknown>, 'modified'> | undefined): this {
    return this.compare(
      before === undefined ? { kind: 'absent', key } : { kind: 'modified', key, revision: before.modified },
    );
  }

  /** What this transaction is to leave under the key so far. */
  written(key: string): unknown {
    const write = this.#writes.get(key);
    return write?.kind === 'put' ? write.value : undefined;
  }

  setAddress(address: Address, before: Known<AddressRecord> | undefined, next: AddressRecord): this {
    const key = addressKey(address);
    this.compareTo(key, before).put(key, next);
    const [was, is] = [indexedOwner(before?.value), indexedOwner(next)];
    if (was !== null && (is === null || textOf(was) !== textOf(is))) this.delete(ownerKey(was, address));
    if (is !== null && (was === null || textOf(was) !== textOf(is)))
      this.put(ownerKey(is, address), { pool: next.pool });
    return this;
  }

  deleteAddress(address: Address, before: Known<AddressRecord>): this {
    const key = addressKey(address);
    this.compareTo(key, before).delete(key);
    const owner = indexedOwner(before.value);
    return owner === null ? this : this.delete(ownerKey(owner, address));
  }

  setBlock(block: Cidr, before: Known<Block> | undefined, next: Block): this {
    const key = blockKey(block);
    return this.compareTo(key, before).put(key, next);
  }

  get size(): number {
    return this.#writes.size;
  }

  step(): Step {
    return { compares: [...this.#compares.values()], writes: [...this.#writes.values()] };
  }
}

/** A cooling address is nobody's any more. */
export const indexedOwner = (record: AddressRecord | undefined): Owner | null =>
  record === undefined || record.state === 'cooldown' ? null : record.owner;
