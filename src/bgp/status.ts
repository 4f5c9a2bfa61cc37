/**
 * What a running BIRD says about itself: `show status`, `show protocols all`, `show bfd sessions`.
 *
 * In: whole replies of the control socket, with `timeformat protocol iso long`. Out: values. Never: an error because a line is new: what
 * is not understood is left out.
 */
import { type Address, type Family, parseAddress } from '../model/ip.ts';
import { readReply } from './reply.ts';
import type { BfdSession, BirdStatus, ReplyLine, RunningSession } from './running.ts';

/** Codes of BIRD's replies. */
const code = {
  shuttingDown: [21, 22],
  recovering: 24,
  protocol: 1002,
  details: 1006,
  version: 1000,
  uptime: 1011,
  bfd: 1020,
} as const;

export function parseStatus(reply: string): BirdStatus {
  const lines = readReply(reply);
  const after = (words: string): string => valueAfter(lines, words) ?? '';
  return {
    version: after('BIRD '),
    routerId: after('Router ID is '),
    startedAt: timeOf(after('Last reboot on ')),
    configuredAt: timeOf(after('Last reconfiguration on ')),
    isRecovering: lines.some((line) => line.code === code.recovering),
    isShuttingDown: lines.some((line) => code.shuttingDown.includes(line.code as 21)),
  };
}

/** The BGP sessions of `show protocols all`. */
export function parseSessions(reply: string): RunningSession[] {
  return protocolsOf(reply).flatMap((row) => (row.kind === 'BGP' ? [sessionOf(row)] : []));
}

/** How many routes of each family BIRD has learned from the kernel, by `show protocols all`. */
export function parseLearned(reply: string): Record<Family, number> {
  const channels = protocolsOf(reply).flatMap((row) =>
    row.kind === 'Kernel' ? channelsOf(row.details) : [],
  );
  const of = (family: Family): number =>
    channels.filter((channel) => channel.family === family).reduce((sum, { imported }) => sum + imported, 0);
  return { 4: of(4), 6: of(6) };
}

/** A row of `show protocols all` with the lines below it. */
interface Row {
  readonly name: string;
  readonly kind: string;
  /** `up`, `start`, `down`. */
  readonly state: string;
  readonly since: string;
  /** What the protocol says of itself. */
  readonly info: string;
  readonly details: ReplyLine[];
}

function protocolsOf(reply: string): Row[] {
  const rows: Row[] = [];
  for (const line of readReply(reply)) {
    if (line.code === code.details) rows.at(-1)?.details.push(line);
    if (line.code !== code.protocol) continue;
    const [, name, kind, state, since, info] =
      /^(\S+)\s+(\S+)\s+\S+\s+(\S+)\s+(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\S*\s*(.*)$/.exec(line.text) ?? [];
    rows.push({
      name: name ?? '',
      kind: kind ?? '',
      state: state ?? '',
      since: since ?? '',
      info: info ?? '',
      details: [],
    });
  }
  return rows;
}

function sessionOf({ name, state: protocolState, since, info, details }: Row): RunningSession {
  const own = details.slice(0, indexOfChannel(details, 0));
  const state = valueAfter(own, 'BGP state:');
  return {
    protocol: name,
    state: state ?? (protocolState === 'down' ? 'Down' : (info.split(' ')[0] ?? '')),
    since: timeOf(since),
    lastError: valueAfter(own, 'Last error:'),
    address: addressOf(valueAfter(own, 'Neighbor address:')),
    asNumber: numberOf(valueAfter(own, 'Neighbor AS:')),
    localAsNumber: numberOf(valueAfter(own, 'Local AS:')),
    channels: channelsOf(details),
  };
}

function channelsOf(details: readonly ReplyLine[]): RunningSession['channels'] {
  const channels: RunningSession['channels'][number][] = [];
  for (let at = indexOfChannel(details, 0); at < details.length; ) {
    const end = indexOfChannel(details, at + 1);
    const lines = details.slice(at, end);
    const family = lines[0]?.text.trim() === 'Channel ipv4' ? 4 : 6;
    const [, imported, exported] =
      /(\d+) imported,(?: \d+ filtered,)? (\d+) exported/.exec(valueAfter(lines, 'Routes:') ?? '') ?? [];
    channels.push({
      family,
      isUp: valueAfter(lines, 'State:') === 'UP',
      imported: Number(imported ?? 0),
      exported: Number(exported ?? 0),
    });
    at = end;
  }
  return channels;
}

function indexOfChannel(details: readonly ReplyLine[], from: number): number {
  const at = details.findIndex(({ text }, i) => i >= from && /^\s*Channel ipv[46]$/.test(text));
  return at < 0 ? details.length : at;
}

/** Of `show bfd sessions`. */
export function parseBfdSessions(reply: string): BfdSession[] {
  return readReply(reply).flatMap(({ code: lineCode, text }) => {
    const row = /^\s*([0-9a-f.:]+)\s+(\S+)\s+(\S+)\s+(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)/.exec(text);
    const address = lineCode === code.bfd ? addressOf(row?.[1] ?? null) : null;
    if (row === null || address === null) return [];
    return [{ address, interface: row[2]!, isUp: row[3] === 'Up', since: timeOf(row[4]!) }];
  });
}

function valueAfter(lines: readonly ReplyLine[], words: string): string | null {
  for (const { text } of lines) {
    const trimmed = text.trim();
    if (trimmed.startsWith(words)) return trimmed.slice(words.length).trim();
  }
  return null;
}

/** BIRD's clock is the host's local time; RFC 3339, or the text as it is. */
function timeOf(text: string): string {
  const date = new Date(text.replace(' ', 'T'));
  return Number.isNaN(date.getTime()) ? text : date.toISOString();
}

function numberOf(text: string | null): number | null {
  return text !== null && /^\d+$/.test(text) ? Number(text) : null;
}

function addressOf(text: string | null): Address | null {
  try {
    return text === null ? null : parseAddress(text.split('%')[0], 'address');
  } catch {
    return null;
  }
}
