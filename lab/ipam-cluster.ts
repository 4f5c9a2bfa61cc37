/**
 * Nodes on a real etcd, each with its own local store as an agent has it, in one process: for tests and measurements that need many.
 *
 * In: an etcd, names, pools. Out: nodes that are in step with it. Never: a local store shared between two nodes; files left behind.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Clock, systemClock } from '../src/lib/clock.ts';
import { nodeKey, poolKey, settingsKey } from '../src/model/keys.ts';
import { poolSchema, type Settings, settingsSchema } from '../src/model/records.ts';
import { ReplicatedStore } from '../src/store/replicated.ts';
import { SqliteStore } from '../src/store/sqlite.ts';
import type { Json, Store } from '../src/store/store.ts';
import { IpamNode, silent } from './ipam-node.ts';

export interface ClusterNode {
  readonly ipam: IpamNode;
  readonly store: ReplicatedStore;
}

export interface IpamCluster {
  readonly nodes: readonly ClusterNode[];
  /** When the cluster has what the nodes have, and each node what the cluster has. */
  settled(): Promise<void>;
  close(): Promise<void>;
}

/** What operators write before the first node starts; no node is awaited by name. */
export async function furnish(
  store: Store,
  nodes: readonly string[],
  pools: Readonly<Record<string, object>>,
  settings: Partial<Settings> = {},
): Promise<void> {
  const put = (key: string, value: unknown) =>
    store.transact([], [{ kind: 'put', key, value: value as Json }]);
  for (const [name, pool] of Object.entries(pools)) await put(poolKey(name), poolSchema.parse(pool));
  await put(settingsKey, settingsSchema.parse(settings));
  for (const name of nodes) {
    const node = { address4: null, address6: null, asNumber: null, labels: {}, version: '0' };
    await put(nodeKey(name), { ...node, startedAt: new Date().toISOString() });
  }
}

export interface NodesOptions {
  /** The local store of a node, given a path that nobody uses. */
  readonly local?: (path: string) => Store;
  readonly clock?: Clock;
  /** An agent has three seconds; by default more, since nodes in one process share the processors that each would have alone. */
  readonly patienceMilliseconds?: number;
}

/** @param open a connection to the cluster for each node, closed with it */
export async function startNodes(
  names: readonly string[],
  open: (name: string) => Store,
  options: NodesOptions = {},
): Promise<IpamCluster> {
  const {
    local = (path: string) => new SqliteStore({ path }),
    clock = systemClock,
    patienceMilliseconds = 60_000,
  } = options;
  const directory = mkdtempSync(join(tmpdir(), 'netctl-nodes-'));
  const nodes = await Promise.all(
    names.map(async (name) => {
      const store = await ReplicatedStore.open({
        node: name,
        local: local(join(directory, `${name}.db`)),
        cluster: open(name),
        clock,
        logger: silent,
        patienceMilliseconds,
      });
      const ipam = new IpamNode(name, store, clock);
      const syncer = await ipam.follow();
      return { ipam, store, syncer };
    }),
  );
  const settled = async (): Promise<void> => {
    for (const { store, ipam } of nodes) {
      // A decision of the cluster arrives after all that was decided before it.
      const knock = { kind: 'put', key: `idempotency/${ipam.name}`, value: { at: clock.now() } } as const;
      while (!(await store.transact([], [knock]).catch(() => ({ committed: false }))).committed)
        await sleep(20);
      while (store.status().waiting > 0) await sleep(5);
      await ipam.settled();
    }
  };
  await settled();
  return {
    nodes,
    settled,
    close: async () => {
      for (const { syncer } of nodes) syncer.stop();
      await Promise.all(nodes.map(({ store }) => store.close()));
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
