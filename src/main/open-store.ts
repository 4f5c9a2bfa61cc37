/**
 * The store that the configuration asks for: the local database alone, or with etcd behind it (local first).
 *
 * In: configuration. Out: one Store for the agent, and what there is to say about replication. Never: a start that waits for
 * etcd (a host that is cut off starts with the last known picture).
 */
import { join } from 'node:path';
import type { Config } from '../agent/config.ts';
import type { Replication } from '../agent/status.ts';
import type { Clock } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { EtcdStore } from '../store/etcd.ts';
import { ReplicatedStore } from '../store/replicated.ts';
import { SqliteStore } from '../store/sqlite.ts';
import type { Presence, Store } from '../store/store.ts';
import { fileOf } from './file-of.ts';

export interface OpenStore {
  readonly store: Store;
  /** Why this host's disk did not take the last change; null when it did. */
  refusal(): string | null;
  /** null for a host alone. */
  replication(): Replication | null;
  /** To be closed before the store; null for a host alone. */
  readonly presence: Presence | null;
}

/** A container that starts has no use for what others hear of it in less; etcd is asked once for all that come in this time. */
const gatherMilliseconds = 10;

export async function openStore(config: Config, clock: Clock, logger: Logger): Promise<OpenStore> {
  const local = new SqliteStore({
    path: join(config.stateDir, 'netctl.db'),
    onFault: (error) => logger.error({ error: error.message }, 'upkeep of the local store failed'),
  });
  const refusal = (): string | null => local.refusal;
  if (config.datastore.type === 'embedded')
    return { store: local, refusal, replication: () => null, presence: null };
  const cluster = openEtcd(config.datastore, clock, logger);
  const store = await ReplicatedStore.open({
    node: config.node.name,
    local,
    cluster,
    connection: () => cluster.status(),
    clock,
    logger,
    gatherMilliseconds,
    acceptCluster: config.dataplane.confirmMassDeletion,
    onLostClaims: (lost) =>
      logger.error(
        { ...lost },
        'claims of this node are gone from the cluster: their endpoints are torn down',
      ),
  });
  const presence = cluster.presence();
  return { store, refusal, presence, replication: () => ({ ...store.status(), lease: presence.status() }) };
}

function openEtcd(datastore: Config['datastore'], clock: Clock, logger: Logger): EtcdStore {
  const { endpoints, prefix, username, passwordFile } = datastore;
  return new EtcdStore({
    endpoints,
    prefix,
    clock,
    logger,
    ...(endpoints.some((endpoint) => endpoint.startsWith('https:')) ? { tls: tlsFiles(datastore) } : {}),
    ...(username === null ? {} : { username }),
    ...(passwordFile === null
      ? {}
      : { password: fileOf('datastore.passwordFile', passwordFile, 'a file').toString('utf8').trimEnd() }),
  });
}

function tlsFiles({ ca, cert, key }: Config['datastore']) {
  return {
    ...(ca === null ? {} : { ca: fileOf('datastore.ca', ca) }),
    ...(cert === null ? {} : { cert: fileOf('datastore.cert', cert) }),
    ...(key === null ? {} : { key: fileOf('datastore.key', key) }),
  };
}
