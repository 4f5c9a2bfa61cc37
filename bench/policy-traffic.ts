/**
 * What policy costs TCP between two containers of one host: round trips on an open connection, and new connections, in CPU time of
 * the whole path (tcp-cost.c), for our layouts, for Felix's, and for one rule that accepts what connection tracking knows (the
 * floor of anything that tracks connections).
 *
 * In: a finished build, inside scripts/sandbox. Out: a table; ratios are medians of rounds in which all paths were measured in random
 * order, on several hosts with the same rules: where the kernel happens to put its tables makes half a percent. Never: a layout that was not seen to refuse a port that no rule allows.
 */
import { resolve } from 'node:path';
import { mustRun, run } from '../lab/run.ts';
import { hostInterfaceIndex } from '../src/model/attachment.ts';
import { felix2015, felixIptables, felixNftables, felixSets } from './felix.ts';
import type { Order } from './policy-process.ts';
import { addressOf, interfaceOf, makeWorld, servedPort, type World } from './policy-world.ts';
import { pairedRatio, printTable, quantile } from './statistics.ts';

/** Hosts for each path. */
const HOSTS = 3;
const ROUNDS = 15;
const ROUND_TRIPS = 1500;
const CONNECTIONS = 150;
const HOST_MAC = '02:00:00:00:00:01';
const tcpCost = resolve(import.meta.dirname, '../dist/bench/tcp-cost');
const policyProcess = resolve(import.meta.dirname, 'policy-process.ts');

interface Path {
  readonly name: string;
  readonly endpoints: number;
  /** Puts the rules into the host's namespace. */
  load(netns: string, world: World): Promise<void>;
}

/** Ten endpoints share a list of three profiles. */
const orderFor = (endpoints: number): Omit<Order, 'backend'> => ({
  endpoints,
  lists: endpoints / 10,
  members: 10,
  nat: false,
});
const nothing: Path = {
  name: 'no rules, no connection tracking',
  endpoints: 10,
  load: async () => undefined,
};
const floor: Path = {
  name: 'floor: one rule, accept what is known',
  endpoints: 10,
  load: (netns) =>
    inside(
      netns,
      ['nft', '-f', '-'],
      'table ip floor { chain forward { type filter hook forward priority 0; ct state established,related accept; }; }',
    ),
};
const nftables1000 = ours('nftables', 1000);
const everything = ours('nftables', 1000, { nat: true }, ', NAT pool');
const largeSets = ours('nftables', 1000, { members: 10_000 }, ', tags of 10,000 members');
const felixNft = felix('Felix, nftables', 1000, (world) => felixNftables(world, false), ['nft', '-f', '-']);
const felixNftNat = felix('Felix, nftables, NAT pool', 1000, (world) => felixNftables(world, true), [
  'nft',
  '-f',
  '-',
]);
const felixLegacy = felix('Felix, iptables-legacy', 1000, (world) => felixIptables(world, false), [
  'iptables-legacy-restore',
]);
const felixIptNft = felix('Felix, iptables-nft', 1000, (world) => felixIptables(world, false), [
  'iptables-nft-restore',
]);
const legacy1000 = ours('iptables-legacy', 1000);
const iptNft1000 = ours('iptables-nft', 1000);
const nftables10 = ours('nftables', 10);
const paths: readonly Path[] = [
  nothing,
  floor,
  nftables10,
  ours('nftables', 100),
  nftables1000,
  largeSets,
  everything,
  ours('iptables-legacy', 10),
  legacy1000,
  ours('iptables-nft', 10),
  iptNft1000,
  felix('Felix, nftables', 10, (world) => felixNftables(world, false), ['nft', '-f', '-']),
  felixNft,
  felixNftNat,
  felixLegacy,
  felixIptNft,
  felix('Felix of 2015, iptables-legacy', 10, felix2015, ['iptables-legacy-restore']),
  felix('Felix of 2015, iptables-legacy', 1000, felix2015, ['iptables-legacy-restore']),
];
/** [ours, theirs, aim for round trips, aim for new connections] */
const aims: readonly (readonly [Path, Path, number, number])[] = [
  [nftables1000, floor, 1.02, 1.05],
  [nftables1000, felixNft, 0.8, 0.8],
  [everything, felixNftNat, 0.85, 0.85],
  [nftables1000, nftables10, 1.02, 1.02],
  [largeSets, nftables1000, 1.02, 1.02],
  [legacy1000, felixLegacy, 0.85, 0.85],
  [iptNft1000, felixIptNft, 0.85, 0.85],
];

export async function benchTraffic(): Promise<void> {
  const args: string[] = [];
  for (let host = 0; host < HOSTS; host++)
    for (const [i, path] of paths.entries()) args.push(await prepare(path, `${i}.${host}`));
  const numbers = [ROUNDS, ROUND_TRIPS, CONNECTIONS, 0, servedPort].map(String);
  const printed = await mustRun([tcpCost, ...numbers, ...args], { deadlineMs: 300_000 });
  const samples = new Map<string, number[]>();
  for (const line of printed.trim().split('\n')) {
    const [id, kind, nanoseconds] = line.split(' ');
    const key = `${id} ${kind}`;
    samples.set(key, [...(samples.get(key) ?? []), Number(nanoseconds) / 1000]);
  }
  const of = (path: Path, kind: 'rr' | 'crr'): number[] =>
    Array.from({ length: HOSTS }, (_, host) => samples.get(`${paths.indexOf(path)}.${host} ${kind}`)!).flat();
  console.log(
    `Between two containers of a host, match at the 25th of 30 rules each way, ${ROUNDS} rounds on ${HOSTS} hosts each, CPU time, medians`,
  );
  const ratio = (path: Path, kind: 'rr' | 'crr'): string =>
    pairedRatio(of(path, kind), of(floor, kind)).toFixed(3);
  printTable([
    ['', 'endpoints', 'round trip µs', '× floor', 'connection µs', '× floor'],
    ...paths.map((path) => [
      path.name,
      String(path.endpoints),
      quantile(of(path, 'rr'), 0.5).toFixed(2),
      ratio(path, 'rr'),
      quantile(of(path, 'crr'), 0.5).toFixed(1),
      ratio(path, 'crr'),
    ]),
  ]);
  const label = ({ name, endpoints }: Path): string =>
    name.startsWith('floor') ? 'floor' : `${name}, ${endpoints}`;
  printTable([
    ['ratio', 'round trip', 'aim', 'connection', 'aim'],
    ...aims.map(([one, other, rr, crr]) => [
      `${label(one)} / ${label(other)}`,
      pairedRatio(of(one, 'rr'), of(other, 'rr')).toFixed(3),
      `≤ ${rr.toFixed(2)}`,
      pairedRatio(of(one, 'crr'), of(other, 'crr')).toFixed(3),
      `≤ ${crr.toFixed(2)}`,
    ]),
  ]);
}

function ours(backend: Order['backend'], endpoints: number, more: Partial<Order> = {}, words = ''): Path {
  const order: Order = { backend, ...orderFor(endpoints), ...more };
  return {
    name: `netctl, ${backend}${words}`,
    endpoints,
    load: (netns) => inside(netns, [process.execPath, policyProcess, JSON.stringify(order)]),
  };
}

function felix(
  name: string,
  endpoints: number,
  render: (world: World) => string,
  program: readonly string[],
): Path {
  return {
    name,
    endpoints,
    async load(netns, world) {
      if (program[0] !== 'nft') await inside(netns, ['ipset', 'restore'], felixSets(world));
      await inside(netns, program, render(world));
    },
  };
}

/** A host with its two containers in the middle of all endpoints. Returns what tcp-cost needs. */
async function prepare(path: Path, id: string): Promise<string> {
  const { endpoints } = path;
  const netns = `bench-${id}`;
  const ends = [endpoints / 2 - 1, endpoints / 2];
  await mustRun(['ip', 'netns', 'add', netns]);
  await inside(netns, ['sysctl', '-qw', 'net.ipv4.ip_forward=1']);
  for (const [side, end] of ends.entries()) await connect(netns, `${netns}-${side}`, end);
  const world = makeWorld(orderFor(endpoints));
  await path.load(netns, world);
  if (path !== nothing && path !== floor) await mustRefuse(`${netns}-0`, addressOf(ends[1]!));
  return `${id}=${netns}-0,${netns}-1,${addressOf(ends[1]!)}`;
}

/** As the agent wires a container. */
async function connect(host: string, container: string, endpoint: number): Promise<void> {
  const link = interfaceOf(endpoint);
  const address = addressOf(endpoint);
  const mac = `02:00:00:00:01:0${endpoint % 10}`;
  await mustRun(['ip', 'netns', 'add', container]);
  await batch(host, [
    `link add ${link} index ${hostInterfaceIndex(link)} address ${HOST_MAC} type veth peer name eth0 address ${mac} netns ${container}`,
    `link set ${link} addrgenmode none`,
    `link set ${link} up`,
    `neighbour add ${address} lladdr ${mac} dev ${link} nud permanent`,
    `route add ${address}/32 dev ${link}`,
  ]);
  await batch(container, [
    'link set lo up',
    'link set eth0 addrgenmode none',
    'link set eth0 up',
    `address add ${address}/32 dev eth0`,
    `neighbour add 169.254.1.1 lladdr ${HOST_MAC} dev eth0 nud permanent`,
    'route add 169.254.1.1/32 dev eth0',
    'route add default via 169.254.1.1',
  ]);
}

/** A port that no rule allows gives a timeout, where the host without rules would refuse it at once. */
async function mustRefuse(from: string, address: string): Promise<void> {
  const script = `require('net').connect({host:'${address}',port:${servedPort + 1}}).on('error',()=>process.exit(9));setTimeout(()=>process.exit(7),150)`;
  const { code } = await run(['ip', 'netns', 'exec', from, process.execPath, '-e', script]);
  if (code !== 7) throw new Error(`${from}: a packet to a port that no rule allows was let through`);
}

async function inside(netns: string, command: readonly string[], stdin = ''): Promise<void> {
  await mustRun(['ip', 'netns', 'exec', netns, ...command], { stdin, deadlineMs: 120_000 });
}

async function batch(netns: string, commands: readonly string[]): Promise<void> {
  await mustRun(['ip', '-n', netns, '-batch', '-'], { stdin: `${commands.join('\n')}\n` });
}
