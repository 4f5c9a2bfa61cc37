/**
 * Many nodes at once on one etcd, in one process: how much of etcd's rate is left for addresses.
 *
 * In: an etcd. Out: allocations per second until etcd has them all, next to etcd's own rate with as many callers. What each host does for
 * itself is left out, since here all would share two processors: each node hears of its own changes only, and its local store
 * is in memory. Never: a node that shares more than the connection's process with another.
 */
import { furnish, startNodes } from '../lab/ipam-cluster.ts';
import { MemoryStore } from '../src/store/memory.ts';
import type { ChangeSet, Json, Store, Watcher } from '../src/store/store.ts';
import type { Cluster } from '../test/kernel/etcd-harness.ts';
import { type Measured, measure, ratio, summary } from './measure.ts';

const rounds = 3;
const value: Json = { kind: 'routed', filler: 'x'.repeat(400) };

export async function measureNodes(etcd: Cluster): Promise<void> {
  console.log(`Many nodes at once on one etcd; medians of ${rounds} rounds in turns`);
  for (const count of [16, 100]) {
    const results: Record<'raw' | 'own' | 'decided', Measured[]> = { raw: [], own: [], decided: [] };
    for (let round = 0; round < rounds; round++) {
      const raw = etcd.open({ prefix: `/rawnodes${count}-${round}/` });
      results.raw.push(
        await measure(count, 5000, (number) =>
          raw.transact(
            [{ kind: 'absent', key: `a/${number}` }],
            ['a', 'b', 'c'].map((kind) => ({ kind: 'put', key: `${kind}/${number}`, value })),
          ),
        ),
      );
      for (const kind of ['routed', 'macvlan'] as const) {
        const measured = await allocations(etcd, `/nodes${count}-${round}-${kind}/`, count, kind);
        results[kind === 'routed' ? 'own' : 'decided'].push(measured);
      }
    }
    const line = (what: string, measured: Measured[]): void =>
      console.log(
        `  ${what.padEnd(46)} ${summary(measured)}   ${ratio(measured, results.raw).toFixed(2)} of etcd alone`,
      );
    console.log(`  ${count} nodes, one caller each`);
    line('  etcd alone, as many callers, separate keys', results.raw);
    line('  own blocks, until all are in etcd', results.own);
    line('  decided by etcd (macvlan)', results.decided);
  }
  console.log('');
}

async function allocations(
  etcd: Cluster,
  prefix: string,
  count: number,
  kind: 'routed' | 'macvlan',
): Promise<Measured> {
  const names = Array.from({ length: count }, (_, number) => `n${number}`);
  const shared = etcd.open({ prefix });
  await furnish(shared, names, {
    r: { cidr: '10.0.0.0/8', blockSize: 20 },
    m: { cidr: '11.0.0.0/8', blockSize: 20, kind: 'macvlan' },
  });
  const exchange = new Exchange(shared);
  const cluster = await startNodes(
    names,
    (name) => exchange.of(name),
    () => new MemoryStore(),
  );
  for (const { ipam } of cluster.nodes) await ipam.attach('warm', { kind });
  await cluster.settled();
  const start = performance.now();
  const calls = 6000;
  const { latencies } = await measure(count, calls, (number) =>
    cluster.nodes[number % count]!.ipam.attach(`e${number}`, { kind }),
  );
  for (const { store } of cluster.nodes)
    while (store.status().waiting > 0) await new Promise((resolve) => setTimeout(resolve, 1));
  const rate = (calls / (performance.now() - start)) * 1000;
  await cluster.close();
  return { latencies, rate };
}

/** One watch for all: each transaction of a node rewrites `replication/<node>`, which says whose it is. */
class Exchange {
  readonly #store: Store;
  readonly #watchers = new Map<string, Watcher>();
  #isWatching = false;

  constructor(store: Store) {
    this.#store = store;
  }

  of(name: string): Store {
    const store = this.#store;
    return {
      get: (key) => store.get(key),
      list: (prefix) => store.list(prefix),
      transact: (compares, writes) => store.transact(compares, writes),
      watch: (_, after, watcher) => {
        this.#watchers.set(name, watcher);
        if (!this.#isWatching) {
          this.#isWatching = true;
          store.watch('', after, {
            onChanges: (changeSet) => this.#deliver(changeSet),
            onEnd: (error) => {
              throw error;
            },
          });
        }
        return { close: () => void this.#watchers.delete(name) };
      },
      close: async () => undefined,
    };
  }

  #deliver(changeSet: ChangeSet): void {
    const owner = changeSet.changes.find(({ key }) => key.startsWith('replication/'))?.key.split('/')[1];
    if (owner !== undefined) this.#watchers.get(owner)?.onChanges(changeSet);
    else for (const watcher of this.#watchers.values()) watcher.onChanges(changeSet);
  }
}
