/**
 * Whether a running BIRD has the sessions that it should have, and announces what it should.
 *
 * In: the configuration, what `show protocols all` says, what the kernel holds. Out: every difference, a sentence each. Never: a session that is not established
 * as a difference: BIRD has it, and its peer may be away.
 */
import { type Cidr, cidrBase, cidrContains, type Family, families, prefixLength } from '../model/ip.ts';
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

/**
 * Whether what the kernel holds for the other hosts has come to BIRD, and from there to every peer.
 * @param announced prefixes of the kernel with the protocol for it
 * @param learned how many routes BIRD has from the kernel; with a next hop behind a router others are among them
 */
export function compareAnnounced(
  wanted: BgpConfig,
  announced: readonly Cidr[],
  learned: Readonly<Record<Family, number>>,
  running: readonly RunningSession[],
): string[] {
  return families.flatMap((family) => {
    const count = announced.filter((prefix) => isInside(wanted.pools[family], prefix)).length;
    const known = learned[family];
    const isMissed = wanted.isRouted[family] ? known < count : known !== count;
    if (isMissed) return [`IPv${family}: ${count} prefixes are to be announced, BIRD knows of ${known}`];
    return wanted.sessions.flatMap((session) => {
      // What a filter lets through, or what others announced, is not known here.
      if (session.exportFilters.length > 0 || session.passesOn) return [];
      const { state, channels } = running.find(({ protocol }) => protocol === session.protocol) ?? {};
      const channel = channels?.find((each) => each.family === family);
      if (state !== 'Established' || channel === undefined || channel.exported === count) return [];
      return [`${nameOf(session)}: ${channel.exported} of ${count} IPv${family} prefixes announced`];
    });
  });
}

function isInside(pools: readonly Cidr[], prefix: Cidr): boolean {
  return pools.some(
    (pool) => prefixLength(pool) <= prefixLength(prefix) && cidrContains(pool, cidrBase(prefix)),
  );
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
