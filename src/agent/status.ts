/**
 * The agent's status, as the API shows it, out of what its parts say.
 *
 * In: values. Out: one value, times as RFC 3339. Never: a decision taken from it.
 */
import type { PolicyStatus } from '../dataplane/policy-dataplane.ts';
import type { PresenceStatus, ReplicationStatus, Revision } from '../store/store.ts';
import type { SyncStatus } from '../store/syncer.ts';

export interface Replication extends ReplicationStatus {
  readonly lease: PresenceStatus;
}

interface Facts {
  readonly version: string;
  readonly startedAt: Date;
  readonly storeType: string;
  readonly sync: SyncStatus;
  readonly revision: Revision;
  /** null for a host alone. */
  readonly replication: Replication | null;
  /** Why the disk did not take the last change; null when it did. */
  readonly refusal: string | null;
  readonly policy: PolicyStatus & { readonly reason: string | null };
  /** The variant of iptables on this host. */
  readonly iptables: 'nft' | 'legacy';
  readonly endpoints: number;
  /** Endpoints that could not be repaired, with the reason. */
  readonly missing: ReadonlyMap<string, string>;
  /** Records that cannot be read, with the reason. */
  readonly broken: ReadonlyMap<string, string>;
  readonly heldLinks: readonly string[];
  /** That changes of policy have cut. */
  readonly flushedConnections: number;
}

export function agentStatus(facts: Facts) {
  const { version, startedAt, sync, policy, replication } = facts;
  return {
    agent: { version, startedAt: startedAt.toISOString(), pid: process.pid },
    store: {
      type: facts.storeType,
      inSync: sync.inSync,
      since: sync.inSync ? null : new Date(sync.since).toISOString(),
      error: sync.inSync ? null : sync.reason,
      revision: facts.revision,
      refusal: facts.refusal,
      cluster: replication === null ? null : clusterStatus(replication),
    },
    policy: {
      backend: policy.backend,
      reason: policy.reason,
      iptables: facts.iptables,
      inSync: policy.inSync,
      error: policy.lastError,
      notices: policy.notices,
      lastRepair: policy.lastRepair && {
        at: new Date(policy.lastRepair.at).toISOString(),
        what: policy.lastRepair.what,
      },
      counters: { ...policy.writes, flushedConnections: facts.flushedConnections },
    },
    endpoints: {
      total: facts.endpoints,
      unhealthy: [...facts.missing].map(([endpoint, reason]) => ({ endpoint, reason })),
    },
    records: { broken: [...facts.broken].map(([key, reason]) => ({ key, reason })) },
    guard: {
      held: facts.heldLinks.map((what) => ({
        what,
        reason:
          'the store does not know this link, nor most others: start netctld with --confirm-mass-deletion to remove them',
      })),
    },
  };
}

function clusterStatus({
  clusterReachable,
  since,
  error,
  held,
  waiting,
  oldest,
  dropped,
  lease,
}: Replication) {
  const time = (milliseconds: number | null): string | null =>
    milliseconds === null ? null : new Date(milliseconds).toISOString();
  return {
    reachable: clusterReachable,
    since: time(since),
    error,
    held,
    waiting,
    oldest: time(oldest),
    dropped,
    lease: { ...lease, since: new Date(lease.since).toISOString() },
  };
}
