/**
 * One watch on etcd, over a stream of its own, for as long as its owner wants it.
 *
 * In: where to begin, a cluster. Out: each change set once and in order, across lost connections, members and logins. Never: a
 * position that goes beyond what was delivered (but by the server's own progress notifications), a resumption in another
 * history than it began in, a callback after the end.
 *
 *   probe (a read: is the history the same, is the login valid?) → stream → created → events ... ─┐
 *     ▲                                                                                            │ lost, silent, refused
 *     └──────────────────────── rest, twice as long each time, until `created` ◄───────────────────┘
 */
import type { Clock, Timer } from '../lib/clock.ts';
import { asNetctlError, NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import type { EtcdCluster } from './etcd-cluster.ts';
import type { EtcdConnection, Stream } from './etcd-connection.ts';
import { etcdError, unavailable } from './etcd-errors.ts';
import { type EtcdKeyspace, versionsOf } from './etcd-keyspace.ts';
import { rangeMethod, type WatchEvent, type WatchResponse, watchMethod } from './etcd-messages.ts';
import type { ChangeSet, Revision, Watch, Watcher } from './store.ts';

/** What a history of revisions is told by: a wiped or restored cluster may have another id or an earlier term. */
export interface History {
  readonly clusterId: bigint;
  readonly raftTerm: bigint;
}

/** A key and what it was at the watch's position: a wiped cluster that was filled again will hardly agree. */
export interface Landmark {
  readonly key: string;
  /** Null: absent. */
  readonly modified: Revision | null;
}

export interface EtcdWatchOptions {
  readonly cluster: EtcdCluster;
  readonly keyspace: EtcdKeyspace;
  readonly prefix: string;
  readonly after: Revision;
  /** The one that `after` was read in; null if nothing was read yet. */
  readonly history: History | null;
  readonly landmark: Landmark | null;
  readonly watcher: Watcher;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: () => number;
  readonly onClosed: () => void;
}

const firstRestMilliseconds = 50;
const longestRestMilliseconds = 10_000;
const createdWithinMilliseconds = 5000;
/**
 * A stream that says nothing for that long is asked for a sign of life, and given up if it says nothing for that long again. This finds
 * streams that hang behind a proxy; a silent connection is found sooner, by gRPC's keepalive.
 */
const silenceMilliseconds = 30_000;

export class EtcdWatch implements Watch {
  readonly #options: EtcdWatchOptions;
  #after: Revision;
  #history: History | null;
  #landmark: Landmark | null;
  #stream: Stream<typeof watchMethod> | null = null;
  #detach: () => void = () => {};
  #timer: Timer | null = null;
  /** Responses of one that etcd sent in fragments. */
  #fragments: WatchEvent[] = [];
  #heard = false;
  #failures = 0;
  #refusals = 0;
  #ended = false;

  constructor(options: EtcdWatchOptions) {
    this.#options = options;
    this.#after = options.after;
    this.#history = options.history;
    this.#landmark = options.landmark;
    void this.#open();
  }

  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#leave();
    this.#options.onClosed();
  }

  end(error: Error): void {
    if (this.#ended) return;
    this.close();
    this.#options.watcher.onEnd(error);
  }

  async #open(): Promise<void> {
    const { cluster } = this.#options;
    try {
      await this.#probe();
      const connection = await cluster.connection(createdWithinMilliseconds);
      const metadata = await cluster.metadata(connection);
      if (this.#ended) return;
      if (connection.isLost()) throw unavailable(connection.endpoint, 'the connection was lost', 'not-sent');
      this.#follow(connection, connection.stream(watchMethod, metadata));
    } catch (error) {
      this.#reopen(error);
    }
  }

  /** A linearizable read of the landmark at our position: its header is of the cluster, not of a member that lags behind. */
  async #probe(): Promise<void> {
    const { cluster, keyspace, prefix } = this.#options;
    const landmark = this.#landmark;
    const position = landmark ? { revision: this.#after } : {};
    const request = { key: keyspace.bytes(landmark?.key ?? prefix), keysOnly: true, ...position };
    const { header, kvs } = await cluster.call(rangeMethod, request, {
      what: 'read before watching',
      again: true,
    });
    if (!header || this.#ended) return;
    const known = this.#history;
    const { clusterId, raftTerm } = header;
    const sameCluster = known === null || (known.clusterId === clusterId && known.raftTerm <= raftTerm);
    const sameData = landmark === null || landmark.modified === (versionsOf(kvs)?.modified ?? null);
    if (!sameCluster || !sameData || header.revision < this.#after) {
      const problem = `etcd begins anew: it is at revision ${header.revision}, the watch was at ${this.#after} of another history`;
      throw new NetctlError('STORE_COMPACTED', `${problem}: read a new snapshot`);
    }
    this.#history = { clusterId, raftTerm };
  }

  #follow(connection: EtcdConnection, stream: Stream<typeof watchMethod>): void {
    const { keyspace, prefix } = this.#options;
    this.#stream = stream;
    this.#fragments = [];
    this.#heard = false;
    stream.on('data', (response: WatchResponse) => {
      if (stream === this.#stream) this.#receive(response);
    });
    const lost = (error: unknown) => {
      if (stream === this.#stream) this.#reopen(etcdError(connection.endpoint, 'watch', error));
    };
    stream.on('error', lost);
    stream.on('end', () => lost(new Error('the stream ended')));
    this.#detach = connection.onLost(lost);
    this.#wait(createdWithinMilliseconds);
    const startRevision = this.#after + 1;
    stream.write({
      create: { ...keyspace.range(prefix), startRevision, progressNotify: true, fragment: true },
    });
  }

  #receive(response: WatchResponse): void {
    this.#heard = true;
    if (response.canceled) {
      this.#canceled(response);
      return;
    }
    if (response.created) {
      this.#failures = 0;
      this.#refusals = 0;
      this.#wait(silenceMilliseconds);
      return;
    }
    this.#fragments.push(...response.events);
    if (response.fragment) return;
    const events = this.#fragments;
    this.#fragments = [];
    if (events.length > 0) this.#deliver(events);
    // The answer to our own request (watch id -1) can overtake events (etcd-io/etcd#15220); the server's own notification does not.
    else if (response.watchId >= 0 && response.header)
      this.#after = Math.max(this.#after, response.header.revision);
  }

  #deliver(events: readonly WatchEvent[]): void {
    const { keyspace, watcher } = this.#options;
    try {
      for (const changeSet of keyspace.changeSets(events)) {
        if (this.#ended) return;
        if (changeSet.revision <= this.#after) continue;
        watcher.onChanges(changeSet);
        this.#after = changeSet.revision;
        this.#landmark = landmarkOf(changeSet);
      }
    } catch (error) {
      this.end(asNetctlError(error));
    }
  }

  #canceled({ compactRevision, cancelReason }: WatchResponse): void {
    const { cluster, prefix } = this.#options;
    if (compactRevision > 0) {
      const problem = `changes after revision ${this.#after} are not kept any more`;
      this.end(new NetctlError('STORE_COMPACTED', `etcd: ${problem}: read a new snapshot`));
      return;
    }
    // An expired login is refused like a missing permission (etcd 3.4), so the first refusal is answered with a new login.
    const reason = cancelReason || 'no reason given';
    const error = new NetctlError(
      'STORE_UNAVAILABLE',
      `etcd refuses to watch ${prefix || 'all keys'}: ${reason}`,
    );
    cluster.forgetToken();
    this.#refusals += 1;
    if (this.#refusals > 1) this.end(error);
    else this.#reopen(error);
  }

  #reopen(thrown: unknown): void {
    if (this.#ended) return;
    const error = asNetctlError(thrown);
    if (error.code !== 'STORE_UNAVAILABLE' || error.details['outcome'] === 'refused') {
      this.end(error);
      return;
    }
    this.#leave();
    const { cluster, clock, random, logger, prefix } = this.#options;
    const delay = Math.min(firstRestMilliseconds * 2 ** this.#failures, longestRestMilliseconds);
    this.#failures += 1;
    logger.debug({ prefix, after: this.#after, error: error.message, delay }, 'watch is opened again');
    const open = () => {
      this.#leave();
      void this.#open();
    };
    this.#timer = clock.setTimer(delay * (0.5 + random() / 2), open);
    this.#detach = cluster.onConnected(open);
  }

  #wait(milliseconds: number): void {
    this.#timer?.cancel();
    this.#timer = this.#options.clock.setTimer(milliseconds, () => this.#checkSilence());
  }

  #checkSilence(): void {
    if (!this.#heard) {
      this.#reopen(new NetctlError('STORE_UNAVAILABLE', 'etcd: the stream of a watch is silent'));
      return;
    }
    this.#heard = false;
    this.#stream?.write({ progress: {} });
    this.#wait(silenceMilliseconds);
  }

  #leave(): void {
    this.#timer?.cancel();
    this.#detach();
    this.#detach = () => {};
    const stream = this.#stream;
    this.#stream = null;
    stream?.cancel();
  }
}

function landmarkOf({ changes }: ChangeSet): Landmark {
  const { key, entry } = changes.at(-1)!;
  return { key, modified: entry?.modified ?? null };
}
