/**
 * The shared store of all hosts on etcd (v3 API, 3.4 or newer).
 *
 * In: the calls of the port. Out: etcd's own answers: its revisions, each transaction one Txn, decided by the cluster. Never: a write
 * that is sent again, a call that waits longer than five seconds, a list of more than one revision.
 *
 *   EtcdStore ── EtcdKeyspace (keys, JSON)            what a call means
 *      │  └───── EtcdWatch (one stream each)          what was delivered, and where to go on
 *      └──────── EtcdCluster ── EtcdConnection        which member, login, deadlines, back-off
 *                                  └─ etcd-messages, etcd-protobuf   bytes
 *
 * docs/decisions/0010-etcd-transport.md says why not the etcd3 package.
 */
import { invalid, NetctlError } from '../lib/errors.ts';
import { EtcdCluster, type EtcdClusterOptions, type EtcdStatus } from './etcd-cluster.ts';
import { isTooLargeToReceive } from './etcd-errors.ts';
import { EtcdKeyspace } from './etcd-keyspace.ts';
import { type Header, rangeMethod, txnMethod } from './etcd-messages.ts';
import { EtcdPresence } from './etcd-presence.ts';
import type { Given, Message } from './etcd-protobuf.ts';
import { EtcdWatch, type History, type Landmark } from './etcd-watch.ts';
import type {
  Compare,
  Entry,
  Presence,
  Revision,
  Snapshot,
  Store,
  TransactionResult,
  Watch,
  Watcher,
  Write,
} from './store.ts';
import { checkKey, checkPrefix, checkTransaction, refusalOf } from './transaction.ts';

export interface EtcdOptions extends EtcdClusterOptions {
  /** In front of every key, for example `/netctl/v1/`; nothing outside it is read or written. */
  readonly prefix: string;
}

type RangeResponse = Message<(typeof rangeMethod)['response']>;

const entriesPerPage = 1000;
const listAttempts = 3;

export class EtcdStore implements Store {
  readonly #options: EtcdOptions;
  readonly #cluster: EtcdCluster;
  readonly #keyspace: EtcdKeyspace;
  readonly #watches = new Set<EtcdWatch>();
  readonly #transactions = new Set<Promise<unknown>>();
  #history: History | null = null;
  /** Of the last list: whoever lists in order to watch goes on from there. */
  #listed: { prefix: string; revision: Revision; landmark: Landmark | null } | null = null;
  #closed: NetctlError | null = null;

  /** Connects at the first call. @throws INVALID for options that cannot work */
  constructor(options: EtcdOptions) {
    if (options.prefix === '' || !options.prefix.isWellFormed() || options.prefix.includes('\0'))
      throw invalid(
        'etcd.prefix',
        options.prefix,
        'text that is not empty, without NUL, such as "/netctl/v1/"',
      );
    this.#options = options;
    this.#cluster = new EtcdCluster(options);
    this.#keyspace = new EtcdKeyspace(options.prefix);
  }

  status(): EtcdStatus {
    return this.#cluster.status();
  }

  async get(key: string): Promise<Entry | null> {
    checkKey(key);
    const { kvs } = await this.#range({ key: this.#keyspace.bytes(key) }, `read of ${key}`);
    return kvs[0] ? this.#keyspace.entry(kvs[0]) : null;
  }

  async list(prefix: string): Promise<Snapshot> {
    checkPrefix(prefix);
    for (let attempt = 1; ; attempt++) {
      try {
        const snapshot = await this.#list(prefix);
        this.#listed = { prefix, revision: snapshot.revision, landmark: newest(snapshot.entries) };
        return snapshot;
      } catch (error) {
        // Between two pages the revision of the first was compacted.
        const compacted = error instanceof NetctlError && error.code === 'STORE_COMPACTED';
        if (!compacted || attempt === listAttempts) throw error;
      }
    }
  }

  /**
   * `details.outcome` of an error: `unknown` (read again), `refused` or `not-sent` (nothing was done).
   * @throws INVALID for more operations or bytes than this etcd takes (128 and 1.5 MiB by default)
   */
  async transact(compares: readonly Compare[], writes: readonly Write[]): Promise<TransactionResult> {
    const transaction = checkTransaction(compares, writes);
    const manner = {
      what: `transaction of ${compares.length} compares and ${writes.length} writes`,
      again: false,
    };
    this.#checkOpen();
    const call = this.#cluster.call(txnMethod, this.#keyspace.transaction(transaction), manner);
    this.#transactions.add(call);
    try {
      const { header, succeeded, responses } = await call;
      if (succeeded) return { committed: true, revision: this.#note(header).revision };
      const refusal = refusalOf(
        compares.flatMap(
          (compare, index) => this.#keyspace.contradiction(compare, responses[index]?.range?.kvs) ?? [],
        ),
      );
      if (!refusal) throw new NetctlError('BUG', 'etcd says that a compare failed, and shows that all hold');
      return refusal;
    } finally {
      this.#transactions.delete(call);
    }
  }

  watch(prefix: string, after: Revision, watcher: Watcher): Watch {
    checkPrefix(prefix);
    if (!Number.isSafeInteger(after) || after < 0)
      throw new NetctlError('BUG', `watch after ${after}: not a revision`);
    this.#checkOpen();
    const { clock, logger, random = Math.random } = this.#options;
    const listed = this.#listed;
    const watch: EtcdWatch = new EtcdWatch({
      cluster: this.#cluster,
      keyspace: this.#keyspace,
      prefix,
      after,
      history: this.#history,
      landmark: listed?.prefix === prefix && listed.revision === after ? listed.landmark : null,
      watcher,
      clock,
      logger,
      random,
      onClosed: () => this.#watches.delete(watch),
    });
    this.#watches.add(watch);
    return watch;
  }

  /** Kept until it is closed; to be closed before the store. */
  presence(): Presence {
    this.#checkOpen();
    const { clock, logger, random = Math.random } = this.#options;
    const parts = { cluster: this.#cluster, keyspace: this.#keyspace, clock, logger, random };
    return new EtcdPresence(parts);
  }

  /** Waits for the transactions under way (at most five seconds); watches end with STORE_UNAVAILABLE. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = new NetctlError('STORE_UNAVAILABLE', 'etcd: the store was closed', {
      outcome: 'not-sent',
    });
    await Promise.allSettled([...this.#transactions]);
    for (const watch of [...this.#watches]) watch.end(this.#closed);
    this.#cluster.close(this.#closed);
  }

  async #list(prefix: string): Promise<Snapshot> {
    const { key: start, rangeEnd } = this.#keyspace.range(prefix);
    const entries: Entry[] = [];
    let revision: Revision | undefined;
    let limit = entriesPerPage;
    for (let key = start; ; ) {
      const request = { key, rangeEnd, limit, ...(revision === undefined ? {} : { revision }) };
      let page: RangeResponse;
      try {
        page = await this.#range(request, `list of ${prefix || 'all keys'}`);
      } catch (error) {
        // gRPC takes 4 MiB at once; one entry of etcd's largest size (1.5 MiB) always fits.
        if (!(error instanceof NetctlError) || !isTooLargeToReceive(error.cause) || limit === 1) throw error;
        limit = Math.ceil(limit / 4);
        continue;
      }
      revision ??= page.header!.revision;
      for (const kv of page.kvs) entries.push(this.#keyspace.entry(kv));
      if (!page.more || page.kvs.length === 0) return { revision, entries };
      key = Buffer.concat([page.kvs.at(-1)!.key, Buffer.of(0)]);
    }
  }

  async #range(request: Given<(typeof rangeMethod)['request']>, what: string): Promise<RangeResponse> {
    this.#checkOpen();
    const answer = await this.#cluster.call(rangeMethod, request, { what, again: true });
    this.#note(answer.header);
    return answer;
  }

  #note(header: Header | null): Header {
    if (!header)
      throw new NetctlError('STORE_UNAVAILABLE', 'etcd answers without a header', { outcome: 'unknown' });
    this.#history = { clusterId: header.clusterId, raftTerm: header.raftTerm };
    return header;
  }

  #checkOpen(): void {
    if (this.#closed) throw this.#closed;
  }
}

function newest(entries: readonly Entry[]): Landmark | null {
  let found: Entry | null = null;
  for (const entry of entries) if (found === null || entry.modified > found.modified) found = entry;
  return found && { key: found.key, modified: found.modified };
}
