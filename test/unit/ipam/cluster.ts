/**
 * Several nodes on one in-memory store, each with its own picture, which learns of others' changes by its watch, as the agent does.
 *
 * In: pools and node names. Out: nodes with all verbs, whose clocks stand still. Never: a shared book.
 */
import { IpamNode } from '../../../lab/ipam-node.ts';
import type { Cidr } from '../../../src/model/ip.ts';
import { nodeKey, poolKey, settingsKey, tenantKey } from '../../../src/model/keys.ts';
import { type Pool, poolSchema } from '../../../src/model/records.ts';
import { MemoryStore } from '../../../src/store/memory.ts';
import type { Json, Store } from '../../../src/store/store.ts';
import { ManualClock } from '../store/manual-clock.ts';

export class TestNode extends IpamNode<ManualClock> {
  constructor(name: string, store: Store) {
    super(name, store, new ManualClock());
  }
}

export interface ClusterOptions {
  readonly names?: readonly string[];
  readonly strictAffinity?: boolean;
  readonly quotas?: Readonly<Record<string, number>>;
  readonly labels?: Readonly<Record<string, Record<string, string>>>;
}

export type Pools = Record<string, Partial<Pool> & { cidr: Cidr; blockSize: number }>;

export async function cluster(
  pools: Pools,
  options: ClusterOptions | readonly string[] = {},
): Promise<TestNode[]> {
  const {
    names = ['n1'],
    strictAffinity = true,
    quotas = {},
    labels = {},
  } = 'length' in options ? { names: options } : options;
  const store = new MemoryStore();
  const put = (key: string, value: unknown) =>
    store.transact([], [{ kind: 'put', key, value: value as Json }]);
  for (const [name, pool] of Object.entries(pools)) await put(poolKey(name), poolSchema.parse(pool));
  for (const [tenant, maxAddresses] of Object.entries(quotas)) await put(tenantKey(tenant), { maxAddresses });
  if (!strictAffinity) await put(settingsKey, { strictAffinity });
  for (const name of names) {
    const node = { address4: null, address6: null, version: '0', startedAt: '2026-01-01T00:00:00.000Z' };
    await put(nodeKey(name), { ...node, labels: labels[name] ?? {} });
  }
  const nodes = names.map((name) => new TestNode(name, store));
  await Promise.all(nodes.map((node) => node.follow()));
  return nodes;
}
