/**
 * The state of BGP on this host, for the API: what was wanted beside what BIRD says.
 *
 * In: the reconciler's state, BIRD's values. Out: one value. Never: a wanted session left out because BIRD does not know it.
 */
import type { BgpSession } from '../bgp/config.ts';
import type { BfdSession, BirdStatus, RunningSession } from '../bgp/running.ts';
import { type Family, familyOf } from '../model/ip.ts';
import type { BgpState } from './bgp-reconciler.ts';

/** What BIRD answered; null where it does not run. */
export interface BirdAnswers {
  readonly status: BirdStatus;
  readonly sessions: readonly RunningSession[];
  readonly bfd: readonly BfdSession[];
  readonly pid: number | null;
}

export function bgpStatus(
  state: BgpState,
  bird: BirdAnswers | null,
  announced: { readonly ipv4: number; readonly ipv6: number },
  others: readonly number[],
) {
  const isIdle = state.wanted === null || state.wanted.sessions.length === 0;
  return {
    bird: bird === null ? null : birdOf(bird, state),
    error: state.error ?? (bird === null && !isIdle ? 'BIRD does not run' : null),
    inSync: state.inSync && (bird !== null || isIdle),
    differences: [...state.differences],
    problems: [
      ...(state.wanted?.problems ?? []),
      ...others.map(
        (pid) =>
          `another BIRD runs here (process ${pid}), and each takes the other's routes out of the kernel: stop it (systemctl disable --now bird)`,
      ),
    ],
    announced,
    sessions: (state.wanted?.sessions ?? []).map((session) => sessionOf(session, bird)),
  };
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
