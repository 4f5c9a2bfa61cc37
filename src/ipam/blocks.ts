/**
 * Arithmetic of pools and blocks: which blocks a pool has, in which order a node looks at them, which addresses of a block
 * may be given out.
 *
 * In: pools and prefixes. Out: lazy sequences. Never: a list of a pool's addresses or blocks (a pool may hold 2^64).
 */
import { createHash } from 'node:crypto';
import {
  type Address,
  addressBits,
  addressFrom,
  addressValue,
  type Cidr,
  cidrBase,
  cidrContains,
  cidrSize,
  familyOf,
  networkOf,
  prefixLength,
} from '../model/ip.ts';
import type { Pool } from '../model/records.ts';
import type { PoolView } from './pool-view.ts';

/** The block of the pool that holds the address. */
export function blockOf(pool: Pool, address: Address): Cidr {
  return networkOf(address, pool.blockSize);
}

/**
 * Blocks of the pool that pass the filter, each once, beginning at a place that depends on the node, so that nodes seldom want
 * the same one. Prefixes that the pool excludes are jumped over, not walked through. Ends after `maxSteps` refused blocks.
 */
export function* candidateBlocks(
  pool: Pool,
  node: string,
  isFree: (block: Cidr) => boolean,
  maxSteps = 100_000,
): Generator<Cidr> {
  const family = familyOf(pool.cidr);
  const base = addressValue(cidrBase(pool.cidr));
  const size = 1n << BigInt(addressBits(family) - pool.blockSize);
  const count = cidrSize(pool.cidr) / size;
  const start =
    BigInt(`0x${createHash('sha256').update(`${pool.cidr}\0${node}`).digest('hex').slice(0, 16)}`) % count;
  for (let walked = 0n, steps = 0; walked < count && steps < maxSteps; steps++) {
    const position = (start + walked) % count;
    const first = addressFrom(family, base + position * size);
    const block = `${first}/${pool.blockSize}` as Cidr;
    const exclude = pool.excludes.find(
      (cidr) => prefixLength(cidr) <= pool.blockSize && cidrContains(cidr, first),
    );
    if (exclude === undefined) {
      if (isFree(block)) yield block;
      walked += 1n;
    } else {
      const end = (addressValue(cidrBase(exclude)) + cidrSize(exclude) - base) / size;
      walked += (end < count ? end : count) - position;
    }
  }
}

/** A free assignable address of the block, from `cursor` (an offset in the block) on and around; null when there is none. */
export function nextFree(
  pool: PoolView,
  block: Cidr,
  cursor: number,
  isTaken: (address: Address) => boolean,
): { address: Address; cursor: number } | null {
  const family = familyOf(block);
  const base = addressValue(cidrBase(block));
  const size = Number(cidrSize(block));
  for (let step = 0; step < size; step++) {
    const offset = (cursor + step) % size;
    const address = addressFrom(family, base + BigInt(offset));
    if (!isTaken(address) && pool.isAssignable(address)) return { address, cursor: (offset + 1) % size };
  }
  return null;
}
