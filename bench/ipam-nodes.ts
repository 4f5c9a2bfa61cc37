/**
 * Many nodes at once on one etcd, in one process: how much of etcd's rate is left for addresses.
 *
 * In: an etcd. Out: allocations per second until etcd has them all, next to etcd's own rate with as many callers. What each host does for
 * itself is left out, since here all would share two processors: each node hears of its own changes only, and its local store
 * is in memory. Beside it the same transactions by a client that does nothing else, and etcd's own processor time: where each host has
 * processors of its own, as here none has, etcd's is what they share. Never: a node that shares more than the connection's process with
 * another.
 */
import { furnish, startNodes } from '../lab/ipam-cluster.ts';
import { keyPrefix } from '../src/model/keys.ts';
import { MemoryStore } from '../src/store/memory.ts';
import type { ChangeSet, Json, Revision, Store, Watch, Watcher } from '../src/store/store.ts';
import type { Cluster } from '../test/kernel/etcd-harness.ts';
import { Recording } from './ipam-replay.ts';
import { type Measured, measure, ratio, summary } from './measure.ts';
import { median } from './statistics.ts';

const rounds = 3;
const calls = 3000;
const value: Json = { kind: 'routed', filler: 'x'.repeat(400) };

export async function measureNodes(etcd: Cluster, counts: readonly number[] = [16, 100]): Promise<void> {
  console.log(`Many nodes at once on one etcd; medians of ${rounds} rounds in turns`);
  for (const count of counts) {
    const results: Record<'raw' | 'own' | 'decided', Measured[]> = { raw: [], own: [], decided: [] };
    const replayed: Record<'own' | 'decided', Measured[]> = { own: [], decided: [] };
    const sizes: Record<'own' | 'decided', number[]> = { own: [], decided: [] };
    const costs: Record<'raw' | 'own' | 'decided', number[]> = { raw: [], own: [], decided: [] };
    for (let round = 0; round < rounds; round++) {
      const raw = etcd.open({ prefix: `/rawnodes${count}-${round}/` });
      const before = await etcdCpu(etcd);
      results.raw.push(
        await measure(count, calls, (number) =>
          raw.transact(
            [{ kind: 'absent', key: `a/${number}` }],
            ['a', 'b', 'c'].map((kind) => ({ kind: 'put', key: `${kind}/${number}`, value })),
          ),
        ),
      );
      costs.raw.push((await etcdCpu(etcd)) - before);
      for (const kind of ['routed', 'macvlan'] as const) {
        const name = kind === 'routed' ? 'own' : 'decided';
        const recording = new Recording();
        const { cpu, ...measured } = await allocations(
          etcd,
          `/nodes${count}-${round}-${kind}/`,
          count,
          kind,
          recording,
        );
        results[name].push(measured);
        costs[name].push(cpu);
        const took = await recording.replay(etcd.open({ prefix: `/again${count}-${round}-${kind}/` }));
        replayed[name].push({ latencies: [], rate: (calls / took) * 1000 });
        sizes[name].push(calls / recording.transactions);
      }
    }
    const line = (what: string, measured: Measured[]): void =>
      console.log(
        `  ${what.padEnd(46)} ${summary(measured)}   ${ratio(measured, results.raw).toFixed(2)} of etcd alone`,
      );
    console.log(`  ${count} nodes, one caller each`);
    line('  etcd alone, as many callers, separate keys', results.raw);
    const again = (name: 'own' | 'decided'): void => {
      console.log(
        `      the same transactions (${median(sizes[name]).toFixed(1)} allocations each) by a bare client: ` +
          `${Math.round(median(replayed[name].map(({ rate }) => rate)))}/s, ` +
          `${ratio(replayed[name], results.raw).toFixed(2)} of etcd alone; ours ${ratio(results[name], replayed[name]).toFixed(2)} of it`,
      );
      const [each, alone] = [median(costs[name]), median(costs.raw)].map((cpu) => cpu / calls);
      console.log(
        `      etcd's processor time for each: ${each!.toFixed(0)} µs, alone ${alone!.toFixed(0)} µs: ` +
          `${(alone! / each!).toFixed(2)} of its rate where it is the limit`,
      );
    };
    line('  own blocks, until all are in etcd', results.own);
    again('own');
    line('  decided by etcd (macvlan)', results.decided);
    again('decided');
    console.log('    (aim: 0.8)');
  }
  console.log('');
}

async function allocations(
  etcd: Cluster,
  prefix: string,
  count: number,
  kind: 'routed' | 'macvlan',
  recording: Recording,
): Promise<Measured & { readonly cpu: number }> {
  const names = Array.from({ length: count }, (_, number) => `n${number}`);
  const shared = etcd.open({ prefix });
  await furnish(shared, names, {
    r: { cidr: '10.0.0.0/8', blockSize: 20 },
    // Nodes that do not hear of each other must not meet: who loses a race waits until it sees by whom.
    m: { cidr: 'fd00::/64', blockSize: 112, kind: 'macvlan' },
  });
  const exchange = new Exchange(shared, recording);
  const cluster = await startNodes(names, (name) => exchange.of(name), { local: () => new MemoryStore() });
  for (const { ipam } of cluster.nodes) await ipam.attach('warm', { kind });
  await cluster.settled();
  recording.start();
  const before = await etcdCpu(etcd);
  const start = performance.now();
  const { latencies } = await measure(count, calls, (number) =>
    cluster.nodes[number % count]!.ipam.attach(`e${number}`, { kind }),
  );
  for (const { store } of cluster.nodes)
    while (store.status().waiting > 0) await new Promise((resolve) => setTimeout(resolve, 1));
  const rate = (calls / (performance.now() - start)) * 1000;
  recording.stop();
  const cpu = (await etcdCpu(etcd)) - before;
  await cluster.close();
  exchange.close();
  return { latencies, rate, cpu };
}

/** Microseconds, of all its threads, as it tells itself. */
async function etcdCpu(etcd: Cluster): Promise<number> {
  const text = await (await fetch(`${etcd.endpoints[0]}/metrics`)).text();
  return Number(/^process_cpu_seconds_total (\S+)$/m.exec(text)![1]) * 1e6;
}

interface Listener {
  readonly name: string;
  readonly watcher: Watcher;
  readonly after: Revision;
  /** Of the log: what it has not heard yet. */
  next: number;
}

/** One watch for all: each transaction of a node rewrites `replication/<node>`, which says whose it is. */
class Exchange {
  readonly #store: Store;
  readonly #listeners = new Set<Listener>();
  /** All that the watch has told: who begins late begins where its snapshot ends, neither before nor after. */
  readonly #log: { readonly changeSet: ChangeSet; readonly owner: string | undefined }[] = [];
  readonly #recording: Recording;
  #watch: Watch | null = null;

  constructor(store: Store, recording: Recording) {
    this.#store = store;
    this.#recording = recording;
  }

  of(name: string): Store {
    const store = this.#store;
    const recording = this.#recording;
    return {
      get: (key) => store.get(key),
      list: (prefix) => store.list(prefix),
      transact: (compares, writes) => {
        recording.note(name, compares, writes);
        return store.transact(compares, writes);
      },
      watch: (_, after, watcher) => {
        const listener: Listener = { name, watcher, after, next: 0 };
        this.#listeners.add(listener);
        this.#watch ??= store.watch('', 0, {
          onChanges: (changeSet) => this.#deliver(changeSet),
          onEnd: (error) => {
            throw error;
          },
        });
        setImmediate(() => this.#tell(listener));
        return { close: () => void this.#listeners.delete(listener) };
      },
      close: async () => undefined,
    };
  }

  close(): void {
    this.#watch?.close();
  }

  #deliver(changeSet: ChangeSet): void {
    // Who loses a race for a block waits until it hears by whom: claims are for all, and made before the time is taken.
    const isClaim = changeSet.changes.some(({ key }) => key.startsWith(keyPrefix.block));
    const fence = changeSet.changes.find(({ key }) => key.startsWith('replication/'));
    const owner = isClaim ? undefined : fence?.key.split('/')[1];
    this.#log.push({ changeSet, owner });
    for (const listener of this.#listeners) this.#tell(listener);
  }

  #tell(listener: Listener): void {
    const { name, watcher, after } = listener;
    while (listener.next < this.#log.length && this.#listeners.has(listener)) {
      const { changeSet, owner } = this.#log[listener.next++]!;
      if (changeSet.revision > after && (owner === undefined || owner === name)) watcher.onChanges(changeSet);
    }
  }
}
