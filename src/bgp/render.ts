/**
 * BIRD's configuration as text (BIRD 2.0, "Configuration" of its manual).
 *
 * In: `BgpConfig`. Out: the text, with a constant `netctl_stamp` made of the rest of it, by which a running BIRD can be asked what it
 * has read. Never: a route announced that the kernel does not hold with protocol 111 within a pool; a name of a user outside a
 * comment; a string that its parser in src/model has not passed.
 */
import { createHash } from 'node:crypto';
import { announcedProtocol } from '../linux/route-protocols.ts';
import { type Cidr, type Family, families } from '../model/ip.ts';
import type { BgpConfig, BgpSession } from './config.ts';
import { exportFilter, filterFunction, importFilter } from './render-filter.ts';

/**
 * Of what BIRD writes into the kernel. For IPv6 above the kernel's own default of 1024: a route of the host itself, to a container or
 * by hand, wins over one that a peer announces, as it does for IPv4 with the kernel's default of 0.
 */
const metric: Readonly<Record<Family, number>> = { 4: 32, 6: 2048 };
/** Of what this host announces: above BGP's 100, so that no peer can take it over. */
const ownPreference = 200;

export function renderBird(config: BgpConfig): string {
  const used = families.filter((family) => isUsed(config, family));
  const body = [
    `router id ${config.routerId};`,
    'timeformat protocol iso long;',
    // Without the trace of sessions, which the agent follows over the control socket.
    'log syslog { info, remote, warning, error, auth, fatal, bug };',
    // Seconds to wait after a restart for peers that may be gone.
    `graceful restart wait ${config.gracefulRestartSeconds};`,
    'protocol device { scan time 10; }',
    ...used.flatMap((family) => kernelLines(config, family)),
    ...used.flatMap((family) => (config.isRouted[family] ? directLines(family) : [])),
    ...bfdLines(config),
    ...used.flatMap((family) => config.filters.flatMap((filter) => filterFunction(filter, family))),
    ...sessionLines(config),
    '',
  ].join('\n');
  const stamp = createHash('sha256').update(body).digest('hex').slice(0, 32);
  return `# Written by netctl; changes are lost.\ndefine netctl_stamp = "${stamp}";\n${body}`;
}

/** The stamp in a text that `renderBird` made; null in any other. */
export function stampOf(text: string): string | null {
  return /^define netctl_stamp = "([0-9a-f]{32})";$/m.exec(text)?.[1] ?? null;
}

function isUsed({ pools, sessions }: BgpConfig, family: Family): boolean {
  return pools[family].length > 0 || sessions.some((session) => session.families.includes(family));
}

/** Learns what to announce, writes what peers announced. */
function kernelLines({ pools, isRouted }: BgpConfig, family: Family): string[] {
  return [
    ...poolFunction(pools[family], family),
    `function is_own${family}() { return source = RTS_INHERIT && krt_source = ${announcedProtocol} && in_pools${family}(); }`,
    `protocol kernel kernel${family} {`,
    '  learn; persist; graceful restart; merge paths on; scan time 20;',
    // With the system's 200 kB a few hundred routes at once are lost, and wait for the next scan.
    '  netlink rx buffer 67108864;',
    `  metric ${metric[family]};`,
    `  ipv${family} {`,
    '    import filter {',
    `      if krt_source = ${announcedProtocol} && in_pools${family}() then { preference = ${ownPreference}; accept; }`,
    // Routes of the host show the way to next hops behind routers; they are announced to nobody.
    ...(isRouted[family] ? [`      if ! in_pools${family}() then accept;`] : []),
    '      reject;',
    '    };',
    '    export where source = RTS_BGP && dest = RTD_UNICAST;',
    '  };',
    '}',
  ];
}

function poolFunction(pools: readonly Cidr[], family: Family): string[] {
  if (pools.length === 0) return [`function in_pools${family}() { return false; }`];
  return [`function in_pools${family}() { return net ~ [ ${pools.map((pool) => `${pool}+`).join(', ')} ]; }`];
}

/** The networks that the host is on. */
function directLines(family: Family): string[] {
  return [`protocol direct direct${family} { ipv${family}; interface -"nctl*", "*"; }`];
}

function bfdLines({ sessions, bfd }: BgpConfig): string[] {
  if (!sessions.some((session) => session.bfd !== null)) return [];
  const timers = `{ interval ${bfd.intervalMilliseconds} ms; multiplier ${bfd.multiplier}; }`;
  return ['protocol bfd bfd1 {', `  interface "*" ${timers};`, `  multihop ${timers};`, '}'];
}

/** What sessions have in common stands once, as a template: with 100 peers of one kind, a line each. */
function sessionLines(config: BgpConfig): string[] {
  const templates = new Map<string, string>();
  const lines: string[] = [];
  for (const session of config.sessions) {
    const common = commonLines(session, config).join('\n');
    const template = templates.get(common) ?? `peer${templates.size + 1}`;
    if (!templates.has(common)) {
      templates.set(common, template);
      lines.push(`template bgp ${template} {`, common, '}');
    }
    const { protocol, address, port, asNumber, passive } = session;
    const neighbor = `neighbor ${address} port ${port} as ${asNumber};`;
    lines.push(
      `protocol bgp ${protocol} from ${template} { ${neighbor}${passive ? ' passive on;' : ''} } # ${session.node ?? session.peer}`,
    );
  }
  return lines;
}

function commonLines(session: BgpSession, config: BgpConfig): string[] {
  const { localAddress, localPort, localAsNumber, holdSeconds, keepaliveSeconds, bfd, clientOf } = session;
  return [
    `  local ${localAddress} port ${localPort} as ${localAsNumber};`,
    ...reachLines(session),
    `  hold time ${holdSeconds};${keepaliveSeconds === null ? '' : ` keepalive time ${keepaliveSeconds};`}`,
    // The agent tells a dead host from a restarting BIRD by the order of events.
    '  debug { states, events };',
    // BIRD's own waits are minutes.
    `  connect delay time ${connectDelaySeconds(session, config)}; connect retry time 1; error wait time 1, 2;`,
    `  graceful restart on; graceful restart time ${config.gracefulRestartSeconds}; long lived graceful restart off;`,
    ...(session.password === null ? [] : [`  password "${session.password}";`]),
    ...(bfd === null ? [] : [`  bfd ${bfd};`]),
    ...(session.allowOwnAsNumbers === 0 ? [] : [`  allow local as ${session.allowOwnAsNumbers};`]),
    ...(clientOf === null ? [] : [`  rr client; rr cluster id ${clientOf};`]),
    ...session.families.flatMap((family) => channelLines(session, config, family)),
  ];
}

/**
 * A BIRD that was killed must not be connected again before the peer's BFD has missed it: that would begin a graceful restart within a
 * graceful restart, which ends both and takes the routes away. BIRD waits 3/4 of the delay at least.
 */
function connectDelaySeconds(session: BgpSession, { bfd }: BgpConfig): number {
  if (session.bfd === null) return 1;
  const missedSeconds = (bfd.intervalMilliseconds * bfd.multiplier) / 1000;
  return Math.ceil(((missedSeconds + 0.4) * 4) / 3);
}

function reachLines({ multihop, ttlSecurityHops }: BgpSession): string[] {
  if (ttlSecurityHops === null) return [multihop ? '  multihop;' : '  direct;'];
  return [`  ${ttlSecurityHops > 1 ? `multihop ${ttlSecurityHops}` : 'direct'}; ttl security on;`];
}

function channelLines(session: BgpSession, { isRouted }: BgpConfig, family: Family): string[] {
  const { nextHop, maxPrefixes, extendedNextHop } = session;
  return [
    `  ipv${family} {`,
    ...(extendedNextHop && family === 4 ? ['    extended next hop on;'] : []),
    ...(nextHop === null ? [] : [`    next hop ${nextHop};`]),
    ...(isRouted[family] ? ['    gateway recursive;'] : []),
    ...(maxPrefixes === null ? [] : [`    import limit ${maxPrefixes} action restart;`]),
    importFilter(session, family),
    exportFilter(session, family),
    '  };',
  ];
}
