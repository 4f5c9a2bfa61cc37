/**
 * What one change costs the agent once it knows of it, kernel write included: a member of a tag's set, an endpoint of this host. Beside it,
 * in turns, what the same bytes cost a program that does nothing but send them (the floor; nftables only).
 *
 * In: a namespace of the caller's own. Out: tables. Never: the first thousand changes counted, which warm up the code.
 */
import type { NftRequest } from '../src/linux/nftables-port.ts';
import type { PolicyEndpoint } from '../src/policy/endpoint-members.ts';
import { openFloor } from './nft-floor.ts';
import { type BackendName, startPolicy } from './policy-part.ts';
import { addressOf, interfaceOf, makeWorld, other, tell } from './policy-world.ts';
import { printTable, quantile } from './statistics.ts';

const WARM_UPS = 1000;
const SAMPLES = 2000;
const backends: readonly BackendName[] = ['nftables', 'iptables-legacy'];
type Part = Awaited<ReturnType<typeof start>>;

export async function benchChanges(): Promise<void> {
  const rows: string[][] = [];
  for (const backend of backends) {
    for (const lists of [1, 100]) rows.push(...(await withMembers(backend, lists)));
    for (const [endpoints, lists] of [
      [10, 1],
      [100, 10],
      [1000, 10],
      [1000, 100],
      [1000, 1000],
    ] as const)
      rows.push(await withEndpoints(backend, endpoints, lists));
  }
  console.log(`One change in the agent, kernel write included, ${SAMPLES} of each`);
  printTable([['', 'median µs', 'p99 µs', 'CPU µs', 'aim', 'floor µs'], ...rows]);
}

async function start(backend: BackendName) {
  let last: readonly NftRequest[] = [];
  const part = await startPolicy(backend, (requests) => {
    last = requests;
  });
  return { ...part, lastTransaction: () => last, floor: backend === 'nftables' ? openFloor() : null };
}

async function withMembers(backend: BackendName, lists: number): Promise<string[][]> {
  const part = await start(backend);
  tell(part.engine, makeWorld({ endpoints: Math.max(10, lists), lists }));
  const rows: string[][] = [];
  let count = 0;
  for (const size of [10, 1000, 10_000, 100_000]) {
    while (count < size) part.engine.onEndpoint(`more/${count}`, other(1_000_000 + count++, 0));
    if (size === 10) await part.dataplane.start();
    else await part.dataplane.flush();
    const name = `${backend}: a member of a set of ${size.toLocaleString('en')}, ${3 * lists} profiles`;
    rows.push(await measure(part, name, '≤ 30', (i) => [`new/${i}`, other(2_000_000 + i, 0)]));
  }
  await close(part);
  return rows;
}

async function withEndpoints(backend: BackendName, endpoints: number, lists: number): Promise<string[]> {
  const part = await start(backend);
  tell(part.engine, makeWorld({ endpoints, lists }));
  await part.dataplane.start();
  const row = await measure(
    part,
    `${backend}: an endpoint beside ${endpoints.toLocaleString('en')} with ${lists} lists`,
    '≤ 50',
    (i) => {
      const profiles = [0, 1, 2].map((each) => `list${i % lists}-part${each}`);
      const hostInterface = interfaceOf(endpoints + i);
      return [`new/${i}`, { local: true, hostInterface, addresses: [addressOf(endpoints + i)], profiles }];
    },
  );
  await close(part);
  return row;
}

/** Each comes, which is measured, and goes; then the same by the floor. */
async function measure(
  { engine, dataplane, lastTransaction, floor }: Part,
  name: string,
  aim: string,
  make: (i: number) => [id: string, endpoint: PolicyEndpoint],
): Promise<string[]> {
  const times: number[] = [];
  const least: number[] = [];
  let cpu = 0;
  for (let i = 0; i < WARM_UPS + SAMPLES; i++) {
    const [id, endpoint] = make(i);
    const before = process.cpuUsage();
    const start = performance.now();
    engine.onEndpoint(id, endpoint);
    await dataplane.flush();
    const took = performance.now() - start;
    const { user, system } = process.cpuUsage(before);
    if (i >= WARM_UPS) {
      times.push(took * 1000);
      cpu += user + system;
    }
    const came = lastTransaction();
    engine.onEndpoint(id, null);
    await dataplane.flush();
    if (floor === null) continue;
    const bare = floor.send(came);
    floor.send(lastTransaction());
    if (i >= WARM_UPS) least.push(bare);
  }
  const shown = [quantile(times, 0.5), quantile(times, 0.99), cpu / SAMPLES].map((value) => value.toFixed(0));
  return [name, ...shown, aim, floor === null ? '' : quantile(least, 0.5).toFixed(0)];
}

async function close({ backend, linux, floor }: Part): Promise<void> {
  await backend.removeAll();
  floor?.close();
  linux.close();
}
