/**
 * The least that an answer costs which comes after all that was decided before it: a fenced transaction of etcd, and its event.
 *
 * In: a connection, a value as large as a record. Out: allocations of three records and a fence, one after the other, each until a watch
 * shows it. Never: a plan, a picture or a local store, which are what the comparison is about.
 */
import type { Json, Store, Watch } from '../src/store/store.ts';

export class Shown {
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

  async allocation(name: string): Promise<void> {
    const [first, ...others] = ['a', 'b', 'c', 'fence'].map((kind) =>
      kind === 'fence' ? kind : `${kind}/${name}`,
    );
    const guard = { kind: 'modified', key: 'fence', revision: this.#fence } as const;
    const result = await this.#store.transact(
      [{ kind: 'absent', key: first! }, this.#fence === 0 ? { kind: 'absent', key: 'fence' } : guard],
      [first!, ...others].map((key) => ({ kind: 'put', key, value: this.#value })),
    );
    if (!result.committed) throw new Error(`${name} was there already`);
    const { revision } = result;
    this.#fence = revision;
    if (this.#seen >= revision) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wanted = { revision, resolve };
    await promise;
  }

  close(): void {
    this.#watch.close();
  }
}
