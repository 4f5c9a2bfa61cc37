/**
 * The flush of SQLite's write-ahead log to the disk, by us instead of by SQLite: on another thread, while this one goes on, and by
 * fdatasync (Node's SQLite has only fsync, which writes the file's times too, each time). What the log then holds is what SQLite finds
 * committed after a power cut.
 *
 * In: the path of the log. Out: promises. Never: one that resolves before what was written ahead of the call is on the disk; two flushes
 * at once (who asks during one shares the next).
 */
import { closeSync, fdatasync, openSync } from 'node:fs';

/** What a store needs of it. */
export interface LogFlush {
  /** While something is under way, or was asked for and begins next. */
  readonly isBusy: boolean;
  /** @throws what the file system says: then nobody knows what is on the disk */
  flush(): Promise<void>;
  /** After the last flush. */
  close(): Promise<void>;
}

export class WalFlush implements LogFlush {
  readonly #path: string;
  #file: number | null = null;
  #running: Promise<void> | null = null;
  #next: Promise<void> | null = null;

  constructor(path: string) {
    this.#path = path;
  }

  get isBusy(): boolean {
    return this.#running !== null || this.#next !== null;
  }

  flush(): Promise<void> {
    if (this.#running === null) {
      this.#running = this.#sync().finally(() => {
        this.#running = null;
      });
      return this.#running;
    }
    this.#next ??= this.#running
      .catch(() => undefined)
      .then(() => {
        this.#next = null;
        return this.flush();
      });
    return this.#next;
  }

  async close(): Promise<void> {
    while (this.isBusy) await (this.#next ?? this.#running)?.catch(() => undefined);
    if (this.#file !== null) closeSync(this.#file);
    this.#file = null;
  }

  /** The file is there once something was committed, and stays the same one: SQLite writes it from its beginning again. */
  #sync(): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    try {
      this.#file ??= openSync(this.#path, 'r+');
      fdatasync(this.#file, (error) => (error === null ? resolve() : reject(error)));
    } catch (error) {
      reject(error);
    }
    return promise;
  }
}
