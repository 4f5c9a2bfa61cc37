/**
 * The host's own routes: the agent's writing of them, its resync from nothing (read, compare, write, read again) and one that finds
 * everything right, next to `ip -batch` given the same routes and neighbours, and to a C program that only hands them to the kernel.
 *
 * In: a namespace of the caller's own. Out: a table. Never: a resync that left a route out.
 */
import { fileURLToPath } from 'node:url';
import { mustRun } from '../lab/run.ts';
import { EndpointWiring } from '../src/dataplane/endpoint-wiring.ts';
import type { Routing } from '../src/linux/ports.ts';
import { createLinux } from '../src/linux/real/linux.ts';
import { type Address, addressFrom, addressValue, parseAddress } from '../src/model/ip.ts';
import { macOf } from '../src/model/mac.ts';
import { type Endpoint, endpointSchema } from '../src/model/records.ts';
import { planHostRoutes } from '../src/veth/plan.ts';
import { ownCpu, programCpu } from './cpu-time.ts';
import { logger } from './policy-part.ts';
import { median, pairedRatio, printTable } from './statistics.ts';

const link = 'nctlbench';
const none: ReadonlySet<Address> = new Set();
const limitProgram = fileURLToPath(new URL('../dist/bench/route-limit', import.meta.url));
const warmUps = 3;
const first = addressValue(parseAddress('10.96.0.1'));

export async function benchSync(): Promise<void> {
  const linux = await createLinux({ iptablesBackend: 'nft' });
  const wiring = new EndpointWiring(linux, () => false, logger);
  await mustRun(['ip', 'link', 'add', link, 'type', 'veth', 'peer', 'benchpeer']);
  await mustRun(['ip', 'link', 'set', 'benchpeer', 'up']);
  try {
    for (const [count, rounds] of [
      [10_000, 9],
      [100_000, 3],
    ] as const)
      await compare(linux.openRouting(), wiring, count, rounds);
  } finally {
    wiring.close();
    linux.close();
    await mustRun(['ip', 'link', 'delete', link]);
  }
}

async function compare(
  routing: Routing,
  wiring: EndpointWiring,
  count: number,
  rounds: number,
): Promise<void> {
  const endpoints = Array.from({ length: count }, (_, i) => endpointAt(i));
  const text = endpoints.map(batchLines).join('');
  const routesOnly = text.replace(/^neighbour.*\n/gm, '');
  const times = {
    ...{ written: [], whole: [], again: [], batch: [], limit: [] },
    ...{ routes: [], batchRoutes: [], limitRoutes: [] },
  } as Record<
    'written' | 'whole' | 'again' | 'batch' | 'limit' | 'routes' | 'batchRoutes' | 'limitRoutes',
    number[]
  >;
  const limit = (neighbours: 'with' | 'without') =>
    programCpu([limitProgram, `${count}`, link, neighbours], '');
  const sync = async (): Promise<number> =>
    (await wiring.reconcileRoutes(endpoints, await wiring.links(), [])).length;
  const index = routing.link({ name: link })!.index;
  const plan = () => endpoints.flatMap(({ mac, addresses }) => planHostRoutes(index, mac, addresses, none));
  const contestants: readonly (() => Promise<void>)[] = [
    async () => {
      times.written.push(await ownCpu(async () => routing.batch(plan())));
    },
    async () => {
      const requests = plan().filter(({ kind }) => kind === 'route-replace');
      times.routes.push(await ownCpu(async () => routing.batch(requests)));
    },
    async () => {
      let changed = 0;
      const timed = () =>
        ownCpu(async () => {
          changed = await sync();
        });
      times.whole.push(await timed());
      if (changed !== count) throw new Error(`${changed} routes of ${count} were written`);
      times.again.push(await timed());
      if (changed !== 0) throw new Error('a second resync wrote');
    },
    async () => {
      times.batch.push(await programCpu(['ip', '-batch', '-'], text));
    },
    async () => {
      times.batchRoutes.push(await programCpu(['ip', '-batch', '-'], routesOnly));
    },
    async () => {
      times.limit.push(await limit('with'));
    },
    async () => {
      times.limitRoutes.push(await limit('without'));
    },
  ];
  for (let round = -warmUps; round < rounds; round++) {
    for (const contestant of round % 2 === 0 ? contestants : contestants.toReversed()) {
      // Down takes routes and neighbours along.
      await mustRun(['ip', 'link', 'set', link, 'down']);
      await mustRun(['ip', 'link', 'set', link, 'up']);
      await contestant();
    }
    if (round < 0) for (const samples of Object.values(times)) samples.pop();
  }
  console.log(
    `${count} routes to containers, with their neighbours; ms of CPU, median of ${rounds} in turns`,
  );
  const line = (name: string, samples: readonly number[], theirs: readonly number[]) => [
    name,
    median(samples).toFixed(0),
    pairedRatio(samples, theirs).toFixed(3),
  ];
  printTable([
    ['', 'ms', '× ip -batch, pair by pair'],
    line('netctl, writing routes alone', times.routes, times.batchRoutes),
    line('netctl, writing', times.written, times.batch),
    line('netctl, resync from nothing (reads, compares, writes, reads)', times.whole, times.batch),
    line('netctl, resync when all is right', times.again, times.batch),
    line('only the kernel (a C program), routes alone', times.limitRoutes, times.batchRoutes),
    line('only the kernel (a C program)', times.limit, times.batch),
    ['ip -batch, routes alone', median(times.batchRoutes).toFixed(0), ''],
    ['ip -batch', median(times.batch).toFixed(0), ''],
  ]);
}

function endpointAt(i: number): Endpoint {
  const address = addressFrom(4, first + BigInt(i));
  return endpointSchema.parse({
    ...{ network: 'bench', containerId: `${i}`, interface: 'eth0', kind: 'routed', hostInterface: link },
    ...{ mac: macOf(address), mtuBytes: 1500, addresses: [address], profiles: [] },
    ...{ netns: { path: '/run/netns/bench', device: 0, inode: 0 }, bootId: 'bench' },
    createdAt: new Date(0).toISOString(),
  });
}

function batchLines({ addresses: [address], mac }: Endpoint): string {
  return `neighbour replace ${address} lladdr ${mac} nud permanent dev ${link}\nroute replace ${address}/32 dev ${link} scope link proto 110\n`;
}
