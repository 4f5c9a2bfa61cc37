/**
 * What this node knows of pools, blocks, addresses and reservations: the picture that plans are made on, so that planning reads
 * nothing from the store.
 *
 * In: records with their revisions, from the syncer and from our own transactions, in any order and repeatedly; holds of
 * addresses that a transaction in flight wants. Out: answers in constant time. Never: a decision; the transaction's compares
 * decide, the book only proposes.
 */
import { type Address, type Cidr, cidrContains } from '../model/ip.ts';
import {
  type AddressRecord,
  type Block,
  type NodeState,
  type Owner,
  type Pool,
  type Reservation,
  type Settings,
  settingsSchema,
  type Tenant,
  type TenantUse,
} from '../model/records.ts';
import type { Labels } from '../model/selector.ts';
import type { Revision } from '../store/store.ts';
import { blockOf } from './blocks.ts';
import { AddressCounts } from './counts.ts';
import { IndexBy } from './index-by.ts';
import type { Known } from './known.ts';
import { PoolView } from './pool-view.ts';
import { PortBook } from './port-book.ts';
import { RevisionGate } from './revision-gate.ts';

export type { Known };

const defaults: Settings = settingsSchema.parse({});

export class AddressBook {
  readonly counts = new AddressCounts();
  readonly ports = new PortBook();
  readonly #views = new Map<string, PoolView>();
  #sorted: readonly PoolView[] | null = null;
  readonly #blocks = new Map<Cidr, Known<Block>>();
  readonly #addresses = new Map<Address, Known<AddressRecord>>();
  readonly #reservations = new Map<string, Known<Reservation>>();
  readonly #nodes = new Map<string, Labels>();
  readonly #nodeStates = new Map<string, NodeState>();
  readonly #tenants = new Map<string, Tenant>();
  readonly #uses = new Map<string, Known<TenantUse>>();
  readonly #blocksByClaim = new IndexBy<Cidr>();
  readonly #blocksByPool = new IndexBy<Cidr>();
  readonly #addressesByOwner = new IndexBy<Address>();
  readonly #coolingByNode = new IndexBy<Address>();
  readonly #expiring = new Set<Address>();
  /** Addresses with a record, by block; of those that the pool would give out, by pool and by block. */
  readonly #recorded = new Map<Cidr, number>();
  readonly #taken = new Map<string, number>();
  /** How many transactions in flight want the address or block, and how many addresses they want for a node. */
  readonly #held = new Map<string, number>();
  #settings = defaults;
  readonly #gate = new RevisionGate();

  /** Pools change seldom: their addresses are looked for then, and not kept by pool. */
  onPool(name: string, pool: Known<Pool> | null): void {
    const members = [...this.#addresses].flatMap(([address, { value }]) =>
      value.pool === name ? address : [],
    );
    for (const address of members) this.#indexInPool(address, name, -1);
    if (pool === null) this.#views.delete(name);
    else this.#views.set(name, new PoolView(name, pool.value, pool.modified));
    this.#sorted = null;
    for (const address of members) this.#indexInPool(address, name, 1);
  }

  onBlock(cidr: Cidr, block: Known<Block> | null): void {
    const before = this.#blocks.get(cidr);
    if (before !== undefined) {
      this.#blocksByClaim.delete(claimOf(before.value), cidr);
      this.#blocksByPool.delete(before.value.pool, cidr);
    }
    if (block === null) this.#blocks.delete(cidr);
    else {
      this.#blocks.set(cidr, block);
      this.#blocksByClaim.add(claimOf(block.value), cidr);
      this.#blocksByPool.add(block.value.pool, cidr);
      // Counted now, so that nobody waits for it who asks about ten thousand of them.
      this.#views.get(block.value.pool)?.assignableIn(cidr);
    }
  }

  onAddress(address: Address, record: Known<AddressRecord> | null): void {
    const before = this.#addresses.get(address);
    if (before !== undefined) this.#index(address, before.value, -1);
    if (record === null) this.#addresses.delete(address);
    else {
      this.#addresses.set(address, record);
      this.#index(address, record.value, 1);
    }
  }

  onReservation(id: string, reservation: Known<Reservation> | null): void {
    if (reservation === null) this.#reservations.delete(id);
    else this.#reservations.set(id, reservation);
  }

  onNode(node: string, labels: Labels | null): void {
    if (labels === null) this.#nodes.delete(node);
    else this.#nodes.set(node, labels);
  }

  onNodeState(node: string, state: NodeState | null): void {
    if (state === null) this.#nodeStates.delete(node);
    else this.#nodeStates.set(node, state);
  }

  onTenant(tenant: string, record: Tenant | null): void {
    if (record === null) this.#tenants.delete(tenant);
    else this.#tenants.set(tenant, record);
  }

  onTenantUse(tenant: string, use: Known<TenantUse> | null): void {
    if (use === null) this.#uses.delete(tenant);
    else this.#uses.set(tenant, use);
  }

  onSettings(settings: Settings | null): void {
    this.#settings = settings ?? defaults;
  }

  /** Everything up to the revision has arrived, in order. */
  onRevision(revision: Revision): void {
    this.#gate.onRevision(revision);
  }

  get revision(): Revision {
    return this.#gate.revision;
  }

  /** Resolves when everything up to the revision has arrived; whoever waits has a limit of time. */
  reached(revision: Revision): Promise<void> {
    return this.#gate.passed(revision);
  }

  get settings(): Settings {
    return this.#settings;
  }

  /** Pools in the order of their names. */
  views(): readonly PoolView[] {
    this.#sorted ??= [...this.#views.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    return this.#sorted;
  }

  view(name: string): PoolView | undefined {
    return this.#views.get(name);
  }

  pools(): [string, Pool][] {
    return this.views().map(({ name, pool }) => [name, pool]);
  }

  pool(name: string): Pool | undefined {
    return this.#views.get(name)?.pool;
  }

  viewOf(address: Address): PoolView | undefined {
    return this.views().find(({ pool }) => cidrContains(pool.cidr, address));
  }

  block(cidr: Cidr): Known<Block> | undefined {
    return this.#blocks.get(cidr);
  }

  blocks(): ReadonlyMap<Cidr, Known<Block>> {
    return this.#blocks;
  }

  blocksOf(node: string, pool: string): ReadonlySet<Cidr> {
    return this.#blocksByClaim.of(claimOf({ node, pool }));
  }

  blocksInPool(pool: string): ReadonlySet<Cidr> {
    return this.#blocksByPool.of(pool);
  }

  /** The claimed block that the address of the pool lies in. */
  blockAt(pool: Pool, address: Address): Known<Block> | undefined {
    return this.#blocks.get(blockOf(pool, address));
  }

  /** The claim of the block in which the address of a routed pool lies. */
  blockAround(address: Address): Known<Block> | undefined {
    const pool = this.viewOf(address)?.pool;
    return pool?.kind === 'routed' ? this.blockAt(pool, address) : undefined;
  }

  address(address: Address): Known<AddressRecord> | undefined {
    return this.#addresses.get(address);
  }

  addresses(): ReadonlyMap<Address, Known<AddressRecord>> {
    return this.#addresses;
  }

  /** Addresses of the owner, those in cooldown excepted. */
  addressesOf(owner: Owner): ReadonlySet<Address> {
    return this.#addressesByOwner.of(textOf(owner));
  }

  reservation(id: string): Known<Reservation> | undefined {
    return this.#reservations.get(id);
  }

  reservations(): ReadonlyMap<string, Known<Reservation>> {
    return this.#reservations;
  }

  /** Retained addresses that are not kept for ever. */
  expiring(): ReadonlySet<Address> {
    return this.#expiring;
  }

  nodes(): ReadonlyMap<string, Labels> {
    return this.#nodes;
  }

  labelsOf(node: string): Labels {
    return this.#nodes.get(node) ?? {};
  }

  /** Set for a node that is out of use. */
  nodeState(node: string): NodeState | undefined {
    return this.#nodeStates.get(node);
  }

  tenant(tenant: string): Tenant | undefined {
    return this.#tenants.get(tenant);
  }

  tenantUse(tenant: string): Known<TenantUse> | undefined {
    return this.#uses.get(tenant);
  }

  /** Released addresses that are kept back for a while: the node's, or (`''`) those that were on no node. */
  cooling(node: string): ReadonlySet<Address> {
    return this.#coolingByNode.of(node);
  }

  /** Addresses of the pool, or of the block, that it would give out if they had no record. */
  takenIn(poolOrBlock: string): number {
    return this.#taken.get(poolOrBlock) ?? 0;
  }

  /** Addresses of the block that have no record, those in flight included. */
  freeIn(view: PoolView, block: Cidr): number {
    return view.assignableIn(block) - this.takenIn(block);
  }

  /** Has a record or is wanted by a transaction in flight. */
  isTaken(address: Address): boolean {
    return this.#addresses.has(address) || this.#held.has(address);
  }

  /** No address of the block has a record or is wanted (who wants one holds its block too). */
  isEmpty(block: Cidr): boolean {
    return !this.#recorded.has(block) && !this.#held.has(block);
  }

  /** Keeps others of this process from proposing the same address or block until `unhold`. */
  hold(keys: Iterable<string>): void {
    for (const key of keys) this.#held.set(key, this.heldBy(key) + 1);
  }

  unhold(keys: Iterable<string>): void {
    for (const key of keys) {
      const others = this.heldBy(key) - 1;
      if (others > 0) this.#held.set(key, others);
      else this.#held.delete(key);
    }
  }

  isHeld(key: string): boolean {
    return this.#held.has(key);
  }

  /** How many transactions in flight want it. */
  heldBy(key: string): number {
    return this.#held.get(key) ?? 0;
  }

  #index(address: Address, record: AddressRecord, by: 1 | -1): void {
    this.counts.add(record, by);
    const change = by === 1 ? 'add' : 'delete';
    this.#indexInPool(address, record.pool, by);
    if (record.state === 'cooldown') this.#coolingByNode[change](record.node ?? '', address);
    else this.#addressesByOwner[change](textOf(record.owner), address);
    if (record.expiresAt !== null) this.#expiring[change](address);
  }

  #indexInPool(address: Address, poolName: string, by: 1 | -1): void {
    const view = this.#views.get(poolName);
    if (view === undefined) return;
    const block = blockOf(view.pool, address);
    count(this.#recorded, block, by);
    if (!view.isAssignable(address)) return;
    count(this.#taken, poolName, by);
    count(this.#taken, block, by);
  }
}

function count<K>(counts: Map<K, number>, key: K, by: 1 | -1): void {
  const sum = (counts.get(key) ?? 0) + by;
  if (sum === 0) counts.delete(key);
  else counts.set(key, sum);
}

const claimOf = (block: { node: string; pool: string }): string => `${block.node}/${block.pool}`;

export const textOf = (owner: Owner): string => `${owner.tenant}/${owner.app}/${owner.instance}`;
