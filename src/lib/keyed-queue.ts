/**
 * Runs tasks of one key after each other, tasks of different keys side by side.
 *
 * In: a key and a task. Out: the task's result. Never: two tasks of one key at once, memory kept for a key without tasks.
 */
export class KeyedQueue {
  readonly #tails = new Map<string, Promise<unknown>>();

  /** Keys with a task waiting or running. */
  keys(): IterableIterator<string> {
    return this.#tails.keys();
  }

  get size(): number {
    return this.#tails.size;
  }

  has(key: string): boolean {
    return this.#tails.has(key);
  }

  /** The first task of a key starts at once, in the caller's turn of the event loop. */
  async run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key);
    const result = before === undefined ? task() : before.then(task, task);
    const tail = result.catch(() => undefined);
    this.#tails.set(key, tail);
    try {
      return await result;
    } finally {
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
    }
  }

  /** Resolves when nothing runs any more. */
  async idle(): Promise<void> {
    while (this.#tails.size > 0) await Promise.all(this.#tails.values());
  }
}
