/**
 * Nodes on a cluster whose wires can be cut, for the tests of the replicated store.
 *
 * In: orders to cut, to lose answers, to kill. Out: stores that behave as their process or network would. Never: an effect through a
 * wire that is cut, an answer to a process that is dead.
 */
import assert from 'node:assert/strict';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Clock, Timer } from '../../../src/lib/clock.ts';
import { NetctlError } from '../../../src/lib/errors.ts';
import { MemoryStore } from '../../../src/store/memory.ts';
import { type ReplicatedOptions, ReplicatedStore } from '../../../src/store/replicated.ts';
import type { LostClaims } from '../../../src/store/replicated-session.ts';
import type {
  Compare,
  Entry,
  Json,
  Revision,
  Store,
  TransactionResult,
  Watch,
  Watcher,
  Write,
} from '../../../src/store/store.ts';
import type { ManualClock } from './manual-clock.ts';

export const silent = { debug() {}, info() {}, warn() {}, error() {} };

/** A process's hold on something: once cut off, calls have no effect and no answer. */
export class Wire implements Store {
  readonly #store: Store;
  readonly #watches = new Map<Watch, Watcher>();
  readonly #unanswered = new Set<(error: Error) => void>();
  /** `cut`: refused at once. `silent`: no effect, no answer until it is mended. `dead`: none ever. */
  state: 'up' | 'cut' | 'silent' | 'dead' = 'up';
  /** The answers of so many transactions to come get lost. */
  loseAnswers = 0;
  /** Happens in the cluster just before the next transaction arrives there. */
  before: (() => Promise<unknown>) | null = null;
  /** Events are held back while it is not null. */
  late: (() => void)[] | null = null;
  /** Transactions that arrived. */
  transactions = 0;
  /** Of the transactions that arrived, keys whose loss in a power cut was accepted. */
  readonly unflushed: string[] = [];

  constructor(store: Store) {
    this.#store = store;
  }

  get(key: string): Promise<Entry | null> {
    return this.#through(() => this.#store.get(key));
  }

  list(prefix: string) {
    return this.#through(() => this.#store.list(prefix));
  }

  transact(
    compares: readonly Compare[],
    writes: readonly Write[],
    manner = { flushed: true },
  ): Promise<TransactionResult> {
    return this.#through(async () => {
      this.transactions += 1;
      if (!manner.flushed) this.unflushed.push(...writes.map(({ key }) => key));
      const { before } = this;
      this.before = null;
      await before?.();
      const loses = this.loseAnswers > 0;
      if (loses) this.loseAnswers -= 1;
      const result = await this.#store.transact(compares, writes, manner);
      if (loses) throw gone('the answer got lost');
      return result;
    });
  }

  settled(): Promise<void> {
    return this.#through(async () => this.#store.settled?.());
  }

  watch(prefix: string, after: Revision, watcher: Watcher): Watch {
    if (this.state !== 'up') {
      setImmediate(() => this.state !== 'dead' && watcher.onEnd(gone('cut off')));
      return { close() {} };
    }
    const inner = this.#store.watch(prefix, after, {
      onChanges: (changeSet) => {
        const tell = (): unknown => this.state === 'up' && watcher.onChanges(changeSet);
        if (this.late === null) tell();
        else this.late.push(tell);
      },
      onEnd: (error) => this.state === 'up' && watcher.onEnd(error),
    });
    this.#watches.set(inner, watcher);
    return {
      close: () => {
        inner.close();
        this.#watches.delete(inner);
      },
    };
  }

  /** Events come again, those held back first. */
  catchUp(): void {
    const { late } = this;
    this.late = null;
    for (const tell of late ?? []) tell();
  }

  cut(state: 'cut' | 'silent' | 'dead' = 'cut'): void {
    this.state = state;
    const watches = [...this.#watches];
    this.#watches.clear();
    for (const [watch, watcher] of watches) {
      watch.close();
      if (state !== 'dead') setImmediate(() => watcher.onEnd(gone('the connection was lost')));
    }
  }

  mend(): void {
    if (this.state !== 'dead') this.state = 'up';
    for (const reject of this.#unanswered) reject(gone('the connection was reset'));
    this.#unanswered.clear();
  }

  async close(): Promise<void> {
    this.cut('dead');
  }

  async #through<T>(call: () => Promise<T>): Promise<T> {
    await this.#pass();
    try {
      const result = await call();
      await this.#pass();
      return result;
    } catch (error) {
      await this.#pass();
      throw error;
    }
  }

  #pass(): Promise<void> | undefined {
    if (this.state === 'cut') throw gone('cut off');
    if (this.state === 'up') return undefined;
    return new Promise((_, reject) => this.state === 'silent' && this.#unanswered.add(reject));
  }
}

/** One agent's store over a local store that outlives it. */
export class TestNode {
  readonly name: string;
  readonly localStore: Store;
  readonly cluster: Store;
  readonly clock: ManualClock;
  readonly lost: LostClaims[] = [];
  readonly options: Partial<ReplicatedOptions>;
  local!: Wire;
  wire!: Wire;
  store!: ReplicatedStore;
  #alive = { clock: true };

  constructor(
    name: string,
    cluster: Store,
    clock: ManualClock,
    options: Partial<ReplicatedOptions> = {},
    localStore: Store = new MemoryStore(),
  ) {
    this.name = name;
    this.cluster = cluster;
    this.clock = clock;
    this.options = options;
    this.localStore = localStore;
  }

  async open(options: Partial<ReplicatedOptions> = {}, cut = false): Promise<this> {
    const alive = { clock: true };
    this.#alive = alive;
    this.local = new Wire(this.localStore);
    this.wire = new Wire(this.cluster);
    if (cut) this.wire.cut();
    const clock: Clock = {
      now: () => this.clock.now(),
      monotonic: () => this.clock.monotonic(),
      setTimer: (delay, call): Timer => this.clock.setTimer(delay, () => alive.clock && call()),
    };
    this.store = await ReplicatedStore.open({
      node: this.name,
      local: this.local,
      cluster: this.wire,
      clock,
      logger: silent,
      random: () => 0.5,
      onLostClaims: (lost) => this.lost.push(lost),
      ...this.options,
      ...options,
    });
    return this;
  }

  /** As kill -9 does: nothing that was under way is answered or continued. */
  kill(): void {
    this.#alive.clock = false;
    this.local.cut('dead');
    this.wire.cut('dead');
  }

  /** What the agent sees. */
  async records(): Promise<Record<string, Json>> {
    return visible(await this.store.list(''));
  }

  async put(key: string, value: Json = key): Promise<void> {
    const result = await this.store.transact([], [{ kind: 'put', key, value }]);
    assert.ok(result.committed);
  }
}

/** Records of the domain, without those of the replication. */
export function visible({ entries }: { entries: readonly Entry[] }): Record<string, Json> {
  return Object.fromEntries(
    entries
      .filter(({ key }) => !/^(local|replication)\//.test(key) && key !== 'cluster')
      .map(({ key, value }) => [key, value]),
  );
}

/** Lets the clock run until the condition holds. */
export async function eventually(
  clock: ManualClock,
  condition: () => boolean | Promise<boolean>,
  what: string,
): Promise<void> {
  for (let round = 0; round < 4000; round++) {
    if (await condition()) return;
    for (let turn = 0; turn < 3; turn++) await nextTurn();
    clock.advance(20);
  }
  assert.fail(`waited long for ${what}`);
}

/** The node has sent all, and its records are the cluster's. */
export function agrees(node: TestNode): Promise<void> {
  return eventually(
    node.clock,
    async () =>
      node.store.status().waiting === 0 &&
      JSON.stringify(await node.records()) === JSON.stringify(visible(await node.cluster.list(''))),
    `${node.name} and the cluster to agree`,
  );
}

export const claim = (node: string): Json => ({ pool: 'p', node, claimedAt: '2026-01-01T00:00:00.000Z' });

function gone(reason: string): NetctlError {
  return new NetctlError('STORE_UNAVAILABLE', reason);
}
