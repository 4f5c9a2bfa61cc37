/**
 * What an agent says about itself: plain types, and the one judgement of what "healthy" means.
 *
 * In: what the agent's parts report. Out: the answer of `GET /v1/status`, with every reason why the host is not healthy
 * as a sentence. Never: a decision about traffic taken from it.
 */

import type { BgpStatus } from './bgp-schemas.ts';

export interface AgentStatus {
  readonly agent: { readonly version: string; readonly startedAt: string; readonly pid: number };
  readonly store: {
    /** `embedded` or `etcd`. */
    readonly type: string;
    readonly inSync: boolean;
    /** RFC 3339; since when `inSync` is what it is. */
    readonly since: string | null;
    readonly error: string | null;
    readonly revision: number;
    /** Why the disk of this host did not take the last change; null when it did. */
    readonly refusal: string | null;
    /** How it stands with the cluster; null for a host alone. */
    readonly cluster: {
      readonly reachable: boolean;
      /** RFC 3339; since when it has not been. */
      readonly since: string | null;
      readonly error: string | null;
      /** Why nothing is taken over from a cluster that answers. */
      readonly held: string | null;
      /** Changes of this node that the cluster does not have yet, and since when the first of them. */
      readonly waiting: number;
      readonly oldest: string | null;
      /** Changes of this node that are lost, since the agent started: their blocks were taken from it while it was cut off. */
      readonly dropped: number;
      /** What tells the other hosts that this agent lives. */
      readonly lease: { readonly held: boolean; readonly since: string; readonly error: string | null };
    } | null;
  };
  readonly policy: {
    /** `nftables`, `iptables-nft` or `iptables-legacy`. */
    readonly backend: string;
    /** Why it is that one. */
    readonly reason: string | null;
    /** The variant of iptables on this host: `nft` or `legacy`. */
    readonly iptables: string;
    readonly inSync: boolean;
    /** What of others stands before ours or drops what we accept; not a fault of this host's agent. */
    readonly notices: readonly string[];
    /** What others had changed of ours, the last time that it was put right. */
    readonly lastRepair: { readonly at: string; readonly what: readonly string[] } | null;
    readonly error: string | null;
    readonly counters: Readonly<Record<string, number>>;
  };
  readonly endpoints: {
    readonly total: number;
    readonly unhealthy: readonly { readonly endpoint: string; readonly reason: string }[];
  };
  /** Records of the store that are not valid: what they mean is absent, or denied where policy uses it. */
  readonly records: { readonly broken: readonly { readonly key: string; readonly reason: string }[] };
  /** What the agent would delete if it believed the store, and holds until an operator confirms. */
  readonly guard: { readonly held: readonly { readonly what: string; readonly reason: string }[] };
}

/** Why BGP is not as it should be. */
export function bgpProblems({ error, inSync, differences, problems, sessions }: BgpStatus): string[] {
  const isUnexplained = !inSync && error === null && differences.length === 0;
  return [
    ...(isUnexplained ? ['bgp: BIRD does not have its configuration yet'] : []),
    ...(error === null ? [] : [`bgp: ${error}`]),
    ...differences.map((difference) => `bgp: ${difference}`),
    ...problems.map((problem) => `bgp: ${problem}`),
    ...sessions
      .filter(({ state }) => state !== 'Established')
      .map(
        ({ name, peer, state, since, lastError }) =>
          `bgp: session with ${name} (${peer}) is ${state}${since === null ? '' : ` since ${since}`}${because(lastError)}`,
      ),
  ];
}

/** One effective setting and where it came from (`flag`, `environment`, `file`, `default`). */
export interface ConfigValue {
  readonly key: string;
  readonly value: unknown;
  readonly source: string;
}

/** Every reason why the host is not healthy; empty when it is. */
export function problemsOf(status: AgentStatus): string[] {
  const { store, policy, endpoints, records, guard } = status;
  return [
    ...(store.inSync ? [] : [`store: not in sync${because(store.error)}`]),
    ...(store.refusal === null ? [] : [`store: the last change was not taken: ${store.refusal}`]),
    ...(store.cluster === null ? [] : clusterProblems(store.cluster)),
    ...(policy.inSync ? [] : [`policy: not in sync with the kernel${because(policy.error)}`]),
    ...endpoints.unhealthy.map(({ endpoint, reason }) => `endpoint ${endpoint}: ${reason}`),
    ...records.broken.map(({ key, reason }) => `record ${key} in the store is not valid: ${reason}`),
    ...guard.held.map(({ what, reason }) => `held back: ${what}: ${reason}`),
  ];
}

function clusterProblems({
  reachable,
  since,
  error,
  held,
  waiting,
  lease,
}: NonNullable<AgentStatus['store']['cluster']>): string[] {
  const cutOff = `cluster: not reachable since ${since}${because(error)}; ${waiting} changes wait for it`;
  const unseen = `cluster: no lease since ${lease.since}${because(lease.error)}: other hosts take this agent for gone`;
  return [
    ...(reachable ? (lease.held ? [] : [unseen]) : [cutOff]),
    ...(held === null ? [] : [`cluster: held back: ${held}`]),
  ];
}

function because(error: string | null): string {
  return error === null ? '' : `: ${error}`;
}
