/**
 * The verbs of the IPAM as calls: each plans on the book, commits, and answers what was committed.
 *
 * In: checked requests of the API and of the attach path. Out: results. Never: a write whose outcome is unknown repeated
 * (STORE_UNAVAILABLE goes to the caller; repeating reserve by id, bind, activate, unbind and quarantine is safe).
 */
import type { Clock } from '../lib/clock.ts';
import { asNetctlError, NetctlError } from '../lib/errors.ts';
import { KeyedQueue } from '../lib/keyed-queue.ts';
import type { Cidr } from '../model/ip.ts';
import type { NodePorts, PortReservation } from '../model/port-records.ts';
import type { AddressRecord, NodeState, Owner } from '../model/records.ts';
import type { Manner, Revision, Store } from '../store/store.ts';
import type { AddressBook } from './address-book.ts';
import { Assigner } from './assign.ts';
import { type BatchItem, planAtomically, planChunk } from './batch.ts';
import { type ClaimRequest, planClaim, planGiveBack, planGiveBackBlock } from './claim.ts';
import { Claims } from './claims.ts';
import { commit, type Plan, type Planned, type Sink } from './commit.ts';
import { Deadlines } from './deadlines.ts';
import type { Step } from './draft.ts';
import { expiries } from './expiry.ts';
import { type Affected, affectedBy, planNodeState, planShareBlocks } from './fence-node.ts';
import { type Imported, type ImportRequest, planImport } from './import.ts';
import { learnKept } from './learn.ts';
import {
  type Asked,
  chargedTenant,
  type Operation,
  type OperationOf,
  type PlanContext,
  planOperation,
  type RequestOf,
  type ResultOf,
  type Verb,
} from './operations.ts';
import { Places } from './places.ts';
import {
  type PortReservationCall,
  planExtendPorts,
  planReleasePorts,
  planReservePorts,
  type ReservePortsRequest,
} from './ports.ts';
import { type ConflictReport, planQuarantine } from './quarantine.ts';

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

export class Ipam {
  readonly #parts: IpamParts;
  readonly assigner: Assigner;
  readonly #context: PlanContext;
  readonly #deadlines: Deadlines;
  readonly #byTenant = new KeyedQueue();
  readonly #claims = new Claims();
  #lostRaces = 0;

  constructor(parts: IpamParts) {
    const { book, node, random, clock } = parts;
    this.#parts = parts;
    this.assigner = new Assigner(book, node, random);
    this.#context = { book, places: new Places(book, node, random), self: node };
    this.#deadlines = new Deadlines(clock);
  }

  /** Of this process. */
  get node(): string {
    return this.#parts.node;
  }

  get book(): AddressBook {
    return this.#parts.book;
  }

  /** True when the machine's clock was set while this process ran: what ends by itself ends later now. */
  get clockJumped(): boolean {
    return this.#deadlines.jumped;
  }

  /** By which it is judged what is late: not ahead because somebody set the clock. */
  steadyNow(): Date {
    return this.#deadlines.steady();
  }

  /** Transactions of this process that were planned anew because another was quicker. */
  get lostRaces(): number {
    return this.#lostRaces;
  }

  /**
   * Commits a plan of the caller's own (an attach adds its endpoint to it). Requests of a tenant with a quota wait for each other
   * here, since they would lose against each other in the store. @param manner `soon`: `flushed` is to be awaited @throws CONFLICT, STORE_UNAVAILABLE, whatever `plan` throws
   */
  commit(plan: () => Plan, tenant: string | null = null, manner?: Manner): Promise<Revision> {
    const { store, picture, book } = this.#parts;
    const parts = { store, picture, claims: this.#claims, onLostRace: () => void this.#lostRaces++ };
    const run = (): Promise<Revision> => commit(parts, plan, manner);
    const hasQuota = tenant !== null && (book.tenant(tenant)?.maxAddresses ?? null) !== null;
    return hasQuota ? this.#byTenant.run(tenant, run) : run();
  }

  /** Resolves when what was committed before is durable. @throws STORE_UNAVAILABLE */
  async flushed(): Promise<void> {
    await this.#parts.store.flush?.();
  }

  /**
   * To be called before a fixed address is assigned, or one out of a reservation: what other agents did for it a moment ago is in
   * the book then. Asks nobody where the book knows that something waits. @throws STORE_UNAVAILABLE
   */
  learnKept(owner: Owner | null, reservation: string | null): Promise<void> {
    return learnKept(this.#parts, owner, reservation);
  }

  /**
   * Resolves when the book shows all that was decided anywhere before the call. False: it does at any time, as there is one agent only.
   * @throws STORE_UNAVAILABLE where the cluster cannot be asked
   */
  async catchUp(): Promise<boolean> {
    const { store, book } = this.#parts;
    if (store.refresh === undefined) return false;
    await book.reached(await store.refresh());
    return true;
  }

  /** Plans, commits and answers one operation. @throws what its plan throws; CONFLICT, STORE_UNAVAILABLE */
  perform<V extends Verb>(operation: OperationOf<V>): Promise<ResultOf<V>> {
    const tenant = chargedTenant(operation as Operation);
    return this.#run((now) => planOperation(this.#context, operation, now), tenant);
  }

  /**
   * Many operations, in their order, in few transactions.
   * @param atomic all in one transaction or none; else each has its own result or error, and what was not begun when the store failed,
   *   or when `isLate` said so, has the reason
   * @throws with `atomic` what the first refused one is refused for
   */
  async batch(
    operations: readonly Operation[],
    { atomic, isLate = () => null }: { atomic: boolean; isLate?: () => NetctlError | null },
  ): Promise<readonly BatchItem[]> {
    if (atomic) {
      let items: readonly BatchItem[] = [];
      await this.commit(() => {
        const chunk = planAtomically(this.#context, operations, this.#now());
        items = chunk.items;
        return chunk;
      });
      return items;
    }
    const items: BatchItem[] = [];
    let stopped: NetctlError | null = null;
    while (items.length < operations.length) {
      stopped ??= isLate();
      if (stopped !== null) {
        items.push({ ok: false, error: stopped });
        continue;
      }
      let done: readonly BatchItem[] = [];
      try {
        await this.commit(() => {
          const chunk = planChunk(this.#context, operations.slice(items.length), this.#now());
          done = chunk.items;
          return chunk;
        });
        items.push(...done);
      } catch (thrown) {
        const error = asNetctlError(thrown);
        items.push(...done.map((item): BatchItem => (item.ok ? { ok: false, error } : item)));
        if (error.kind === 'transient') stopped = error;
      }
    }
    return items;
  }

  reserve(request: RequestOf<'reserve'>): Promise<ResultOf<'reserve'>> {
    return this.perform({ verb: 'reserve', request });
  }

  extend(request: RequestOf<'extend'>): Promise<ResultOf<'extend'>> {
    return this.perform({ verb: 'extend', request });
  }

  commitTo(request: RequestOf<'commit'>): Promise<ResultOf<'commit'>> {
    return this.perform({ verb: 'commit', request });
  }

  cancel(request: RequestOf<'cancel'>): Promise<ResultOf<'cancel'>> {
    return this.perform({ verb: 'cancel', request });
  }

  bind(request: RequestOf<'bind'>): Promise<ResultOf<'bind'>> {
    return this.perform({ verb: 'bind', request });
  }

  activate(request: RequestOf<'activate'>): Promise<ResultOf<'activate'>> {
    return this.perform({ verb: 'activate', request });
  }

  unbind(request: RequestOf<'unbind'>): Promise<ResultOf<'unbind'>> {
    return this.perform({ verb: 'unbind', request });
  }

  transfer(request: RequestOf<'transfer'>): Promise<ResultOf<'transfer'>> {
    return this.perform({ verb: 'transfer', request });
  }

  release(request: RequestOf<'release'>): Promise<ResultOf<'release'>> {
    return this.perform({ verb: 'release', request });
  }

  releaseOwner(request: RequestOf<'release-owner'>): Promise<ResultOf<'release-owner'>> {
    return this.perform({ verb: 'release-owner', request });
  }

  reservePorts(request: Asked<ReservePortsRequest>): Promise<PortReservation> {
    return this.#run((now) => planReservePorts(this.book, { ...request, now }));
  }

  extendPorts(request: PortReservationCall & { ttlSeconds: number | null }): Promise<PortReservation> {
    return this.#run((now) => planExtendPorts(this.book, { ...request, now }));
  }

  /** null: there was nothing (any more). */
  releasePorts(request: PortReservationCall): Promise<readonly NodePorts[] | null> {
    return this.#run(() => planReleasePorts(this.book, request));
  }

  claim(request: Asked<ClaimRequest>): Promise<Cidr> {
    return this.#run((now) => planClaim(this.book, { ...request, now }));
  }

  /** `closing`: it will be gone when the periodic work has seen that nobody took an address of it meanwhile. */
  giveBack(request: { block: Cidr; node: string }): Promise<'gone' | 'closing'> {
    return this.#run(() => planGiveBackBlock(this.book, request));
  }

  /** Takes a node out of use; answers what is in use there, or meant for it. Carried out again, it goes on where it stopped. */
  async closeNode(node: string, state: NodeState): Promise<readonly Affected[]> {
    await this.commit(() => planNodeState(node, state));
    if (state.state === 'fenced') await this.#drain(() => planShareBlocks(this.book, node));
    return affectedBy(this.book, node);
  }

  /** The node is in use again. */
  async reopenNode(node: string): Promise<void> {
    await this.commit(() => planNodeState(node, null));
  }

  /** An address that another system gave out. */
  import(request: ImportRequest): Promise<Imported> {
    return this.#run((now) => planImport(this.#context, request, now), request.owner.tenant);
  }

  quarantine(report: ConflictReport): Promise<AddressRecord> {
    return this.#run(() => planQuarantine(this.book, report));
  }

  /**
   * Ends what is over, then gives back blocks of this node that are empty: the periodic work, a bounded part of it each time.
   * @param keepsBlocks true while nobody could give it others
   */
  async expire(keepsBlocks = () => false): Promise<void> {
    const { node } = this.#parts;
    const failures: unknown[] = [];
    const plans = [
      ...expiries.map((plan) => (now: Date) => plan(this.book, node, this.#deadlines, now, mostAddresses)),
      () => (failures.length > 0 || keepsBlocks() ? null : planGiveBack(this.book, node)),
    ];
    for (const plan of plans) await this.#drain(plan).catch((error: unknown) => failures.push(error));
    if (failures.length > 0) throw failures[0];
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
/** In one transaction. */
const mostAddresses = 60;
