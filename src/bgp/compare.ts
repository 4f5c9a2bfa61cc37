/**
 * Whether a running BIRD has the sessions that it should have.
 *
 * In: the configuration, what `show protocols all` says. Out: every difference, a sentence each. Never: a session that is not established
 * as a difference: BIRD has it, and its peer may be away.
 */
import type { Family } from '../model/ip.ts';
import type { BgpConfig, BgpSession } from './config.ts';
import type { RunningSession } from './running.ts';

export function compareSessions(wanted: BgpConfig, running: readonly RunningSession[]): string[] {
  const found = new Map(running.map((session) => [session.protocol, session]));
  const differences = wanted.sessions.flatMap((session) => {
    const other = found.get(session.protocol);
    found.delete(session.protocol);
    return other === undefined
      ? [`${nameOf(session)}: BIRD does not have it`]
      : differencesOf(session, other);
  });
  const surplus = [...found.values()].map(
    ({ protocol, address }) =>
      `session ${protocol} with ${address ?? 'nobody'}: BIRD has it, and nothing asks for it`,
  );
  return [...differences, ...surplus];
}

function differencesOf(session: BgpSession, running: RunningSession): string[] {
  const compared: [string, unknown, unknown][] = [
    ['the address', running.address, session.address],
    ['the AS', running.asNumber, session.asNumber],
    ['our own AS', running.localAsNumber, session.localAsNumber],
    ['what it carries', carried(running.channels.map(({ family }) => family)), carried(session.families)],
  ];
  return compared
    .filter(([, is, shouldBe]) => is !== shouldBe)
    .map(
      ([what, is, shouldBe]) => `${nameOf(session)}: ${what} is ${is ?? 'not known'} instead of ${shouldBe}`,
    );
}

function carried(families: readonly Family[]): string {
  return families
    .toSorted((a, b) => a - b)
    .map((family) => `IPv${family}`)
    .join(' and ');
}

function nameOf({ address, node, peer }: BgpSession): string {
  return `session with ${address} (${node ?? peer})`;
}
