/**
 * 10,000 and 100,000 routes into one host: time until they are in its kernel, one more with all of them there, memory, packets'
 * latency; next to two BIRDs alone that are told by their configuration.
 *
 * In: a namespace of the caller's own. Out: a table. Never: routes counted that only BIRD has.
 */
import { readFileSync } from 'node:fs';
import { eventually } from '../lab/run.ts';
import { BarePair, OurPair, type Pair } from './bgp-pairs.ts';
import { median, pairedRatio, printTable } from './statistics.ts';

const rounds = 3;

/** Addresses of 10.96.0.0/11, one by one. */
const addressAt = (i: number): string => `10.${96 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;

export async function benchRoutes(): Promise<void> {
  const ours = await OurPair.create();
  const bare = await BarePair.create().catch(async (error) => {
    await ours.close();
    throw error;
  });
  try {
    for (const node of ours.lab.nodes) await node.attach('c');
    for (const count of [10_000, 100_000]) await measure(ours, bare, count);
  } finally {
    await bare.close();
    await ours.close();
  }
}

async function measure(ours: OurPair, bare: BarePair, count: number): Promise<void> {
  const nets = Array.from({ length: count }, (_, i) => `${addressAt(i)}/32`);
  const node = ours.lab.nodes[1]!;
  const birdOf = async () => residentMb(await ours.two(['cat', `/proc/${node.birdPid}/status`]));
  const agentOf = async () => residentMb(await ours.two(['cat', `/proc/${node.agentPid}/status`]));
  const bareOf = () => residentMb(readFileSync(`/proc/${bare.pid()}/status`, 'utf8'));
  const small = { bird: await birdOf(), agent: await agentOf(), bare: bareOf(), ping: await pingMs(ours) };
  const all: [ours: number[], bare: number[]] = [[], []];
  const more: [ours: number[], bare: number[]] = [[], []];
  let full = small;
  const told = (what: 'add' | 'del', some: readonly string[]) =>
    ours.one(['ip', '-batch', '-'], some.map((net) => `route ${what} blackhole ${net} proto 111\n`).join(''));
  for (let round = 0; round < rounds; round++) {
    const late = Array.from({ length: 5 }, (_, i) => `10.127.255.${i}/32`);
    all[0].push(await until(ours, count, () => told('add', nets)));
    all[1].push(await until(bare, count, () => bare.configure(nets)));
    for (const [i] of late.entries()) {
      more[0].push(await until(ours, 1, () => told('add', [late[i]!])));
      more[1].push(await until(bare, 1, () => bare.configure([...nets, ...late.slice(0, i + 1)])));
    }
    full = { bird: await birdOf(), agent: await agentOf(), bare: bareOf(), ping: await pingMs(ours) };
    await until(ours, -count - late.length, () => told('del', [...nets, ...late]));
    await until(bare, -count - late.length, () => bare.configure([]));
  }
  const mb = (from: number, to: number): string => `${from.toFixed(1)} → ${to.toFixed(1)}`;
  console.log(`${count} routes into one host; median of ${rounds} in turns`);
  printTable([
    ['', 'netctl', 'BIRD alone', 'ratio, pair by pair'],
    [
      'all in the kernel of the other host, ms',
      ...all.map((samples) => median(samples).toFixed(0)),
      pairedRatio(...all).toFixed(3),
    ],
    [
      'one more with all of them there, ms',
      ...more.map((samples) => median(samples).toFixed(0)),
      pairedRatio(...more).toFixed(3),
    ],
    ['memory of BIRD, MB', mb(small.bird, full.bird), mb(small.bare, full.bare), ''],
    ['memory of the agent, MB', mb(small.agent, full.agent), '', ''],
    ['ping between containers, ms', `${small.ping.toFixed(3)} → ${full.ping.toFixed(3)}`, '', ''],
  ]);
}

/** Milliseconds until the second host's kernel has so many routes more. */
async function until(pair: Pair, change: number, act: () => Promise<unknown>): Promise<number> {
  const wanted = (await routeCount(pair)) + change;
  const begin = performance.now();
  await act();
  await eventually(
    `${pair.name}: ${wanted} routes`,
    300_000,
    async () => (await routeCount(pair)) === wanted,
  );
  return performance.now() - begin;
}

async function routeCount(pair: Pair): Promise<number> {
  return Number(/Prefixes:\s+(\d+)/.exec(await pair.two(['cat', '/proc/net/fib_triestat']))?.[1]);
}

const residentMb = (status: string): number => Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;

/** Mean of 400. */
async function pingMs({ lab }: OurPair): Promise<number> {
  const [one, two] = lab.nodes;
  const address = two!.containers()[0]!.addresses.find((each) => each.includes('.'))!;
  const printed = await one!.container('c').mustExec(['ping', '-q', '-i', '0.005', '-c', '400', address]);
  return Number(/= [\d.]+\/([\d.]+)\//.exec(printed)?.[1]);
}
