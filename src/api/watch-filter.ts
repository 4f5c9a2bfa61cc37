/**
 * Which changes a watcher is told of, and in which words.
 *
 * In: change sets of the store, the filters of a request. Out: events with the record as it stands; for what is gone, its name. Never:
 * to a tenant anything but its own addresses and reservations, not even that another's went.
 */

import { asNetctlError } from '../lib/errors.ts';
import { type Key, type KeyKind, keyPrefix, parseKey } from '../model/keys.ts';
import { ownerSchema } from '../model/records.ts';
import type { Change, ChangeSet, Json, Revision, Store, Watch } from '../store/store.ts';

/** What can be watched, by the word that a request uses. */
export const watchedKinds = [
  'address',
  'reservation',
  'port-reservation',
  'endpoint',
  'block',
  'pool',
  'node',
  'tenant',
  'profile',
  'policy',
  'address-set',
  'host-endpoint',
] as const satisfies readonly KeyKind[];
export type WatchedKind = (typeof watchedKinds)[number];

export interface WatchedEvent {
  readonly revision: Revision;
  readonly type: 'put' | 'delete';
  readonly kind: WatchedKind;
  /** Address, id, prefix or name; `NODE/ID` for an endpoint. */
  readonly name: string;
  /** The record; null when it is gone. */
  readonly object: Json;
}

export interface WatchWish {
  readonly kinds: readonly WatchedKind[] | null;
  readonly tenant: string | null;
  readonly node: string | null;
}

export class WatchFilter {
  readonly #wish: WatchWish;
  readonly #tenants: ReservationTenants;

  constructor(wish: WatchWish, tenants: ReservationTenants) {
    this.#wish = wish;
    this.#tenants = tenants;
  }

  /** null when it is not known whether a change is for this watcher. */
  eventsOf({ revision, changes }: ChangeSet): WatchedEvent[] | null {
    const events: WatchedEvent[] = [];
    for (const change of changes) {
      const key = parseKey(change.key);
      if (key === null) continue;
      const kind = watchedKinds.find((one) => one === key.kind);
      if (kind === undefined || (this.#wish.kinds !== null && !this.#wish.kinds.includes(kind))) continue;
      const object = change.entry?.value ?? null;
      const type = this.#typeOf(key, object, changes);
      if (type === 'unknown') return null;
      if (type === null) continue;
      const name = change.key.slice(keyPrefix[key.kind].length);
      const shown = kind === 'block' ? name.replace('-', '/') : name;
      events.push({ revision, type, kind, name: shown, object: type === 'put' ? object : null });
    }
    return events;
  }

  #typeOf(key: Key, object: Json, changes: readonly Change[]): WatchedEvent['type'] | 'unknown' | null {
    const { tenant, node } = this.#wish;
    if (node !== null && !concernsNode(key, object, node)) return null;
    if (tenant === null) return object === null ? 'delete' : 'put';
    if (key.kind === 'address') {
      if (object !== null && field(object, 'state') !== 'cooldown' && tenantOf(object) === tenant)
        return 'put';
      // The index of owners is written with the record: its entry goes when the address is the tenant's no more.
      const index = `${keyPrefix.owner}${tenant}/`;
      const isLost = changes.some(
        (change) =>
          change.entry === null && change.key.startsWith(index) && change.key.endsWith(`/${key.address}`),
      );
      return isLost ? 'delete' : null;
    }
    if (key.kind !== 'reservation') return null;
    if (object !== null) return field(object, 'tenant') === tenant ? 'put' : null;
    const whose = this.#tenants.of(key.reservation);
    if (whose === undefined) return 'unknown';
    return whose === tenant ? 'delete' : null;
  }
}

/** Of a record that is gone only its key is known; who does not know the name passes over it. */
function concernsNode(key: Key, object: Json, node: string): boolean {
  if ('node' in key) return key.node === node;
  return object === null || field(object, 'node') === node;
}

function tenantOf(object: Json): string | undefined {
  const owner = ownerSchema.safeParse(field(object, 'owner'));
  return owner.success ? owner.data.tenant : undefined;
}

function field(object: Json, name: string): Json | undefined {
  return typeof object === 'object' && object !== null && !Array.isArray(object)
    ? (object as Readonly<Record<string, Json>>)[name]
    : undefined;
}

const mostRemembered = 20_000;

/** Whose a reservation was that is gone: nothing in its key says it. */
export class ReservationTenants {
  readonly #store: Store;
  readonly #tenants = new Map<string, string>();
  #watch: Watch | null = null;
  #ready: Promise<void> | null = null;

  constructor(store: Store) {
    this.#store = store;
  }

  /** Reads and follows the reservations, from the first watcher on. */
  async ready(): Promise<this> {
    this.#ready ??= this.#read();
    await this.#ready;
    return this;
  }

  of(reservation: string): string | undefined {
    return this.#tenants.get(reservation);
  }

  close(): void {
    this.#watch?.close();
  }

  async #read(): Promise<void> {
    try {
      const { entries, revision } = await this.#store.list(keyPrefix.reservation);
      for (const { key, value } of entries) this.#note(key, value);
      this.#watch = this.#store.watch(keyPrefix.reservation, revision, {
        onChanges: ({ changes }) => {
          for (const { key, entry } of changes) if (entry !== null) this.#note(key, entry.value);
        },
        onEnd: () => {
          this.#ready = null;
        },
      });
    } catch (error) {
      this.#ready = null;
      throw asNetctlError(error);
    }
  }

  /** The oldest are forgotten: who asks for them has to list anew. */
  #note(key: string, value: Json): void {
    const tenant = field(value, 'tenant');
    if (typeof tenant !== 'string') return;
    const id = key.slice(keyPrefix.reservation.length);
    this.#tenants.delete(id);
    this.#tenants.set(id, tenant);
    if (this.#tenants.size > mostRemembered) this.#tenants.delete(this.#tenants.keys().next().value ?? '');
  }
}
