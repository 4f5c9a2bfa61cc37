/**
 * What a process says of itself while it lives: records under a lease of etcd, which takes them away when nobody keeps it alive.
 *
 *   no lease ──grant, put all──► held ──keep alive, every third of its time──► held
 *                ▲                  └─ etcd does not know it any more, or its time has passed unanswered ──┐
 *                └─────────────────────────────────────────────────────────────────────────────────────────┘
 *
 * In: values by key. Out: records in etcd as long as this process runs; whether they are there. Never: a record under a lease that is
 * gone, one that outlives its process by more than the lease's time, attempts without a pause.
 */
import type { Clock, Timer } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import type { EtcdCluster } from './etcd-cluster.ts';
import type { EtcdKeyspace } from './etcd-keyspace.ts';
import {
  leaseGrantMethod,
  leaseKeepAliveMethod,
  leaseRevokeMethod,
  rangeMethod,
  txnMethod,
} from './etcd-messages.ts';
import type { Json, Presence, PresenceStatus } from './store.ts';

export interface EtcdPresenceParts {
  readonly cluster: EtcdCluster;
  readonly keyspace: EtcdKeyspace;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
}

export const leaseSeconds = 15;
const turnMilliseconds = (leaseSeconds * 1000) / 3;
/** So long an end waits for an etcd that does not answer. */
const goodbyeMilliseconds = 1000;
/** Every so many turns it is looked whether somebody deleted the records. */
const turnsPerLook = 4;

export class EtcdPresence implements Presence {
  readonly #parts: EtcdPresenceParts;
  readonly #values = new Map<string, string>();
  readonly #stale = new Set<string>();
  /** Chosen by us, below 2^53. */
  #lease: number | null = null;
  #keptAt = Number.NEGATIVE_INFINITY;
  #status: PresenceStatus;
  #timer: Timer | null = null;
  #running: Promise<void> = Promise.resolve();
  #turns = 0;
  #closed = false;

  constructor(parts: EtcdPresenceParts) {
    this.#parts = parts;
    this.#status = { held: false, since: parts.clock.now(), error: 'not yet asked for' };
    this.#next(0);
  }

  tell(key: string, value: Json): void {
    const text = JSON.stringify(value);
    if (this.#values.get(key) === text || this.#closed) return;
    this.#values.set(key, text);
    this.#stale.add(key);
    if (this.#lease !== null) this.#next(0);
  }

  status(): PresenceStatus {
    return this.#status;
  }

  /** The records go now, not when their time is over; with an etcd that does not answer they go then. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = this.#parts.clock.setTimer(goodbyeMilliseconds, resolve);
    await Promise.race([this.#running.then(() => this.#revoke()), late]);
    timer.cancel();
  }

  async #revoke(): Promise<void> {
    if (this.#lease === null || !this.#status.held) return;
    await this.#parts.cluster
      .call(leaseRevokeMethod, { id: this.#lease }, { what: 'end of our lease', again: false })
      .catch(() => undefined);
  }

  #next(milliseconds: number): void {
    this.#timer?.cancel();
    if (this.#closed) return;
    this.#timer = this.#parts.clock.setTimer(milliseconds, () => {
      this.#running = this.#running.then(() => this.#turn());
    });
  }

  async #turn(): Promise<void> {
    if (this.#closed) return;
    try {
      if (this.#lease === null || !(await this.#keepAlive(this.#lease))) await this.#grant();
      if (this.#turns++ % turnsPerLook === 0) await this.#look();
      for (const key of [...this.#stale]) await this.#put(key);
      this.#report(null);
    } catch (error) {
      if (this.#parts.clock.monotonic() - this.#keptAt > leaseSeconds * 1000) this.#lease = null;
      if (this.#lease === null) this.#report((error as Error).message);
    }
    const spread = this.#lease === null ? 0.5 + this.#parts.random() / 2 : 1;
    this.#next(turnMilliseconds * spread);
  }

  /** False when etcd does not know the lease (any more). */
  async #keepAlive(id: number): Promise<boolean> {
    const asked = this.#parts.clock.monotonic();
    const what = { what: 'renewal of our lease', again: true };
    const { ttl } = await this.#parts.cluster.call(leaseKeepAliveMethod, { id }, what);
    if (ttl > 0) this.#keptAt = asked;
    else {
      this.#parts.logger.warn({ lease: id }, 'etcd has ended our lease: asking for another');
      this.#lease = null;
      this.#report('the lease was lost');
    }
    return ttl > 0;
  }

  async #grant(): Promise<void> {
    const { cluster, clock, random } = this.#parts;
    const asked = clock.monotonic();
    const id = 1 + Math.floor(random() * 2 ** 52);
    await cluster.call(leaseGrantMethod, { id, ttl: leaseSeconds }, { what: 'lease', again: false });
    this.#lease = id;
    this.#keptAt = asked;
    for (const key of this.#values.keys()) this.#stale.add(key);
  }

  /** Somebody may have deleted them: a wiped keyspace, a hand. */
  async #look(): Promise<void> {
    const { cluster, keyspace } = this.#parts;
    for (const key of this.#values.keys()) {
      const request = { key: keyspace.bytes(key), keysOnly: true };
      const { kvs } = await cluster.call(rangeMethod, request, { what: `read of ${key}`, again: true });
      if (kvs.length === 0) this.#stale.add(key);
    }
  }

  /** Its one writer is this process, so it needs no compare; a lease that is gone makes etcd refuse it. */
  async #put(key: string): Promise<void> {
    const { cluster, keyspace } = this.#parts;
    const text = this.#values.get(key)!;
    const put = { key: keyspace.bytes(key), value: Buffer.from(text), lease: this.#lease! };
    await cluster.call(txnMethod, { success: [{ put }] }, { what: `write of ${key}`, again: false });
    if (this.#values.get(key) === text) this.#stale.delete(key);
  }

  #report(error: string | null): void {
    const held = error === null;
    const since = held === this.#status.held ? this.#status.since : this.#parts.clock.now();
    this.#status = { held, since, error };
  }
}
