/**
 * The picture of the store in memory, and the place where a change becomes work: each record goes, checked, to the parts that
 * use its kind. Movement 2 of DESIGN.md begins here.
 *
 *   store ──watch──► Syncer ──► Picture ──┬─ pools, blocks, addresses ─► AddressBook   (what an assignment is planned on)
 *              ADD, DEL (their own echo) ─┘├─ endpoints of this node ──► EndpointTable
 *                                          ├─ endpoints, profiles, ────► PolicyEngine ──► PolicyDataplane ──► kernel
 *                                          │  policies, address sets,
 *                                          │  pools, host endpoints
 *                                          ├─ blocks of this node ─────► block routes ──► kernel
 *                                          └─ nodes, peers, filters, ──► Bgp ──► BIRD
 *                                             pools, settings
 *
 * In: keys with entries, in any order, repeated, stale. Out: calls into those parts. Never: a broken record that stops others (it
 * counts as absent or, where policy uses it, denies; it is logged and shown in the status), a decision, a record that is what it was before
 * this agent changed it because the watch tells of that only now.
 */
import type { z } from 'zod';
import type { AddressBook, Known } from '../ipam/address-book.ts';
import type { Logger } from '../lib/logger.ts';
import { addressSetFromJson } from '../model/address-set.ts';
import { bgpFilterSchema, bgpPeerSchema } from '../model/bgp.ts';
import { hostEndpointFromJson, salvageHostEndpoint } from '../model/host-endpoint.ts';
import { type Address, type Cidr, type Family, familyOf } from '../model/ip.ts';
import { type Key, keyPrefix, parseKey } from '../model/keys.ts';
import { type BrokenPolicy, type Policy, policyFromJson, salvagePolicy } from '../model/policy.ts';
import { portReservationSchema, portSchema } from '../model/port-records.ts';
import { parseProfileRecord, salvageProfile } from '../model/profile.ts';
import {
  addressSchema,
  blockSchema,
  type Endpoint,
  endpointSchema,
  nodeSchema,
  nodeStateSchema,
  poolSchema,
  reservationSchema,
  settingsSchema,
  tenantSchema,
  tenantUseSchema,
} from '../model/records.ts';
import type { PolicyEngine } from '../policy/engine.ts';
import type { Json, Revision, Write } from '../store/store.ts';
import type { BgpRecords } from './bgp.ts';
import type { EndpointTable } from './endpoint-table.ts';

/** What the picture needs of an entry; an entry of the store is one. */
export interface Change {
  readonly key: string;
  readonly entry: { readonly value: Json; readonly modified: Revision } | null;
}
type Entry = NonNullable<Change['entry']>;

export interface PictureParts {
  readonly node: string;
  readonly book: AddressBook;
  readonly endpoints: EndpointTable;
  readonly engine: PolicyEngine;
  /** null: nobody asks about BGP. */
  readonly bgp: BgpRecords | null;
  readonly logger: Logger;
  /** A pool of the family exists. */
  onFamily(family: Family): void;
  /** An endpoint of this node came, went or changed; null where there was or is none. */
  onOwnEndpoint(id: string, before: Endpoint | null, now: Endpoint | null): void;
  /** An endpoint of this node has the address, and its record says so no longer. */
  onAddressMoved(address: Address, id: string): void;
  /** This node has, or has no longer, the block. */
  onOwnBlock(block: Cidr, present: boolean): void;
}

export class Picture {
  readonly #parts: PictureParts;
  readonly #broken = new Map<string, string>();
  readonly #profiles = new Set<string>();
  /** Keys that are here as of a revision that the watch has not told of, about in the order of these revisions. */
  readonly #ahead = new Map<string, Revision>();
  /** What the watch has told of. */
  #told: Revision = 0;
  #trusts = false;

  constructor(parts: PictureParts) {
    this.#parts = parts;
  }

  /** Records that could not be read: key and reason. */
  broken(): ReadonlyMap<string, string> {
    return this.#broken;
  }

  hasProfile(name: string): boolean {
    return this.#profiles.has(name);
  }

  /**
   * What the watch tells: one transaction, or the differences to a snapshot. What was put here meanwhile by who made or read it is not older.
   * @param revision the store's, with these changes
   */
  apply(changes: readonly Change[], revision: Revision): void {
    // The store was put back from a copy: it is right all the same.
    if (revision < this.#told) this.#ahead.clear();
    this.#told = revision;
    const isNews = ({ key }: Change): boolean => (this.#ahead.get(key) ?? -1) < revision;
    this.#applyAll(this.#ahead.size === 0 ? changes : changes.filter(isNews));
    for (const [key, ahead] of this.#ahead) {
      if (ahead > revision) break;
      this.#ahead.delete(key);
    }
  }

  /** Records that this agent has just made: they are typed already. @param revision that made them */
  made(writes: readonly Write[], revision: Revision): void {
    if (revision <= this.#told) return;
    for (const { key } of writes) this.#expect(key, revision);
    const entryOf = (write: Write): Entry | null =>
      write.kind === 'put' ? { value: write.value, modified: revision } : null;
    this.#applyAll(
      writes.map((write) => ({ key: write.key, entry: entryOf(write) })),
      true,
    );
  }

  /** A record as the store has it now; of one that is gone nobody knows the revision. */
  read(key: string, entry: Entry | null): void {
    if (entry !== null) {
      if (entry.modified <= this.#told) return;
      this.#expect(key, entry.modified);
    }
    this.#applyAll([{ key, entry }]);
  }

  #expect(key: string, revision: Revision): void {
    this.#ahead.delete(key);
    this.#ahead.set(key, revision);
  }

  #applyAll(changes: readonly Change[], areTyped = false): void {
    this.#trusts = areTyped;
    // Pools first: what follows is indexed by them.
    for (const change of changes) if (change.key.startsWith('pools/')) this.#applyOne(change);
    for (const change of changes) if (!change.key.startsWith('pools/')) this.#applyOne(change);
  }

  #applyOne({ key: path, entry }: Change): void {
    // For who lists them in the store.
    if (path.startsWith(keyPrefix.owner)) return;
    const key = parseKey(path);
    if (key === null || (entry !== null && this.#isKnown(key, entry.modified))) return;
    const { book, engine, bgp } = this.#parts;
    switch (key.kind) {
      case 'pool': {
        const pool = this.#read(path, entry, poolSchema);
        book.onPool(key.pool, pool);
        engine.onPool(key.pool, pool?.value ?? null);
        bgp?.onPool(key.pool, pool?.value ?? null);
        if (pool !== null) this.#parts.onFamily(familyOf(pool.value.cidr));
        return;
      }
      case 'block': {
        const block = this.#read(path, entry, blockSchema);
        const wasOurs = book.block(key.cidr)?.value.node === this.#parts.node;
        book.onBlock(key.cidr, block);
        const isOurs = block?.value.node === this.#parts.node;
        if (wasOurs !== isOurs) this.#parts.onOwnBlock(key.cidr, isOurs);
        return;
      }
      case 'address': {
        book.onAddress(key.address, this.#read(path, entry, addressSchema));
        const user = this.#parts.endpoints.userOf(key.address);
        if (user !== undefined && book.address(key.address)?.value.endpoint !== user)
          this.#parts.onAddressMoved(key.address, user);
        return;
      }
      case 'endpoint': {
        const known = this.#read(path, entry, endpointSchema);
        // A container of this host is not torn down because somebody wrote a record that this version cannot read.
        const isOurs = entry !== null && key.node === this.#parts.node;
        const before = isOurs ? this.#parts.endpoints.get(key.endpoint) : undefined;
        const kept = before === undefined ? null : { value: before.value, modified: entry!.modified };
        this.#endpoint(key, known ?? kept);
        return;
      }
      case 'profile':
        // A broken profile exists all the same: it denies, and is not made anew.
        if (entry === null) this.#profiles.delete(key.profile);
        else this.#profiles.add(key.profile);
        engine.onProfile(key.profile, this.#parse(path, entry, parseProfileRecord, salvageProfile));
        return;
      case 'policy':
        engine.onPolicy(
          key.policy,
          this.#parse<Policy | BrokenPolicy>(path, entry, policyFromJson, salvagePolicy),
        );
        return;
      case 'address-set':
        engine.onAddressSet(key.set, this.#parse(path, entry, addressSetFromJson));
        return;
      case 'host-endpoint': {
        const host = this.#parse(path, entry, hostEndpointFromJson, salvageHostEndpoint);
        if (key.node === this.#parts.node) engine.onHostEndpoint(key.name, host);
        return;
      }
      case 'node': {
        const node = this.#read(path, entry, nodeSchema)?.value ?? null;
        book.onNode(key.node, node?.labels ?? null);
        bgp?.onNode(key.node, node);
        return;
      }
      case 'node-state':
        book.onNodeState(key.node, this.#read(path, entry, nodeStateSchema)?.value ?? null);
        return;
      case 'reservation':
        book.onReservation(key.reservation, this.#read(path, entry, reservationSchema));
        return;
      case 'port':
        book.ports.onPort(key.node, key.port, this.#read(path, entry, portSchema));
        return;
      case 'port-reservation':
        book.ports.onReservation(key.node, key.reservation, this.#read(path, entry, portReservationSchema));
        return;
      case 'tenant':
        book.onTenant(key.tenant, this.#read(path, entry, tenantSchema)?.value ?? null);
        return;
      case 'tenant-use':
        book.onTenantUse(key.tenant, this.#read(path, entry, tenantUseSchema));
        return;
      case 'bgp-peer':
        bgp?.onPeer(key.peer, this.#read(path, entry, bgpPeerSchema)?.value ?? null);
        return;
      case 'bgp-filter': {
        const filter = this.#read(path, entry, bgpFilterSchema)?.value ?? null;
        // Sessions that use a broken one pass nothing.
        bgp?.onFilter(key.filter, filter ?? (entry === null ? null : 'broken'));
        return;
      }
      case 'settings': {
        const settings = this.#read(path, entry, settingsSchema)?.value ?? null;
        book.onSettings(settings);
        bgp?.onSettings(settings?.bgp ?? null);
        return;
      }
      case 'owner':
      case 'status':
      case 'connection-flush':
        return;
    }
  }

  /** Told once more, by a new snapshot or a second reader. */
  #isKnown(key: Key, modified: Revision): boolean {
    if (key.kind === 'address') return this.#parts.book.address(key.address)?.modified === modified;
    return (
      key.kind === 'endpoint' &&
      key.node === this.#parts.node &&
      this.#parts.endpoints.get(key.endpoint)?.modified === modified
    );
  }

  #endpoint(key: Key & { kind: 'endpoint' }, known: Known<Endpoint> | null): void {
    const local = key.node === this.#parts.node;
    const before = local ? this.#parts.endpoints.get(key.endpoint)?.value : undefined;
    if (local) this.#parts.endpoints.set(key.endpoint, known);
    this.#parts.book.ports.onEndpoint(key.node, key.endpoint, known?.value ?? null);
    const policy = known === null ? null : { local, ...known.value };
    this.#parts.engine.onEndpoint(`${key.node}/${key.endpoint}`, policy);
    if (local && before !== known?.value)
      this.#parts.onOwnEndpoint(key.endpoint, before ?? null, known?.value ?? null);
  }

  /** By a parser of the model that throws. @param salvage what is left of a record that it refused */
  #parse<T>(
    path: string,
    entry: Entry | null,
    parse: (json: Json) => T,
    salvage: (json: Json, reason: string) => T | null = () => null,
  ): T | null {
    if (entry === null) return this.#forget(path);
    try {
      const value = parse(entry.value);
      this.#broken.delete(path);
      return value;
    } catch (error) {
      const reason = (error as Error).message;
      this.#reject(path, reason);
      return salvage(entry.value, reason);
    }
  }

  #read<T>(path: string, entry: Entry | null, schema: z.ZodType<T>): Known<T> | null {
    if (entry === null) return this.#forget(path);
    if (this.#trusts) return { value: entry.value as T, modified: entry.modified };
    const parsed = schema.safeParse(entry.value);
    if (parsed.success) {
      this.#broken.delete(path);
      return { value: parsed.data, modified: entry.modified };
    }
    const issue = parsed.error.issues[0];
    return this.#reject(path, `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not valid'}`);
  }

  #forget(path: string): null {
    this.#broken.delete(path);
    return null;
  }

  #reject(path: string, reason: string): null {
    this.#broken.set(path, reason);
    this.#parts.logger.error(
      { key: path, reason },
      'record in the store is broken: it counts as absent or denies',
    );
    return null;
  }
}
