/**
 * How the replication stands, for people.
 *
 * In: session, sender and outbox of a replicated store, and what its connection says. Out: since when what is wrong, and how much waits.
 * Never: a connection that works called a cluster that answers.
 */
import type { Outbox } from './replicated-outbox.ts';
import type { Sender } from './replicated-sender.ts';
import type { Session } from './replicated-session.ts';

export interface ReplicationStatus {
  readonly clusterReachable: boolean;
  /** Milliseconds since 1970 from when on it has not been; null while it is. */
  readonly since: number | null;
  readonly error: string | null;
  /** Why nothing is taken over from the cluster although it answers; an operator has to decide. */
  readonly held: string | null;
  /** Local transactions that the cluster does not have yet. */
  readonly waiting: number;
  /** Milliseconds since 1970, of the first of them. */
  readonly oldest: number | null;
  /** Changes of this process that the cluster will never have: their blocks were taken from this node meanwhile. */
  readonly dropped: number;
}

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
