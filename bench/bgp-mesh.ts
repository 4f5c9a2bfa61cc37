/**
 * 100 hosts as a mesh, and as clients of three reflectors: what every BIRD has to hold, and how long they take, with the
 * configurations that agents would give them; next to configurations written by hand on the same hosts.
 *
 * In: a namespace of the caller's own; HOSTS in the environment for another number. Out: a table. All BIRDs are started at once, and the
 * clock stops when the last kernel has the blocks of all. Never: agents' own work in a figure of BIRD's (there are none).
 */
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Machine } from '../lab/machine.ts';
import { nodeAddresses, switchCommands } from '../lab/network.ts';
import { eventually, mustRun } from '../lab/run.ts';
import { atSwitch, Station } from '../lab/station.ts';
import { compileBgp } from '../src/bgp/compile.ts';
import type { BgpConfig, BgpNode } from '../src/bgp/config.ts';
import { renderBird } from '../src/bgp/render.ts';
import { bgpPeerSchema, bgpSettingsSchema } from '../src/model/bgp.ts';
import { type Address, parseAddress, parseCidr } from '../src/model/ip.ts';
import { median, pairedRatio, printTable } from './statistics.ts';

const hosts = Number(process.env['HOSTS'] ?? 100);
const rounds = 3;
/** Of each host and family. */
const blocks = 4;

export async function benchMesh(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'mesh-'));
  const onSwitch = await Machine.boot({ name: 'switch' });
  try {
    await atSwitch(onSwitch, switchCommands());
    const all = Array.from({ length: hosts }, (_, i) => nodeAddresses(i + 1));
    const stations = all.map((addresses, i) => {
      const name = `node${i + 1}`;
      const neighbours = all.filter((one) => one !== addresses);
      return new Station({
        name,
        addresses,
        neighbours,
        directory: join(directory, name),
        onSwitch,
        machine: null,
      });
    });
    await inParallel(stations, async (station, i) => {
      await station.boot();
      const commands = Array.from({ length: blocks }, (_, b) => [
        `route replace blackhole 10.65.${i}.${64 * b}/26 proto 111\n`,
        `route replace blackhole fd00:65:0:0:${i.toString(16)}:${b}::/96 proto 111\n`,
      ]);
      await mustRun(station.command(['ip', '-batch', '-']), { stdin: commands.flat().join('') });
    });
    console.log(
      `${hosts} hosts with ${blocks} blocks of each family; BIRDs all started at once, median of ${rounds} in turns`,
    );
    const header = [
      ...['', 'sessions', 'configuration, kB', 'netctl, s', 'by hand, s', 'ratio, pair by pair'],
      ...['BIRD, MB', 'by hand, MB'],
    ];
    // One by one: who ends it early has what was measured by then.
    for (const [reflectors, bfd] of [
      [0, false],
      [3, false],
      [3, true],
    ] as const)
      printTable([header, await measure(stations, reflectors, bfd)]);
  } finally {
    await onSwitch.kill();
    await rm(directory, { recursive: true });
  }
}

async function measure(stations: readonly Station[], reflectors: number, bfd: boolean): Promise<string[]> {
  const configs = configsOf(stations, reflectors, bfd);
  const last = stations.at(-1)!;
  const ours = configs.map(renderBird);
  const hand = ours.map(byHand);
  const seconds: [ours: number[], hand: number[]] = [[], []];
  const mb: [ours: number, hand: number] = [0, 0];
  for (let round = 0; round < rounds; round++)
    for (const who of round % 2 === 0 ? ([0, 1] as const) : ([1, 0] as const)) {
      seconds[who].push(await convergence(stations, who === 0 ? ours : hand));
      mb[who] = residentMb(last);
    }
  return [
    `${reflectors === 0 ? 'mesh' : `${reflectors} reflectors`}${bfd ? ', BFD' : ''}`,
    `${configs.at(-1)!.sessions.length}`,
    (ours.at(-1)!.length / 1000).toFixed(1),
    ...seconds.map((samples) => median(samples).toFixed(1)),
    pairedRatio(...seconds).toFixed(2),
    ...mb.map((megabytes) => megabytes.toFixed(1)),
  ];
}

/** As the agents of these hosts would have it. */
function configsOf(stations: readonly Station[], reflectors: number, bfd: boolean): BgpConfig[] {
  const nodes = new Map(
    stations.map(({ name, addresses }, i): [string, BgpNode] => [
      name,
      {
        address4: parseAddress(addresses.address4),
        address6: parseAddress(addresses.address6),
        asNumber: null,
        labels: i < reflectors ? { role: 'reflector' } : {},
        routeReflectorClusterId: i < reflectors ? ('244.0.0.1' as Address) : null,
        bgpPort: 179,
      },
    ]),
  );
  const peer = bgpPeerSchema.parse({ peerSelector: 'role == "reflector"' });
  return stations.map(({ name }) =>
    compileBgp({
      node: name,
      nodes,
      peers: new Map(reflectors > 0 ? [['reflectors', peer]] : []),
      filters: new Map(),
      settings: bgpSettingsSchema.parse({ mesh: reflectors === 0, bfd }),
      pools: [parseCidr('10.65.0.0/16'), parseCidr('fd00:65::/64')],
      isOnLink: () => true,
    }),
  );
}

/** Starts every BIRD at once; seconds until every kernel has every block. */
async function convergence(stations: readonly Station[], texts: readonly string[]): Promise<number> {
  // A process that is killed may be in the kernel for a while yet, with routes in its hands.
  const clean = [
    '[ ! -e /run/bird.pid ] || ! kill -9 $(cat /run/bird.pid) || while kill -0 $(cat /run/bird.pid); do sleep 0.02; done',
    ...['cat >/run/bird.conf', 'ip -4 route flush proto bird', 'ip -6 route flush proto bird'],
    '[ -z "$(ip -4 route show proto bird; ip -6 route show proto bird)" ]',
  ].join('\n');
  await inParallel(stations, (station, i) =>
    mustRun(station.command(['sh', '-ec', clean]), { stdin: texts[i]! }),
  );
  const before = stations.map(routesOf);
  const start = ['/usr/sbin/bird', '-c', '/run/bird.conf', '-s', '/run/bird.ctl', '-P', '/run/bird.pid'];
  const begin = performance.now();
  await inParallel(stations, (station) => mustRun(station.command(start), { deadlineMs: 120_000 }));
  const waiting = new Set(stations.keys());
  await eventually('all kernels have all blocks', 200_000, async () => {
    for (const i of waiting)
      if (routesOf(stations[i]!) >= before[i]! + 2 * blocks * (hosts - 1)) waiting.delete(i);
    return waiting.size === 0;
  });
  return (performance.now() - begin) / 1000;
}

/** In the kernel of the host, of both families; read without a program. */
function routesOf({ machine }: Station): number {
  const read = (file: string) => readFileSync(`/proc/${machine.process.pid}/net/${file}`, 'utf8');
  return Number(/Prefixes:\s+(\d+)/.exec(read('fib_triestat'))?.[1]) + read('ipv6_route').split('\n').length;
}

function residentMb(station: Station): number {
  const pid = readFileSync(station.path('/run/bird.pid'), 'utf8').trim();
  const status = readFileSync(station.path(`/proc/${pid}/status`), 'utf8');
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;
}

/** The same sessions in the plainest words: neither filters, nor graceful restart, nor names, nor the stamp. */
function byHand(ours: string): string {
  const local = new Map<string, string>();
  for (const [, template, body] of ours.matchAll(/^template bgp (\w+) \{\n(.*?)\n\}/gms))
    local.set(template!, body!);
  const sessions = [
    ...ours.matchAll(/^protocol bgp \w+ from (\w+) \{ neighbor (\S+) port (\d+) as (\d+);(.*?)\}/gm),
  ];
  const kernels = [4, 6].map(
    (family) =>
      `protocol kernel { learn; ipv${family} { import where krt_source = 111; export where source = RTS_BGP; }; }`,
  );
  return [
    /^router id .*;$/m.exec(ours)![0],
    'protocol device { }',
    ...kernels,
    ...sessions.map(([, template, address, port, as, rest]) => {
      const body = local.get(template!)!;
      const [, own] = /local (\S+) port/.exec(body)!;
      const family = address!.includes(':') ? 6 : 4;
      const client = /rr client; rr cluster id \S+;/.exec(body)?.[0] ?? '';
      const passed = client === '' ? 'source = RTS_INHERIT' : 'source = RTS_INHERIT || source = RTS_BGP';
      return `protocol bgp { local ${own} as ${as}; neighbor ${address} port ${port} as ${as};${rest} direct; ${client} connect delay time 1; connect retry time 1; ipv${family} { import all; export where ${passed}; }; }`;
    }),
    '',
  ].join('\n');
}

/** Eight at a time. */
async function inParallel(
  stations: readonly Station[],
  work: (station: Station, i: number) => Promise<unknown>,
): Promise<void> {
  const waiting = [...stations.entries()];
  const worker = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await work(next[1], next[0]);
  };
  await Promise.all(Array.from({ length: 8 }, worker));
}
