/**
 * Durable transactions of the local store: rate and latency, one caller and a hundred, each transaction shaped like an ADD
 * (address, owner index and endpoint against the address's absence).
 *
 * In: an optional directory on the disk to measure (default: a temporary one). Out: a table, with the disk's own flush
 * beside it as the limit. Never: a number without its p99.
 */
import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SqliteStore } from '../src/store/sqlite.ts';

const endpoint = {
  containerId: 'f'.repeat(64),
  network: 'edge',
  interface: 'eth0',
  kind: 'routed',
  hostInterface: 'nct0123456789ab',
  mac: '02:42:0a:00:00:01',
  addresses: ['10.0.0.1'],
  profiles: ['web'],
  labels: { app: 'shop', tier: 'front' },
};

const directory = mkdtempSync(join(process.argv[2] ?? tmpdir(), 'netctl-bench-'));
try {
  report('fdatasync of 4 KiB', measureDisk());
  const store = new SqliteStore({ path: join(directory, 'netctl.db') });
  let next = 0;
  await run(store, 1, 2000, () => next++);
  for (const concurrency of [1, 100]) {
    report(
      `transactions, ${concurrency} at a time`,
      await run(store, concurrency, concurrency === 1 ? 10_000 : 100_000, () => next++),
    );
  }
  const start = performance.now();
  const { entries } = await store.list('endpoints/');
  console.log(`list of ${entries.length} entries: ${(performance.now() - start).toFixed(0)} ms`);
  await store.close();
} finally {
  rmSync(directory, { recursive: true });
}

interface Measured {
  readonly latencies: number[];
  readonly milliseconds: number;
}

async function run(
  store: SqliteStore,
  concurrency: number,
  count: number,
  take: () => number,
): Promise<Measured> {
  const latencies: number[] = [];
  const start = performance.now();
  const worker = async (): Promise<void> => {
    while (latencies.length < count) {
      const before = performance.now();
      await add(store, take());
      latencies.push(performance.now() - before);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  return { latencies, milliseconds: performance.now() - start };
}

async function add(store: SqliteStore, number: number): Promise<void> {
  const address = `10.${(number >> 16) & 255}.${(number >> 8) & 255}.${number & 255}`;
  const result = await store.transact(
    [{ kind: 'absent', key: `addresses/${address}` }],
    [
      {
        kind: 'put',
        key: `addresses/${address}`,
        value: { pool: 'default', state: 'bound', node: 'node1', generation: 1 },
      },
      { kind: 'put', key: `owners/tenant/app/${number}/${address}`, value: { pool: 'default' } },
      { kind: 'put', key: `endpoints/node1/${number}`, value: endpoint },
    ],
  );
  if (!result.committed) throw new Error(`address ${address} was taken`);
}

function measureDisk(): Measured {
  const latencies: number[] = [];
  const file = openSync(join(directory, 'flush'), 'w');
  const start = performance.now();
  for (let index = 0; index < 2000; index++) {
    const before = performance.now();
    writeSync(file, Buffer.alloc(4096), 0, 4096, (index % 256) * 4096);
    fdatasyncSync(file);
    latencies.push(performance.now() - before);
  }
  closeSync(file);
  return { latencies, milliseconds: performance.now() - start };
}

function report(what: string, { latencies, milliseconds }: Measured): void {
  const sorted = latencies.toSorted((a, b) => a - b);
  const at = (share: number): string => `${sorted[Math.floor((sorted.length - 1) * share)]!.toFixed(3)} ms`;
  const rate = Math.round((latencies.length / milliseconds) * 1000);
  console.log(`${what}: ${rate}/s, p50 ${at(0.5)}, p99 ${at(0.99)}, p99.9 ${at(0.999)}, longest ${at(1)}`);
}
