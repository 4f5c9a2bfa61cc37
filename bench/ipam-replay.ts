/**
 * The same transactions once more, by a client that does nothing else: what is missing to its rate is ours, the rest is etcd's.
 *
 * In: a store that nodes send to while they are measured. Out: each node's transactions again, one after the other as its fence has
 * them, the nodes side by side, with the same compares, keys and values. Never: a plan, a picture, a local store, a watch.
 */
import type { Compare, Revision, Store, Write } from '../src/store/store.ts';

interface Sent {
  readonly compares: readonly Compare[];
  readonly writes: readonly Write[];
}

export class Recording {
  readonly #sent = new Map<string, Sent[]>();
  #runs = false;

  /** From now on. */
  start(): void {
    this.#runs = true;
  }

  stop(): void {
    this.#runs = false;
  }

  note(node: string, compares: readonly Compare[], writes: readonly Write[]): void {
    if (!this.#runs) return;
    const sent = this.#sent.get(node) ?? [];
    sent.push({ compares, writes });
    this.#sent.set(node, sent);
  }

  get transactions(): number {
    return [...this.#sent.values()].reduce((sum, { length }) => sum + length, 0);
  }

  /** @param store with nothing of these nodes in it @returns milliseconds */
  async replay(store: Store): Promise<number> {
    const revisions = new Map<string, Revision>();
    // What was there before: pools, blocks, fences.
    const first = [...this.#sent.values()].flat().flatMap(({ compares }) => compares);
    const written = new Set(
      [...this.#sent.values()].flat().flatMap(({ writes }) => writes.map(({ key }) => key)),
    );
    const values = new Map(
      [...this.#sent.values()].flat().flatMap(({ writes }) => writes.map((write) => [write.key, write])),
    );
    for (const key of new Set(first.flatMap((compare) => (compare.kind === 'absent' ? [] : compare.key)))) {
      const write = written.has(key) ? values.get(key)! : undefined;
      const put: Write = write?.kind === 'put' ? write : { kind: 'put', key, value: null };
      const result = await store.transact([], [put]);
      if (result.committed) revisions.set(key, result.revision);
    }
    const start = performance.now();
    await Promise.all([...this.#sent.values()].map((sent) => replayOne(store, sent, revisions)));
    return performance.now() - start;
  }
}

async function replayOne(
  store: Store,
  sent: readonly Sent[],
  revisions: Map<string, Revision>,
): Promise<void> {
  for (const { compares, writes } of sent) {
    const now = compares.map(
      (compare): Compare =>
        compare.kind === 'modified' ? { ...compare, revision: revisions.get(compare.key)! } : compare,
    );
    const result = await store.transact(now, writes);
    if (!result.committed) throw new Error(`${result.failed} is not as it was`);
    for (const { key } of writes) revisions.set(key, result.revision);
  }
}
