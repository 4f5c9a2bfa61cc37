/**
 * BGP in `netctl node status`: a line about BIRD, and a table of sessions for each family.
 *
 * In: `bgp` of the status. Out: lines for people. Never: a session left out because it is down.
 */
import type { BgpSessionItem, BgpStatus } from '../api/bgp-schemas.ts';
import type { Output } from './output.ts';
import { type Column, formatTable } from './table.ts';

const types: Readonly<Record<BgpSessionItem['type'], string>> = {
  mesh: 'node-to-node mesh',
  node: 'node specific',
  selector: 'by selector',
  global: 'global',
};

const columns: readonly Column<BgpSessionItem>[] = [
  { header: 'PEER', value: ({ peer, port }) => peerText(peer, port) },
  { header: 'NAME', value: ({ name }) => name },
  { header: 'TYPE', value: ({ type }) => types[type] },
  { header: 'AS', value: ({ asNumber }) => asNumber, alignRight: true },
  { header: 'STATE', value: ({ state }) => state },
  { header: 'SINCE', value: ({ since }) => since },
  { header: 'BFD', value: ({ bfd }) => bfd },
  { header: 'IN', value: (session) => routesOf(session, 'in'), alignRight: true },
  { header: 'OUT', value: (session) => routesOf(session, 'out'), alignRight: true },
  { header: 'LAST ERROR', value: ({ lastError }) => lastError },
];

export function printBgp(output: Output, bgp: BgpStatus): void {
  output.line(`${'BGP:'.padEnd(11)} ${summary(output, bgp)}`);
  for (const family of [4, 6] as const) {
    const sessions = bgp.sessions.filter((session) => session.family === family);
    output.line('');
    if (sessions.length === 0) {
      output.line(`IPv${family} BGP: no peers`);
      continue;
    }
    output.line(`IPv${family} BGP:`);
    for (const line of formatTable(sessions, columns, (text) => output.paint('bold', text)))
      output.line(`  ${line}`);
  }
}

function summary(output: Output, { bird, inSync, sessions, announced }: BgpStatus): string {
  const up = sessions.filter(({ state }) => state === 'Established').length;
  const counts = `${up} of ${sessions.length} sessions established, ${announced.ipv4} IPv4 and ${announced.ipv6} IPv6 prefixes announced`;
  if (bird === null) return sessions.length === 0 ? 'no peers' : output.paint('red', 'BIRD does not run');
  const sync = inSync ? output.paint('green', 'in sync') : output.paint('red', 'not in sync');
  const state = bird.recovering ? `${sync}, recovering after a restart` : sync;
  return `BIRD ${bird.version}, process ${bird.pid ?? 'not known'}, ${state}, ${counts}`;
}

/** The port only where it is not the one of BGP. */
function peerText(peer: string, port: number): string {
  if (port === 179) return peer;
  return peer.includes(':') ? `[${peer}]:${port}` : `${peer}:${port}`;
}

/** Of both families where the session carries both. */
function routesOf({ routes: { ipv4, ipv6 } }: BgpSessionItem, way: 'in' | 'out'): string | null {
  const counts = [ipv4, ipv6].flatMap((routes) => (routes === null ? [] : [routes[way]]));
  return counts.length === 0 ? null : counts.join('+');
}
