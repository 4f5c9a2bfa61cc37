/**
 * The least that a decision costs: a fenced transaction of etcd; then either its event (an answer that comes after all that was decided
 * before it) or its records in SQLite (an answer that the agent's own store can be asked about).
 *
 * In: a connection, a value as large as a record. Out: allocations of three records and a fence, one after the other. Never: a plan or a
 * picture, which are what the comparison is about.
 */
import type { Json, Revision, Store, Watch, Write } from '../src/store/store.ts';

export class Floor {
  readonly #store: Store;
  readonly #value: Json;
  readonly #watch: Watch;
  #fence = 0;
  #seen = 0;
  #wanted: { revision: number; resolve: () => void } | null = null;

  constructor(store: Store, value: Json) {
    this.#store = store;
    this.#value = value;
    this.#watch = store.watch('', 0, {
      onChanges: ({ revision }) => {
        this.#seen = revision;
        if (this.#wanted !== null && revision >= this.#wanted.revision) this.#wanted.resolve();
      },
      onEnd: (error) => {
        throw error;
      },
    });
  }

  /** Until a watch shows it. */
  async shown(name: string): Promise<void> {
    const { revision } = await this.#decide(name);
    if (this.#seen >= revision) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wanted = { revision, resolve };
    await promise;
  }

  /** Until the local store has it, without a flush: the cluster has it. */
  async stored(name: string, local: Store): Promise<void> {
    const { writes } = await this.#decide(name);
    await local.transact([], writes, { flushed: false });
  }

  async #decide(name: string): Promise<{ revision: Revision; writes: readonly Write[] }> {
    const writes = ['a', 'b', 'c'].map(
      (kind): Write => ({ kind: 'put', key: `${kind}/${name}`, value: this.#value }),
    );
    const guard = { kind: 'modified', key: 'fence', revision: this.#fence } as const;
    const result = await this.#store.transact(
      [{ kind: 'absent', key: `a/${name}` }, this.#fence === 0 ? { kind: 'absent', key: 'fence' } : guard],
      [...writes, { kind: 'put', key: 'fence', value: this.#value }],
    );
    if (!result.committed) throw new Error(`${name} was there already`);
    this.#fence = result.revision;
    return { revision: result.revision, writes };
  }

  close(): void {
    this.#watch.close();
  }
}
