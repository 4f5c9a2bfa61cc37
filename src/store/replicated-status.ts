/**
 * How the replication stands, for people.
 *
 * In: session, sender and outbox of a replicated store, and what its connection says. Out: since when what is wrong, and how much waits.
 * Never: a connection that works called a cluster that answers.
 */
import type { Outbox } from './replicated-outbox.ts';
import type { Sender } from './replicated-sender.ts';
import type { Session } from './replicated-session.ts';
import type { ReplicationStatus } from './store.ts';

/** The connection to the cluster, as its adapter sees it. */
export interface ConnectionStatus {
  readonly connected: boolean;
  /** Milliseconds since 1970. */
  readonly since: number;
  readonly error: string | null;
}

/** @param forgotten changes that are compared instead of sent @param connection null where the adapter does not say */
export function replicationStatus(
  { sync, mode }: Session,
  { fault }: Sender,
  outbox: Outbox,
  forgotten: number,
  connection: ConnectionStatus | null,
): ReplicationStatus {
  const lost = connection === null || connection.connected ? fault : (fault ?? connection);
  const problem = sync.inSync ? lost : { since: sync.since, error: sync.reason };
  return {
    clusterReachable: problem === null,
    since: problem?.since ?? null,
    error: problem?.error ?? null,
    held: mode.kind === 'held' ? mode.reason : null,
    waiting: outbox.size + forgotten,
    oldest: outbox.oldest,
    dropped: outbox.dropped,
  };
}
