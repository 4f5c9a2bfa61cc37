/**
 * Where a new address comes from. Routed pools: a block of the node, else a new block, else (where that is allowed) one borrowed
 * from another node's shared block. macvlan pools: any address, from a random one on.
 *
 * In: the address book, a wish. Out: an address with what its transaction must say about its block. Never: an address that has a
 * record; one of a block that another node decides alone; the lowest first on every node.
 */
import { type ErrorCode, NetctlError } from '../lib/errors.ts';
import { type AddressRange, type Interval, rangeBounds } from '../model/address-range.ts';
import { type Address, addressBits, type Cidr, cidrSize } from '../model/ip.ts';
import { blockKey, poolKey } from '../model/keys.ts';
import type { Block } from '../model/records.ts';
import { type Access, nodeHold, nodeLimit, roomOnNode, usablePool } from './access.ts';
import type { AddressBook, Known } from './address-book.ts';
import { blockOf, candidateBlocks, nextFree } from './blocks.ts';
import type { Draft } from './draft.ts';
import { addressesFrom, countOf, intersect, joined, type PoolView, randomBelow } from './pool-view.ts';

export interface Wish extends Access {
  /** Others than this node will write the record (a reservation, a fixed address): not from a block that a node decides alone. */
  readonly shared: boolean;
  /** Only these parts of the pools; empty means all. */
  readonly ranges: readonly AddressRange[];
  /** Not these: another machine answered for them a moment ago. */
  readonly skip: ReadonlySet<Address>;
  readonly now: Date;
}

export interface Place {
  readonly address: Address;
  readonly view: PoolView;
  readonly borrowed: boolean;
  /** null in a macvlan pool. */
  readonly block: {
    readonly cidr: Cidr;
    readonly known: Known<Block> | undefined;
    readonly next: Block | null;
  } | null;
}

const mostProbes = 1 << 20;
const mostProbesInBlocks = 1 << 12;

export class Places {
  readonly #book: AddressBook;
  readonly #self: string;
  readonly #random: () => number;
  /** Where the next search in a block begins, so that a released address is the last one to be given again. */
  readonly #cursors = new Map<Cidr, number>();

  /** @param self the node of this process @param random as Math.random */
  constructor(book: AddressBook, self: string, random: () => number = Math.random) {
    this.#book = book;
    this.#self = self;
    this.#random = random;
  }

  /** @throws POOL_EXHAUSTED, NODE_LIMIT */
  automatic(wish: Wish, views: readonly PoolView[]): Place {
    const limits: string[] = [];
    for (const view of views) {
      if (roomOnNode(this.#book, view, wish.node) === 0) {
        limits.push(
          `at most ${view.pool.maxAddressesPerNode} addresses of pool ${view.name} (maxAddressesPerNode)`,
        );
        continue;
      }
      const place =
        view.pool.kind === 'macvlan' || wish.ranges.length > 0
          ? this.#scattered(wish, view)
          : (this.#fromOwnBlock(wish, view) ??
            this.#fromNewBlock(wish, view, limits) ??
            this.#borrowed(wish, view));
      if (place !== null) return place;
    }
    const names = views.map(({ name }) => name).join(', ');
    if (limits.length > 0)
      throw new NetctlError('NODE_LIMIT', `node ${this.#claimant(wish)} may have ${limits.join(', ')}`, {
        limits,
      });
    const cooling = this.#cooling(views);
    const soon =
      cooling.cooldown === 0
        ? ''
        : `: ${cooling.cooldown} cooling down${cooling.cooldownUntil === null ? '' : `, the first until ${cooling.cooldownUntil}`}`;
    throw new NetctlError(
      'POOL_EXHAUSTED',
      `no free address for node ${this.#claimant(wish)} in pool ${names}${soon}`,
      { pools: names, ...cooling },
    );
  }

  /**
   * @throws ADDRESS_UNAVAILABLE, ADDRESS_IN_USE, ADDRESS_RESERVED, ADDRESS_EXCLUDED, OUT_OF_RANGE, ADDRESS_QUARANTINED,
   *   POOL_NOT_FOUND, POOL_DISABLED, AFFINITY_MISMATCH, NODE_LIMIT, saying why
   */
  explicit(wish: Wish, address: Address): Place {
    const refuse = (why: string, code: ErrorCode = 'ADDRESS_UNAVAILABLE'): NetctlError =>
      new NetctlError(code, `address ${address} ${why}`, { address });
    const found = this.#book.viewOf(address);
    if (found === undefined || !found.isFor(wish.tenant))
      throw refuse('is in no pool: see `netctl pool show`', 'OUT_OF_RANGE');
    if (wish.pools.length > 0 && !wish.pools.includes(found.name))
      throw refuse(`is in pool ${found.name}, not in ${wish.pools.join(', ')}`, 'OUT_OF_RANGE');
    const view = usablePool(this.#book, wish, found.name);
    if (!view.isAssignable(address))
      throw refuse(
        `is kept out of pool ${view.name} (excluded, outside its ranges, gateway, or the pool's first or last)`,
        'ADDRESS_EXCLUDED',
      );
    this.#refuseTaken(wish, address, refuse);
    if (this.#book.isHeld(address)) throw refuse('is being given to another endpoint right now');
    if (roomOnNode(this.#book, view, wish.node) === 0) throw nodeLimit(view, wish.node);
    const place = this.#at(wish, view, address);
    if (typeof place === 'string') throw refuse(place);
    return place;
  }

  /** Where an address that has a record already is used from now on; a block that nobody has is claimed. */
  existing(view: PoolView, address: Address, node: string, now: Date): Place {
    if (view.pool.kind === 'macvlan') return { address, view, borrowed: false, block: null };
    const cidr = blockOf(view.pool, address);
    const known = this.#book.block(cidr);
    const next = known === undefined ? claim(view, node, true, now) : null;
    return {
      address,
      view,
      borrowed: known !== undefined && known.value.node !== node,
      block: { cidr, known, next },
    };
  }

  #refuseTaken(wish: Wish, address: Address, refuse: (why: string, code?: ErrorCode) => NetctlError): void {
    const record = this.#book.address(address)?.value;
    if (record === undefined) return;
    if (record.state === 'cooldown')
      throw refuse(`was released a moment ago and is free again at ${record.cooldownUntil}`);
    if (record.state === 'quarantined')
      throw new NetctlError(
        'ADDRESS_QUARANTINED',
        `address ${address} is kept back: ${record.conflict?.mac} answered for it on node ${record.conflict?.node} at ${record.conflict?.seenAt}`,
        { address, ...record.conflict },
      );
    const { tenant, app, instance } = record.owner;
    if (tenant !== wish.tenant) throw refuse('is taken', 'ADDRESS_IN_USE');
    throw refuse(
      `is taken by ${tenant}/${app}/${instance}${record.node === null ? '' : ` on node ${record.node}`}`,
      record.state === 'reserved' ? 'ADDRESS_RESERVED' : 'ADDRESS_IN_USE',
    );
  }

  #fromOwnBlock(wish: Wish, view: PoolView): Place | null {
    const blocks = this.#book.blocksOf(this.#claimant(wish), view.name);
    // Blocks that this node decides alone first: they need nobody else.
    for (const shared of this.#needsShared(wish) ? [true] : [false, true]) {
      for (const cidr of blocks) {
        const known = this.#book.block(cidr)!;
        if (known.value.shared !== shared || known.value.closing) continue;
        const place = this.#inBlock(wish, view, cidr, known, null);
        if (place !== null) return place;
      }
    }
    return null;
  }

  #fromNewBlock(wish: Wish, view: PoolView, limits: string[]): Place | null {
    const node = this.#claimant(wish);
    const most = view.pool.maxBlocksPerNode ?? Number.POSITIVE_INFINITY;
    let claimed = this.#book.blocksOf(node, view.name).size;
    const all = cidrSize(view.pool.cidr) / (1n << BigInt(addressBits(view.family) - view.pool.blockSize));
    if (BigInt(this.#book.blocksInPool(view.name).size) >= all) return null;
    const isUnclaimed = (cidr: Cidr): boolean => this.#book.block(cidr) === undefined;
    for (const cidr of candidateBlocks(view.pool, node, isUnclaimed)) {
      if (claimed++ >= most) {
        limits.push(`at most ${most} blocks of pool ${view.name} (maxBlocksPerNode)`);
        return null;
      }
      const place = this.#inBlock(
        wish,
        view,
        cidr,
        undefined,
        claim(view, node, this.#claimsShared(wish), wish.now),
      );
      if (place !== null) return place;
      // Full of addresses that others asked for in this turn: a claim all the same. Without any of its own: none.
      if (!this.#book.isHeld(cidr)) claimed--;
    }
    return null;
  }

  #borrowed(wish: Wish, view: PoolView): Place | null {
    if (this.#book.settings.strictAffinity) return null;
    for (const cidr of this.#book.blocksInPool(view.name)) {
      const known = this.#book.block(cidr)!;
      if (!known.value.shared || known.value.closing || known.value.node === this.#claimant(wish)) continue;
      const start = Math.floor(this.#random() * Number(cidrSize(cidr)));
      const place = this.#inBlock(wish, view, cidr, known, null, start);
      if (place !== null) return { ...place, borrowed: true };
    }
    return null;
  }

  #inBlock(
    wish: Wish,
    view: PoolView,
    cidr: Cidr,
    known: Known<Block> | undefined,
    next: Block | null,
    start = this.#cursors.get(cidr) ?? 0,
  ): Place | null {
    if (this.#book.freeIn(view, cidr) <= 0) return null;
    const isTaken = (address: Address): boolean => this.#book.isTaken(address) || wish.skip.has(address);
    const found = nextFree(view, cidr, start, isTaken);
    if (found === null) return null;
    this.#cursors.set(cidr, found.cursor);
    return { address: found.address, view, borrowed: false, block: { cidr, known, next } };
  }

  /** From a random address on, so that nodes that ask at the same moment seldom want the same one. */
  #scattered(wish: Wish, view: PoolView): Place | null {
    if (BigInt(this.#book.takenIn(view.name)) >= view.assignable) return null;
    const intervals = wish.ranges.length === 0 ? view.intervals : within(view, wish.ranges);
    const inBlocks = view.pool.kind === 'routed';
    let probes = inBlocks ? mostProbesInBlocks : mostProbes;
    const start = randomBelow(countOf(intervals), this.#random);
    for (const address of addressesFrom(view.family, intervals, start)) {
      if (probes-- === 0) return null;
      if (this.#book.isTaken(address) || wish.skip.has(address)) continue;
      if (!inBlocks) return { address, view, borrowed: false, block: null };
      const place = this.#at(wish, view, address);
      if (typeof place !== 'string') return place;
    }
    return null;
  }

  /** The place of a free address, or why the node cannot have it. */
  #at(wish: Wish, view: PoolView, address: Address): Place | string {
    if (view.pool.kind === 'macvlan') return { address, view, borrowed: false, block: null };
    const node = this.#claimant(wish);
    const cidr = blockOf(view.pool, address);
    const known = this.#book.block(cidr);
    const place = (next: Block | null, borrowed = false): Place => ({
      address,
      view,
      borrowed,
      block: { cidr, known, next },
    });
    if (known === undefined) {
      const most = view.pool.maxBlocksPerNode ?? Number.POSITIVE_INFINITY;
      if (this.#book.blocksOf(node, view.name).size >= most)
        return `is in block ${cidr}, and node ${node} has ${most} blocks of pool ${view.name} already (maxBlocksPerNode)`;
      return place(claim(view, node, this.#claimsShared(wish), wish.now));
    }
    const { node: holder, shared, closing } = known.value;
    if (closing) return `is in block ${cidr}, which node ${holder} is giving back right now`;
    if (holder === node && (shared || !this.#needsShared(wish))) return place(null);
    if (holder === this.#self && holder === node) return place({ ...known.value, shared: true });
    if (holder !== node && shared && !this.#book.settings.strictAffinity) return place(null, true);
    return `is in block ${cidr} of node ${holder}`;
  }

  #claimant(wish: Wish): string {
    return wish.node ?? this.#self;
  }

  #needsShared(wish: Wish): boolean {
    return wish.shared || this.#claimant(wish) !== this.#self;
  }

  #claimsShared(wish: Wish): boolean {
    return this.#needsShared(wish) || !this.#book.settings.strictAffinity;
  }

  /** What an exhausted pool will have again, and when the first of it (looked at: what cools down on this node). */
  #cooling(views: readonly PoolView[]): { available: 0; cooldown: number; cooldownUntil: string | null } {
    const names = new Set(views.map(({ name }) => name));
    const cooldown = [...names].reduce((sum, name) => sum + this.#book.counts.of('pool', name).cooldown, 0);
    let cooldownUntil: string | null = null;
    for (const holder of [this.#self, '']) {
      for (const address of this.#book.cooling(holder)) {
        const { pool, cooldownUntil: end } = this.#book.address(address)!.value;
        if (names.has(pool) && end !== null && (cooldownUntil === null || end < cooldownUntil))
          cooldownUntil = end;
      }
    }
    return { available: 0, cooldown, cooldownUntil };
  }
}

/** What the transaction says about pool and block of the place. */
export function enterPlace(draft: Draft, { view, block }: Place): void {
  draft.compareTo(poolKey(view.name), view);
  if (block === null) return;
  if (block.next === null) draft.compareTo(blockKey(block.cidr), block.known);
  else draft.setBlock(block.cidr, block.known, block.next);
}

/** Keeps others of this process from the place, and from the node's last free address. */
export function holdsOf({ address, view, block }: Place, node: string | null): string[] {
  return [address, ...(block === null ? [] : [block.cidr]), nodeHold(node, view.name)];
}

function claim(view: PoolView, node: string, shared: boolean, now: Date): Block {
  return { pool: view.name, node, claimedAt: now.toISOString(), shared, closing: false };
}

function within(view: PoolView, ranges: readonly AddressRange[]): Interval[] {
  const sameFamily = ranges.filter((range) => (range.includes(':') ? 6 : 4) === view.family);
  return intersect(view.intervals, joined(sameFamily.map(rangeBounds)));
}
