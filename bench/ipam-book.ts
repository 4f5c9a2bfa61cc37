/**
 * The picture of a large cluster: 10,000 nodes with a block and 18 addresses each.
 *
 * In: nothing. Out: how long a question for the capacity of all nodes takes, how much memory an allocated address takes in an agent that
 * follows the store (picture and position of its watch). Never: a size that was estimated.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { furnish } from '../lab/ipam-cluster.ts';
import { IpamNode } from '../lab/ipam-node.ts';
import { capacity } from '../src/ipam/usage.ts';
import { systemClock } from '../src/lib/clock.ts';
import { addressFrom, addressValue, type Cidr, parseAddress } from '../src/model/ip.ts';
import { addressKey, blockKey, ownerKey } from '../src/model/keys.ts';
import { macOf } from '../src/model/mac.ts';
import type { AddressRecord, Block } from '../src/model/records.ts';
import { SqliteStore } from '../src/store/sqlite.ts';
import type { Json, Write } from '../src/store/store.ts';
import { median, quantile } from './statistics.ts';

const nodes = 10_000;
const addressesPerNode = 18;

export async function measureBook(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'netctl-bench-'));
  try {
    const store = new SqliteStore({ path: join(directory, 'netctl.db') });
    const names = Array.from({ length: nodes }, (_, number) => `node${number}`);
    await furnish(store, names, { p: { cidr: '10.0.0.0/8', blockSize: 26 } });
    for (let from = 0; from < nodes; from += 100)
      await store.transact(
        [],
        names.slice(from, from + 100).flatMap((name, i) => recordsOf(name, from + i)),
      );
    const before = heapBytes();
    const node = await follow(store);
    if (node.book.addresses().size !== nodes * addressesPerNode) throw new Error('not all were read');
    const request = { tenant: 't', kind: 'routed', pools: [], nodes: null } as const;
    const times = Array.from({ length: 40 }, () => {
      const start = performance.now();
      const { nodes: answered } = capacity(node.book, request);
      if (answered.length !== nodes) throw new Error(`capacity of ${answered.length} nodes`);
      return performance.now() - start;
    });
    // Last: after a collection that was forced, the first question would wait for the sweeping.
    const perAddress = (heapBytes() - before) / (nodes * addressesPerNode);
    console.log(`A cluster of ${nodes} nodes and ${nodes * addressesPerNode} addresses`);
    console.log(
      `  capacity of all nodes                          p50 ${median(times).toFixed(1)} ms   p99 ${quantile(times, 0.99).toFixed(1)} ms   first ${times[0]!.toFixed(1)} ms   (aim: first under 50 ms)`,
    );
    console.log(
      `  memory of an agent                             ${Math.round(perAddress)} bytes for each allocated address, its share of block and node included\n`,
    );
    await store.close();
  } finally {
    rmSync(directory, { recursive: true });
  }
}

async function follow(store: SqliteStore): Promise<IpamNode> {
  const node = new IpamNode('node0', store, systemClock);
  await node.follow();
  return node;
}

function recordsOf(name: string, number: number): Write[] {
  const base = addressValue(parseAddress('10.0.0.0')) + BigInt(number * 64);
  const block: Block = {
    pool: 'p',
    node: name,
    claimedAt: new Date().toISOString(),
    shared: false,
    closing: false,
  };
  const put = (key: string, value: object): Write => ({ kind: 'put', key, value: value as Json });
  const writes = [put(blockKey(`${addressFrom(4, base)}/26` as Cidr), block)];
  for (let offset = 1; offset <= addressesPerNode; offset++) {
    const address = addressFrom(4, base + BigInt(offset));
    const owner = { tenant: `t${number % 50}`, app: `a${number % 500}`, instance: `${number}-${offset}` };
    const record: AddressRecord = {
      pool: 'p',
      state: 'active',
      owner,
      node: name,
      endpoint: `${number.toString(16).padStart(12, '0')}${offset.toString(16).padStart(4, '0')}`,
      container: `${number}-${offset}`.padStart(64, '0'),
      mac: macOf(address),
      onRelease: 'delete',
      ttlSeconds: null,
      generation: 1,
      allocatedAt: new Date().toISOString(),
      cooldownUntil: null,
      reservation: null,
      expiresAt: null,
      borrowed: false,
      conflict: null,
    };
    writes.push(put(addressKey(address), record), put(ownerKey(owner, address), { pool: 'p' }));
  }
  return writes;
}

/** After everything that nobody needs is gone. */
function heapBytes(): number {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  collect();
  collect();
  return process.memoryUsage().heapUsed;
}
