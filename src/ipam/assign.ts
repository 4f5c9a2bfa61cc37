/**
 * Assignment: the addresses that a new endpoint gets, as one half of the transaction that makes the endpoint.
 *
 * In: the address book, a request. Out: a proposal: addresses, compares and writes; the caller adds the endpoint's own writes,
 * commits, and tells how it went. A lost race (`committed: false`) is answered by proposing anew. Never: an address whose
 * record the transaction does not compare, an address of a pool that is being removed, one family without the other when both were asked for.
 */
import { NetctlError } from '../lib/errors.ts';
import { type Address, families, familyOf } from '../model/ip.ts';
import { ownerPrefix } from '../model/keys.ts';
import { type Mac, macOf } from '../model/mac.ts';
import type { AddressRecord, Owner, Pool, ReleasePolicy } from '../model/records.ts';
import type { Compare, Write } from '../store/store.ts';
import { admitKept, chargeTenant, poolsFor } from './access.ts';
import { type AddressBook, type Known, textOf } from './address-book.ts';
import { Draft } from './draft.ts';
import { heldForOwner, heldForReservation, takeable } from './kept.ts';
import { enterPlace, holdsOf, type Place, Places, type Wish } from './places.ts';
import type { PoolView } from './pool-view.ts';

export interface AssignRequest {
  readonly node: string;
  readonly endpoint: string;
  readonly container?: string | null;
  readonly owner: Owner;
  /** Default: routed. */
  readonly kind?: Pool['kind'];
  /** Pool names in order of preference; empty means any enabled pool of the kind. */
  readonly pools: readonly string[];
  /** Exactly these, or empty for one of each family that has a pool. */
  readonly addresses: readonly Address[];
  /** Take what this reservation holds, and nothing else. */
  readonly reservation?: string | null;
  /** What becomes of the addresses when the endpoint goes; those that were reserved or retained keep what they have. */
  readonly onRelease?: ReleasePolicy;
  readonly ttlSeconds?: number | null;
  /** Not these: another machine answered for them a moment ago. */
  readonly skip?: readonly Address[];
  /** null: the one that goes with the first address, or that was kept with it. */
  readonly mac: Mac | null;
  readonly now: Date;
}

export interface Proposal {
  readonly addresses: readonly Address[];
  readonly mac: Mac;
  /** Of each address, in their order: what a release or an unbind has to name. */
  readonly generations: readonly number[];
  readonly compares: readonly Compare[];
  readonly writes: readonly Write[];
  /** Must be called once when the transaction's outcome is known (or it was given up). */
  settle(): void;
}

/** `before`: the record that a reserved or retained address has. */
interface Choice {
  readonly place: Place;
  readonly before: Known<AddressRecord> | undefined;
}

export class Assigner {
  readonly #book: AddressBook;
  readonly #places: Places;

  /** @param self the node of this process @param random as Math.random */
  constructor(book: AddressBook, self: string, random?: () => number) {
    this.#book = book;
    this.#places = new Places(book, self, random);
  }

  /**
   * What the owner has reserved or kept comes first, with its MAC, wherever it was used before; the rest is new.
   * @throws POOL_NOT_FOUND, POOL_EXHAUSTED, ADDRESS_IN_USE and what `Places.explicit` throws, ADDRESS_QUARANTINED, AFFINITY_MISMATCH, NODE_LIMIT, QUOTA_EXCEEDED,
   *   RESERVATION_EXPIRED, each naming what was asked for
   */
  propose(request: AssignRequest): Proposal {
    const wish = wishOf(request);
    const choices: Choice[] = [];
    const held: string[] = [];
    const settle = (): void => this.#book.unhold(held);
    try {
      for (const choose of this.#choosers(request, wish)) {
        const choice = choose();
        choices.push(choice);
        const holds = holdsOf(choice.place, request.node);
        this.#book.hold(holds);
        held.push(...holds);
      }
      return { ...this.#transaction(request, choices), settle };
    } catch (error) {
      settle();
      throw error;
    }
  }

  #choosers(request: AssignRequest, wish: Wish): (() => Choice)[] {
    if (request.reservation) {
      const kept = heldForReservation(this.#book, request.reservation, request);
      return families
        .filter((family) => kept.some((address) => familyOf(address) === family))
        .map((family) => () => this.#kept(request, this.#firstFree(request, kept, family)));
    }
    if (request.addresses.length > 0)
      return request.addresses.map((address) => () => this.#explicit(request, wish, address));
    const kept = heldForOwner(this.#book, request).filter((address) => this.#isWanted(request, address));
    const views = this.#viewsFor(wish, kept);
    return families
      .map((family) => ({
        kept: kept.filter((address) => familyOf(address) === family),
        views: views.filter((view) => view.family === family),
      }))
      .filter((candidates) => candidates.kept.length + candidates.views.length > 0)
      .map((candidates) => () => this.#automatic(request, wish, candidates.kept, candidates.views));
  }

  /** What the owner keeps of other kinds or other pools is for other endpoints of its. */
  #isWanted(request: AssignRequest, address: Address): boolean {
    const { pool } = this.#book.address(address)!.value;
    if (request.pools.length > 0 && !request.pools.includes(pool)) return false;
    return this.#book.pool(pool)?.kind === (request.kind ?? 'routed');
  }

  /** Who has kept addresses needs no pool that gives new ones. */
  #viewsFor(wish: Wish, kept: readonly Address[]): readonly PoolView[] {
    try {
      return poolsFor(this.#book, wish);
    } catch (error) {
      if (kept.length > 0) return [];
      throw error;
    }
  }

  #automatic(
    request: AssignRequest,
    wish: Wish,
    kept: readonly Address[],
    views: readonly PoolView[],
  ): Choice {
    for (const address of kept) {
      const record = this.#book.address(address)!.value;
      if (this.#book.isHeld(address)) continue;
      if (takeable(record)) return this.#kept(request, address);
      throw new NetctlError(
        'ADDRESS_IN_USE',
        `address ${address} of ${textOf(request.owner)} is still in use on node ${record.node}: unbind or transfer it first`,
        { address, node: record.node },
      );
    }
    // Another one beside it would be the owner's for ever, too.
    const [held] = kept;
    if (held !== undefined)
      throw new NetctlError(
        'ADDRESS_UNAVAILABLE',
        `address ${held} of ${textOf(request.owner)} is being given to another endpoint right now`,
        { address: held },
      );
    return { place: this.#places.automatic(wish, views), before: undefined };
  }

  #explicit(request: AssignRequest, wish: Wish, address: Address): Choice {
    const record = this.#book.address(address)?.value;
    const isOwn = record !== undefined && takeable(record) && isSame(record.owner, request.owner);
    if (isOwn && !this.#book.isHeld(address)) {
      if (request.pools.length === 0 || request.pools.includes(record.pool))
        return this.#kept(request, address);
    }
    return { place: this.#places.explicit(wish, address), before: undefined };
  }

  #firstFree(request: AssignRequest, kept: readonly Address[], family: 4 | 6): Address {
    const free = kept.find((address) => familyOf(address) === family && !this.#book.isHeld(address));
    if (free !== undefined) return free;
    throw new NetctlError(
      'RESERVATION_EXPIRED',
      `reservation ${request.reservation} has no IPv${family} address left`,
      { reservation: request.reservation },
    );
  }

  #kept(request: AssignRequest, address: Address): Choice {
    const before = this.#book.address(address)!;
    const view = this.#book.view(before.value.pool);
    if (view === undefined)
      throw new NetctlError('POOL_NOT_FOUND', `there is no pool ${before.value.pool} of address ${address}`);
    admitKept(this.#book, view, before.value, request.node);
    return { place: this.#places.existing(view, address, request.node, request.now), before };
  }

  /** The owner has no other addresses than the book shows. */
  #nothingElseOf(owner: Owner): Compare {
    const known = [...this.#book.addressesOf(owner)].map((address) => this.#book.address(address)!.modified);
    return {
      kind: 'unwritten',
      key: ownerPrefix(owner),
      revision: Math.max(this.#book.revision, ...known),
    };
  }

  #transaction(request: AssignRequest, choices: readonly Choice[]): Omit<Proposal, 'settle'> {
    const [primary] = choices;
    if (primary === undefined)
      throw new NetctlError('POOL_NOT_FOUND', 'no pool has addresses for this endpoint');
    const draft = new Draft();
    const mac = request.mac ?? primary.before?.value.mac ?? macOf(primary.place.address);
    const generations: number[] = [];
    for (const { place, before } of choices) {
      enterPlace(draft, place);
      const record = recordOf(request, place, before?.value, mac);
      generations.push(record.generation);
      draft.setAddress(place.address, before, record);
    }
    const fresh = choices.filter(({ before }) => before === undefined).length;
    chargeTenant(this.#book, draft, request.owner.tenant, fresh);
    // Of two that begin at the same moment one is first: the other finds its address in use, instead of getting another that is kept, too.
    if (fresh > 0 && wishOf(request).shared) draft.compare(this.#nothingElseOf(request.owner));
    return { addresses: choices.map(({ place }) => place.address), mac, generations, ...draft.step() };
  }
}

function wishOf(request: AssignRequest): Wish {
  return {
    node: request.node,
    tenant: request.owner.tenant,
    kind: request.kind ?? 'routed',
    pools: request.pools,
    shared: (request.onRelease ?? 'delete') !== 'delete',
    ranges: [],
    skip: new Set(request.skip),
    now: request.now,
  };
}

function recordOf(
  request: AssignRequest,
  place: Place,
  kept: AddressRecord | undefined,
  mac: Mac,
): AddressRecord {
  return {
    pool: place.view.name,
    state: 'active',
    owner: kept?.owner ?? request.owner,
    node: request.node,
    endpoint: request.endpoint,
    container: request.container ?? null,
    mac,
    onRelease: kept?.onRelease ?? request.onRelease ?? 'delete',
    ttlSeconds: kept === undefined ? (request.ttlSeconds ?? null) : kept.ttlSeconds,
    generation: (kept?.generation ?? 0) + 1,
    allocatedAt: kept?.allocatedAt ?? request.now.toISOString(),
    cooldownUntil: null,
    reservation: kept?.reservation ?? null,
    expiresAt: null,
    borrowed: place.borrowed,
    conflict: null,
  };
}

const isSame = (a: Owner, b: Owner): boolean =>
  a.tenant === b.tenant && a.app === b.app && a.instance === b.instance;
