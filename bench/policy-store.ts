/**
 * From a write to the store until the kernel has it: an endpoint elsewhere gets a tag that a rule here names, with up to 100,000
 * members there already. A whole agent, on its own database and on etcd.
 *
 * In: a namespace of the caller's own; etcd installed. Out: a table. Never: a sample whose element was not seen to be written.
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent } from '../src/agent/agent.ts';
import { loadConfig } from '../src/agent/config.ts';
import { systemClock } from '../src/lib/clock.ts';
import type { Logger } from '../src/lib/logger.ts';
import { FakeBird } from '../src/linux/fake/bird.ts';
import type { Linux } from '../src/linux/ports.ts';
import { createLinux } from '../src/linux/real/linux.ts';
import { openStore } from '../src/main/open-store.ts';
import { addressFrom, addressValue, parseAddress } from '../src/model/ip.ts';
import { EtcdStore } from '../src/store/etcd.ts';
import type { Json, Store, Write } from '../src/store/store.ts';
import { startEtcd } from '../test/kernel/etcd-harness.ts';
import { printTable, quantile } from './statistics.ts';

const SIZES = [10, 1000, 10_000, 100_000];
const SAMPLES = 200;
const WARM_UPS = 100;
/** etcd takes 128 operations in a transaction. */
const BATCH = 100;
const base = addressValue(parseAddress('10.128.0.1'));
const logger: Logger = {
  debug() {},
  info() {},
  warn() {},
  error: (fields, text) => console.error(text, fields),
};

export async function benchStore(): Promise<void> {
  const rows = [
    ...(await measure('embedded store', async () => ({ flags: [], writer: null, end: async () => {} }))),
    ...(await measure('etcd', async () => {
      const etcd = await startEtcd();
      const writer = new EtcdStore({
        endpoints: etcd.endpoints,
        prefix: '/netctl/v1/',
        clock: systemClock,
        logger,
      });
      const end = async (): Promise<void> => {
        await writer.close();
        await etcd.dispose();
      };
      return { flags: ['--datastore', 'etcd', '--etcd-endpoints', etcd.endpoints.join(',')], writer, end };
    })),
  ];
  console.log(
    `From the write to the store to the kernel, a member of a tag, nftables, ${SAMPLES} each; milliseconds`,
  );
  printTable([
    ['', 'members', 'median', 'p99', 'of it the write, median', 'aim'],
    ...rows.map((row) => [...row, '≤ 3, p99 ≤ 15']),
  ]);
}

interface Source {
  readonly flags: readonly string[];
  /** null: through the agent's own store, as its API does. */
  readonly writer: Store | null;
  end(): Promise<void>;
}

async function measure(name: string, open: () => Promise<Source>): Promise<string[][]> {
  const directory = mkdtempSync(join(tmpdir(), 'netctl-bench-'));
  const source = await open();
  const { config } = loadConfig({
    argv: [
      ...['--node', 'here', '--address', '192.0.2.1', '--dataplane', 'nftables'],
      ...['--run-dir', directory, '--state-dir', directory, ...source.flags],
    ],
    env: {},
    readFile: () => null,
  });
  const { store } = await openStore(config, systemClock, logger);
  const linux = await createLinux({ iptablesBackend: 'nft' });
  const waiting = new Map<string, () => void>();
  const agent = new Agent({
    ...{ config, version: 'bench', bootId: 'bench', store, clock: systemClock, logger },
    linux: told(linux, waiting),
    bird: new FakeBird(),
    releaseDelegate: async () => undefined,
    clusterTrouble: () => null,
    diskRefusal: () => null,
    flushMark: { read: () => null, write: () => undefined },
  });
  const writer = source.writer ?? store;
  const rows: string[][] = [];
  try {
    await writer.transact(
      [],
      [
        put('profiles/client', { tags: ['client'], inbound_rules: [], outbound_rules: [] }),
        put('profiles/server', {
          tags: [],
          inbound_rules: [{ action: 'allow', src_tag: 'client' }],
          outbound_rules: [],
        }),
        put('host-endpoints/here/uplink', { interface: 'eth0', labels: {}, profiles: ['server'] }),
      ],
    );
    await agent.start();
    let count = 0;
    for (const size of SIZES) {
      const isThere = arrival(waiting, size - 1);
      while (count < size) {
        const writes: Write[] = [];
        while (writes.length < BATCH && count < size) writes.push(member(count++));
        await writer.transact([], writes);
      }
      await isThere;
      const total: number[] = [];
      const written: number[] = [];
      for (let i = 0; i < WARM_UPS + SAMPLES; i++) {
        const inKernel = arrival(waiting, 1_000_000 + i + size);
        const start = performance.now();
        await writer.transact([], [member(1_000_000 + i + size)]);
        const acknowledged = performance.now();
        await inKernel;
        if (i < WARM_UPS) continue;
        total.push(performance.now() - start);
        written.push(acknowledged - start);
      }
      rows.push([
        name,
        size.toLocaleString('en'),
        ...[quantile(total, 0.5), quantile(total, 0.99), quantile(written, 0.5)].map((ms) => ms.toFixed(2)),
      ]);
    }
  } finally {
    await agent.stop();
    await source.end();
    linux.close();
    rmSync(directory, { recursive: true });
  }
  return rows;
}

/** Resolves when the kernel has the member. */
function arrival(waiting: Map<string, () => void>, index: number): Promise<void> {
  return new Promise((resolve) => void waiting.set(addressOf(index), resolve));
}

/** Tells of elements once the kernel has them. */
function told(linux: Linux, waiting: Map<string, () => void>): Linux {
  return {
    ...linux,
    nftables: {
      ...linux.nftables,
      transact(requests) {
        linux.nftables.transact(requests);
        for (const request of requests) {
          if (request.kind !== 'elements-add') continue;
          for (const [key] of request.elements) {
            waiting.get(key)?.();
            waiting.delete(key);
          }
        }
      },
    },
  };
}

function put(key: string, value: unknown): Write {
  return { kind: 'put', key, value: value as Json };
}

function addressOf(index: number): string {
  return addressFrom(4, base + BigInt(index));
}

function member(index: number): Write {
  return put(`endpoints/there/${index}`, {
    network: 'edge',
    containerId: `container-${index}`,
    interface: 'eth0',
    kind: 'routed',
    hostInterface: 'nctl0123456789a',
    mac: '02:42:0a:00:00:01',
    mtuBytes: 1500,
    addresses: [addressOf(index)],
    profiles: ['client'],
    labels: { app: 'shop', tier: 'front' },
    extraSources: [],
    rateLimits: null,
    attachedBy: 'runtime',
    netns: { path: '/run/netns/x', device: 1, inode: 1 },
    bootId: 'boot',
    createdAt: '2026-01-01T00:00:00Z',
  });
}
