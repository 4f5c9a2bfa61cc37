/**
 * The verbs of the IPAM as calls: each plans on the book, commits, and answers what was committed.
 *
 * In: checked requests of the API and of the attach path. Out: results. Never: a write whose outcome is unknown repeated
 * (STORE_UNAVAILABLE goes to the caller; repeating reserve by id, bind, activate, unbind and quarantine is safe).
 */
import type { Clock } from '../lib/clock.ts';
import { NetctlError } from '../lib/errors.ts';
import { KeyedQueue } from '../lib/keyed-queue.ts';
import type { Address, Cidr } from '../model/ip.ts';
import type { Mac } from '../model/mac.ts';
import type { AddressRecord, Owner, Reservation } from '../model/records.ts';
import type { Revision, Store } from '../store/store.ts';
import type { AddressBook } from './address-book.ts';
import { Assigner } from './assign.ts';
import { type BindRequest, planActivate, planBind } from './bind.ts';
import { type ClaimRequest, planClaim, planGiveBack, planGiveBackBlock } from './claim.ts';
import { commit, type Plan, type Planned, type Sink } from './commit.ts';
import { Deadlines } from './deadlines.ts';
import type { Step } from './draft.ts';
import { planExpiry } from './expiry.ts';
import type { Fence } from './fenced.ts';
import { Places } from './places.ts';
import { type ConflictReport, planQuarantine } from './quarantine.ts';
import {
  type Outcome,
  planReleaseAddress,
  planReleaseOwner,
  planUnbind,
  type ReleaseRequest,
  type UnbindRequest,
} from './release.ts';
import { type Holdings, holdingsOf, planRemoveNode } from './remove-node.ts';
import {
  planCancel,
  planCommit,
  planExtend,
  planReserve,
  type Reserved,
  type ReserveRequest,
} from './reserve.ts';
import { planTransfer, type TransferRequest } from './transfer.ts';

export interface IpamParts {
  readonly store: Store;
  readonly picture: Sink;
  readonly book: AddressBook;
  /** That of this process. */
  readonly node: string;
  readonly clock: Pick<Clock, 'now' | 'monotonic'>;
  /** As Math.random. */
  readonly random?: () => number;
}

/** `now` is the caller's no more. */
type Asked<T> = Omit<T, 'now'>;

export class Ipam {
  readonly #parts: IpamParts;
  readonly assigner: Assigner;
  readonly #places: Places;
  readonly #deadlines: Deadlines;
  readonly #byTenant = new KeyedQueue();

  constructor(parts: IpamParts) {
    const { book, node, random, clock } = parts;
    this.#parts = parts;
    this.assigner = new Assigner(book, node, random);
    this.#places = new Places(book, node, random);
    this.#deadlines = new Deadlines(clock);
  }

  get book(): AddressBook {
    return this.#parts.book;
  }

  /** True when the machine's clock was set while this process ran: what ends by itself ends later now. */
  get clockJumped(): boolean {
    return this.#deadlines.jumped;
  }

  /**
   * Commits a plan of the caller's own (an attach adds its endpoint to it). Requests of a tenant with a quota wait for each other
   * here, since they would lose against each other in the store. @throws CONFLICT, STORE_UNAVAILABLE, whatever `plan` throws
   */
  commit(plan: () => Plan, tenant: string | null = null): Promise<Revision> {
    const { store, picture, book } = this.#parts;
    const run = (): Promise<Revision> => commit(store, picture, plan);
    const hasQuota = tenant !== null && (book.tenant(tenant)?.maxAddresses ?? null) !== null;
    return hasQuota ? this.#byTenant.run(tenant, run) : run();
  }

  reserve(request: Asked<ReserveRequest>): Promise<Reserved> {
    return this.#run((now) => planReserve(this.book, this.#places, { ...request, now }), request.tenant);
  }

  extend(request: { id: string; tenant: string | null; ttlSeconds: number }): Promise<Reservation> {
    return this.#run((now) => planExtend(this.book, { ...request, now }));
  }

  commitTo(request: {
    id: string;
    tenant: string | null;
    node: string;
    ttlSeconds?: number;
  }): Promise<Reservation> {
    return this.#run((now) => planCommit(this.book, { ...request, now }));
  }

  /** Answers what is free now. */
  cancel(request: { id: string; tenant: string | null }): Promise<readonly Address[]> {
    return this.#run(() => planCancel(this.book, request));
  }

  bind(request: Asked<BindRequest>): Promise<{ generation: number; mac: Mac | null }> {
    return this.#run((now) => planBind(this.book, this.#places, { ...request, now }));
  }

  activate(request: Fence & { mac: Mac | null }): Promise<{ generation: number }> {
    return this.#run(() => planActivate(this.book, request));
  }

  unbind(request: Asked<UnbindRequest>): Promise<Outcome | 'unknown'> {
    return this.#run((now) => planUnbind(this.book, { ...request, now }));
  }

  transfer(
    request: Omit<TransferRequest, 'now' | 'self'>,
  ): Promise<{ generation: number; was: AddressRecord }> {
    return this.#run(
      (now) => planTransfer(this.book, { ...request, self: this.#parts.node, now }),
      request.toOwner?.tenant ?? null,
    );
  }

  /** The caller logs a `forced` one with the actor. */
  release(
    request: Asked<ReleaseRequest>,
  ): Promise<{ outcome: Outcome; forced: boolean; was: AddressRecord | null }> {
    return this.#run((now) => planReleaseAddress(this.book, { ...request, now }));
  }

  releaseOwner(request: {
    owner: Owner;
    force: boolean;
  }): Promise<{ freed: readonly Address[]; later: readonly Address[]; kept: readonly Address[] }> {
    return this.#run((now) => planReleaseOwner(this.book, { ...request, now }));
  }

  claim(request: Asked<ClaimRequest>): Promise<Cidr> {
    return this.#run((now) => planClaim(this.book, { ...request, now }));
  }

  /** `closing`: it will be gone when the periodic work has seen that nobody took an address of it meanwhile. */
  giveBack(request: { block: Cidr; node: string }): Promise<'gone' | 'closing'> {
    return this.#run(() => planGiveBackBlock(this.book, request));
  }

  /** What the node has, for a question before `removeNode`. */
  holdings(node: string): Holdings {
    return holdingsOf(this.book, node);
  }

  /** Takes everything from a node that will not come back. Repeating it is safe. */
  async removeNode(node: string): Promise<void> {
    await this.#drain((now) => planRemoveNode(this.book, node, now), Number.POSITIVE_INFINITY);
  }

  quarantine(report: ConflictReport): Promise<AddressRecord> {
    return this.#run(() => planQuarantine(this.book, report));
  }

  /** Ends what is over, then gives back blocks of this node that are empty: the periodic work, a bounded part of it each time. */
  async expire(): Promise<void> {
    const { node } = this.#parts;
    await this.#drain((now) => planExpiry(this.book, node, this.#deadlines, now));
    await this.#drain(() => planGiveBack(this.book, node));
  }

  async #drain(plan: (now: Date) => Step | null, most = mostSteps): Promise<void> {
    for (let steps = 0; steps < most; steps++) {
      const revision = await this.commit(() => plan(this.#now()) ?? { compares: [], writes: [] });
      if (revision === 0) return;
    }
  }

  async #run<T>(plan: (now: Date) => Planned<T>, tenant: string | null = null): Promise<T> {
    let planned: Planned<T> | undefined;
    await this.commit(() => {
      planned = plan(this.#now());
      return planned;
    }, tenant);
    if (planned === undefined) throw new NetctlError('BUG', 'a plan was committed but not made');
    return planned.result;
  }

  #now(): Date {
    return new Date(this.#parts.clock.now());
  }
}

const mostSteps = 100;
