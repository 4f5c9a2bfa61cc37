/**
 * The state of BGP on this host, for the API: what was wanted beside what BIRD says.
 *
 * In: the reconciler's state, BIRD's values. Out: one value. Never: a wanted session left out because BIRD does not know it.
 */
import { compareAnnounced } from '../bgp/compare.ts';
import type { BgpSession } from '../bgp/config.ts';
import type { BfdSession, BirdStatus, RunningSession } from '../bgp/running.ts';
import { type Cidr, type Family, familyOf } from '../model/ip.ts';
import type { BgpState } from './bgp-reconciler.ts';

/** What BIRD answered; null where it does not run. */
export interface BirdAnswers {
  readonly status: BirdStatus;
  readonly sessions: readonly RunningSession[];
  readonly bfd: readonly BfdSession[];
  /** Routes of each family that it has from the kernel. */
  readonly learned: Readonly<Record<Family, number>>;
  readonly pid: number | null;
}

/** @param announced prefixes that the kernel holds for the other hosts */
export function bgpStatus(
  state: BgpState,
  bird: BirdAnswers | null,
  announced: readonly Cidr[],
  others: readonly number[],
) {
  const isIdle = state.wanted === null || state.wanted.sessions.length === 0;
  return {
    bird: bird === null ? null : birdOf(bird, state),
    error: state.error ?? (bird === null && !isIdle ? 'BIRD does not run' : null),
    inSync: state.inSync && (bird !== null || isIdle),
    differences: [...state.differences, ...announcedDifferences(state, bird, announced)],
    problems: [
      ...(state.wanted?.problems ?? []),
      ...others.map(
        (pid) =>
          `another BIRD runs here (process ${pid}), and each takes the other's routes out of the kernel: stop it (systemctl disable --now bird)`,
      ),
    ],
    announced: { ipv4: countOf(announced, 4), ipv6: countOf(announced, 6) },
    sessions: (state.wanted?.sessions ?? []).map((session) => sessionOf(session, bird)),
  };
}

/** Read back from BIRD, which is told by the kernel alone; while it recovers from a restart it announces nothing new. */
function announcedDifferences({ wanted }: BgpState, bird: BirdAnswers | null, announced: readonly Cidr[]) {
  if (wanted === null || bird === null || bird.status.isRecovering) return [];
  return compareAnnounced(wanted, announced, bird.learned, bird.sessions);
}

function countOf(announced: readonly Cidr[], family: Family): number {
  return announced.filter((prefix) => familyOf(prefix) === family).length;
}

function birdOf({ status, pid }: BirdAnswers, { version }: BgpState) {
  const { startedAt, configuredAt, isRecovering } = status;
  return {
    version: status.version || (version ?? ''),
    pid,
    startedAt,
    configuredAt,
    recovering: isRecovering,
  };
}

function sessionOf(session: BgpSession, bird: BirdAnswers | null) {
  const { address, port, asNumber, type } = session;
  const running = bird?.sessions.find(({ protocol }) => protocol === session.protocol);
  const routes = (family: Family) => {
    const channel = running?.channels.find((channel) => channel.family === family);
    return channel === undefined ? null : { in: channel.imported, out: channel.exported };
  };
  const bfd: 'up' | 'down' = bird?.bfd.some((other) => other.address === address && other.isUp)
    ? 'up'
    : 'down';
  return {
    peer: address,
    port,
    name: session.node ?? session.peer ?? address,
    type,
    asNumber,
    family: familyOf(address),
    state: running?.state ?? 'Missing',
    since: running?.since ?? null,
    routes: { ipv4: routes(4), ipv6: routes(6) },
    bfd: session.bfd === null ? null : bfd,
    lastError: running?.lastError ?? null,
  };
}
