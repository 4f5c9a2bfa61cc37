/**
 * `make bench`: what TCP costs from a container of one host to one of another, both on one bridge: macvlan and routed, with the policy of an
 * agent and without any.
 *
 *     with policy     netctl's agent and plugin; the 25th of 30 rules each way decides
 *     without         Debian's reference plugins `macvlan` and `ptp`, on hosts without an agent
 *
 * In: a finished build, inside scripts/sandbox. Out: CPU time of the whole path (tcp-cost.c), and ratios, which are medians of rounds in which all
 * paths were measured in random order. Never: a policy measured that was not seen to refuse a port that no rule allows.
 */
import { resolve } from 'node:path';
import { type Conflist, Container } from '../lab/container.ts';
import { Host } from '../lab/host.ts';
import { mustRun } from '../lab/run.ts';
import { pairedRatio, printTable, quantile } from './statistics.ts';

const ROUNDS = 25;
const ROUND_TRIPS = 1500;
const CONNECTIONS = 150;
const MEBIBYTES = 16;
const PORT = 5000;
const bridge = 'wire0';
const tcpCost = resolve(import.meta.dirname, '../dist/bench/tcp-cost');

/** Numbers of the hosts, which are in all addresses of theirs. */
const withAgent = [1, 2] as const;
const without = [3, 4] as const;

interface Path {
  readonly name: string;
  readonly hosts: readonly [number, number];
  readonly network: (host: number) => Conflist;
  readonly hasPolicy: boolean;
}

const plugin = (name: string, words: Readonly<Record<string, unknown>>): Conflist => ({
  cniVersion: '1.0.0',
  name,
  plugins: [words],
});
/** host-local gives the first address of the range. */
const reference = (subnet: string, first: string): object => ({
  type: 'host-local',
  ranges: [[{ subnet, rangeStart: first }]],
  routes: [{ dst: '0.0.0.0/0' }],
  dataDir: '/run/host-local',
});
const paths: readonly Path[] = [
  {
    name: 'macvlan',
    hosts: without,
    network: (host) =>
      plugin(`wire${host}`, {
        type: 'macvlan',
        master: 'eth0',
        ipam: reference('10.67.0.0/24', `10.67.0.${10 * host}`),
      }),
    hasPolicy: false,
  },
  {
    name: 'macvlan, policy',
    hosts: withAgent,
    network: () =>
      plugin('wire', { type: 'netctl', mode: 'macvlan', parent: 'eth0', pools: ['wire'], profiles: ['p'] }),
    hasPolicy: true,
  },
  {
    name: 'routed',
    hosts: without,
    network: (host) =>
      plugin(`edge${host}`, { type: 'ptp', ipam: reference(`10.64.${host}.0/24`, `10.64.${host}.10`) }),
    hasPolicy: false,
  },
  {
    name: 'routed, policy',
    hosts: withAgent,
    network: () => plugin('edge', { type: 'netctl', pools: ['routed'], profiles: ['p'] }),
    hasPolicy: true,
  },
];

const hosts = new Map<number, Host>();
const containers: Container[] = [];
try {
  await mustRun(['ip', 'link', 'add', bridge, 'up', 'type', 'bridge', 'mcast_snooping', '0']);
  for (const number of [...withAgent, ...without]) hosts.set(number, await makeHost(number));
  for (const number of withAgent) await furnish(hosts.get(number)!, number);
  for (const number of without) await hosts.get(number)!.mustExec(['sysctl', '-qw', 'net.ipv4.ip_forward=1']);
  const args: string[] = [];
  for (const [i, path] of paths.entries()) args.push(await prepare(path, i));
  const numbers = [ROUNDS, ROUND_TRIPS, CONNECTIONS, MEBIBYTES, PORT].map(String);
  tell(await mustRun([tcpCost, ...numbers, ...args], { deadlineMs: 300_000 }));
} finally {
  for (const container of containers) await container.close();
  for (const host of hosts.values()) await host.close();
}

async function makeHost(number: number): Promise<Host> {
  const host = await Host.create({ name: `b${number}`, address: `192.0.2.${number}` });
  await mustRun(['ip', 'link', 'set', `up-b${number}`, 'master', bridge]);
  for (const other of [...withAgent, ...without])
    for (const net of [`10.64.${other}.0/24`, `10.65.${other}.0/24`])
      if (other !== number) await host.mustExec(['ip', 'route', 'add', net, 'via', `192.0.2.${other}`]);
  return host;
}

async function furnish(host: Host, number: number): Promise<void> {
  await host.start(['--no-bgp']);
  await host.mustNetctl(['pool', 'add', `10.65.${number}.0/24`, '--name', 'routed']);
  await host.mustNetctl(['pool', 'add', '10.66.0.0/24', '--name', 'wire', '--kind', 'macvlan']);
  await host.mustNetctl(['profile', 'add', 'p']);
  const rules = (side: 'src' | 'dst') =>
    Array.from({ length: 30 }, (_, i) =>
      i === 24
        ? { action: 'allow', protocol: 'tcp', dst_ports: [PORT] }
        : { action: 'allow', protocol: 'tcp', [`${side}_net`]: `198.51.100.${i}/32`, dst_ports: [i + 1] },
    );
  const stdin = JSON.stringify({ id: 'p', inbound_rules: rules('src'), outbound_rules: rules('dst') });
  await host.mustNetctl(['profile', 'p', 'rule', 'update'], { stdin });
}

/** A container on each of both hosts. Returns what tcp-cost needs. */
async function prepare({ hosts: numbers, network, hasPolicy }: Path, index: number): Promise<string> {
  const ends: { container: Container; address: string }[] = [];
  for (const number of numbers) {
    const container = await Container.create(hosts.get(number)!, `c${index}-${number}`);
    containers.push(container);
    // The agents of these hosts do not know of each other.
    const call = index === 1 ? { args: `IP=10.66.0.${number}` } : {};
    const { ips } = await container.cniAdd(network(number), call);
    ends.push({ container, address: ips[0]!.address.split('/')[0]! });
  }
  const [client, server] = ends as [(typeof ends)[0], (typeof ends)[0]];
  if (hasPolicy) await mustRefuse(client.container, server);
  return `${index}=${client.container.netns},${server.container.netns},${server.address}`;
}

async function mustRefuse(
  client: Container,
  { container, address }: { container: Container; address: string },
): Promise<void> {
  await container.serve([PORT + 1]);
  const [isOpen] = await client.connect([{ address, port: PORT + 1 }], 300);
  if (isOpen) throw new Error(`${address}: a port that no rule allows was reached`);
}

function tell(printed: string): void {
  const samples = new Map<string, number[]>();
  for (const line of printed.trim().split('\n')) {
    const [index, kind, nanoseconds] = line.split(' ');
    const key = `${index} ${kind}`;
    samples.set(key, [...(samples.get(key) ?? []), Number(nanoseconds) / 1000]);
  }
  const of = (index: number, kind: 'rr' | 'crr' | 'bulk'): number[] => samples.get(`${index} ${kind}`)!;
  const median = (index: number, kind: 'rr' | 'crr' | 'bulk'): number => quantile(of(index, kind), 0.5);
  console.log(
    `TCP from a container of one host to one of another, on one bridge, ${ROUNDS} rounds, CPU time, medians`,
  );
  printTable([
    ['', 'Gbit per CPU second', 'round trip µs', 'connection µs'],
    ...paths.map(({ name }, i) => [
      name,
      ((8 * 2 ** 20) / (1000 * median(i, 'bulk'))).toFixed(1),
      median(i, 'rr').toFixed(2),
      median(i, 'crr').toFixed(1),
    ]),
  ]);
  const ratios: readonly (readonly [string, number, number])[] = [
    ['macvlan: policy / none', 1, 0],
    ['routed: policy / none', 3, 2],
    ['none: macvlan / routed', 0, 2],
    ['policy: macvlan / routed', 1, 3],
  ];
  printTable([
    ['ratio of CPU time', 'a mebibyte', 'round trip', 'connection'],
    ...ratios.map(([name, one, other]) => [
      name,
      ...(['bulk', 'rr', 'crr'] as const).map((kind) =>
        pairedRatio(of(one, kind), of(other, kind)).toFixed(2),
      ),
    ]),
  ]);
}
