/**
 * `make bench`: how fast addresses are given out, next to what the same etcd does in the same run without us.
 *
 * In: names of parts (default: all). Out: rates and latencies with their ratios: medians of rounds in which all take turns, so that what
 * else the machine does falls on all. Never: a claim about the network between hosts (etcd is on this machine).
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { furnish, type IpamCluster, startNodes } from '../lab/ipam-cluster.ts';
import { IpamNode } from '../lab/ipam-node.ts';
import { systemClock } from '../src/lib/clock.ts';
import { SqliteStore } from '../src/store/sqlite.ts';
import type { Json, Store } from '../src/store/store.ts';
import { type Cluster, startEtcd } from '../test/kernel/etcd-harness.ts';
import { measureBook } from './ipam-book.ts';
import { Floor } from './ipam-floor.ts';
import { measureNodes } from './ipam-nodes.ts';
import { type Measured, measure, ratio, summary } from './measure.ts';
import { median, quantile } from './statistics.ts';

const rounds = 3;
const callers = [1, 16, 100];
/** With more than 10,000 waiting, states would be compared instead: not what a burst of containers is. */
const mostKeptWaiting = 9000;
/** Blocks of 65,536, so that what is measured is not the claim of a block. */
const pools = {
  r: { cidr: '10.0.0.0/8', blockSize: 16, cooldownSeconds: 0 },
  m: { cidr: '11.0.0.0/8', blockSize: 16, cooldownSeconds: 0, kind: 'macvlan' },
};
/** As large as an endpoint's record. */
const value: Json = { kind: 'routed', filler: 'x'.repeat(400) };

const parts: Readonly<Record<string, (etcd: Cluster) => Promise<void>>> = {
  rates,
  decision,
  requests,
  nodes: (etcd) => measureNodes(etcd),
  book: measureBook,
};

const chosen = process.argv.slice(2);
const etcd = await startEtcd();
try {
  for (const [name, part] of Object.entries(parts))
    if (chosen.length === 0 || chosen.includes(name)) await part(etcd);
} finally {
  await etcd.dispose();
}

/** One node with an etcd behind it, in a keyspace of its own. */
async function nodeOn(cluster: Cluster, prefix: string): Promise<IpamCluster> {
  await furnish(cluster.open({ prefix }), ['n1'], pools);
  return startNodes(['n1'], () => cluster.open({ prefix }));
}

async function rates(cluster: Cluster): Promise<void> {
  const results = new Map<string, Measured[]>();
  const note = (name: string, measured: Measured): void => {
    results.set(name, [...(results.get(name) ?? []), measured]);
  };
  for (let round = 0; round < rounds; round++) {
    const raw = cluster.open({ prefix: `/raw${round}/` });
    note('one key', await compareAndSwap(raw));
    for (const count of callers) {
      const calls = count === 1 ? 1000 : 6000;
      note(`bare sqlite ${count}`, await bareSqlite(count, count === 1 ? 2000 : 20_000));
      note(`raw ${count}`, await measure(count, calls, (number) => rawAllocation(raw, `${count}/${number}`)));
      note(`sqlite ${count}`, await onSqlite(count, count === 1 ? 2000 : 20_000));
      const prefix = `/r${round}-${count}/`;
      const { nodes, close } = await nodeOn(cluster, prefix);
      const { ipam, store } = nodes[0]!;
      await ipam.attach('warm');
      const arrived = async (): Promise<void> => {
        while (store.status().waiting > 0) await new Promise((resolve) => setTimeout(resolve, 2));
      };
      await measure(count, count === 1 ? 500 : 3000, (number) => ipam.attach(`w${number}`));
      await arrived();
      const start = performance.now();
      const own = count === 1 ? 2000 : mostKeptWaiting;
      note(`own ${count}`, await measure(count, own, (number) => ipam.attach(`e${number}`)));
      await arrived();
      note(`own, at etcd ${count}`, {
        latencies: [],
        rate: (own / (performance.now() - start)) * 1000,
      });
      if (count === callers.at(-1)) {
        await cluster.members[0]!.freeze();
        note('own, frozen', await measure(count, mostKeptWaiting, (number) => ipam.attach(`f${number}`)));
        cluster.members[0]!.thaw();
        await arrived();
      }
      const decided = count === 1 ? 500 : 3000;
      note(
        `decided ${count}`,
        await measure(count, decided, (number) => ipam.attach(`m${number}`, { kind: 'macvlan' })),
      );
      await close();
    }
  }
  const of = (name: string): Measured[] => results.get(name)!;
  console.log(`Allocations, address and endpoint in one transaction; medians of ${rounds} rounds in turns`);
  console.log(`  etcd alone, compare-and-swap of one key        ${summary(of('one key'))}`);
  for (const count of callers) {
    const raw = of(`raw ${count}`);
    const line = (name: string, what: string): void =>
      console.log(
        `  ${what.padEnd(46)} ${summary(of(name))}   ${ratio(of(name), raw).toFixed(2)} of etcd alone`,
      );
    console.log(`  ${count} at a time`);
    console.log(`  ${'  etcd alone, separate keys'.padEnd(46)} ${summary(raw)}`);
    console.log(`  ${'  SQLite alone, three records'.padEnd(46)} ${summary(of(`bare sqlite ${count}`))}`);
    line(`sqlite ${count}`, '  SQLite, a host alone');
    line(`own ${count}`, '  own block, etcd behind it');
    const inEtcd = Math.round(median(of(`own, at etcd ${count}`).map(({ rate }) => rate)));
    console.log(`  ${'    until all of them are in etcd'.padEnd(46)} ${String(inEtcd).padStart(7)}/s`);
    if (count === callers.at(-1)) line('own, frozen', '  own block, etcd frozen');
    line(`decided ${count}`, '  decided by etcd (macvlan)');
  }
  const [most, many] = [callers.at(-1), of(`own ${callers.at(-1)}`)];
  const rate = Math.round(median(many.map((measured) => measured.rate)));
  const alone = Math.round(median(of(`sqlite ${most}`).map((measured) => measured.rate)));
  console.log(`  ${most} callers: a host alone ${alone}/s, with etcd behind it ${rate}/s (aim: 20,000)`);
  console.log(`  ${ratio(many, of('one key')).toFixed(1)} times etcd's rate for one key (aim: 5)\n`);
}

/** What the disk and the database alone allow: no plan, no picture, nobody who watches. */
async function bareSqlite(count: number, calls: number): Promise<Measured> {
  const directory = mkdtempSync(join(tmpdir(), 'netctl-bench-'));
  const store = new SqliteStore({ path: join(directory, 'netctl.db') });
  const measured = await measure(count, calls, (number) => rawAllocation(store, String(number)));
  await store.close();
  rmSync(directory, { recursive: true });
  return measured;
}

async function onSqlite(count: number, calls: number): Promise<Measured> {
  const directory = mkdtempSync(join(tmpdir(), 'netctl-bench-'));
  const store = new SqliteStore({ path: join(directory, 'netctl.db') });
  await furnish(store, ['n1'], pools);
  const node = new IpamNode('n1', store, systemClock);
  const syncer = await node.follow();
  await node.attach('warm');
  const measured = await measure(count, calls, (number) => node.attach(`e${number}`));
  syncer.stop();
  await store.close();
  rmSync(directory, { recursive: true });
  return measured;
}

/** What etcd would have to do for an allocation by itself: one compare, three writes. */
async function rawAllocation(store: Store, name: string): Promise<void> {
  const keys = [`a/${name}`, `b/${name}`, `c/${name}`] as const;
  const result = await store.transact(
    [{ kind: 'absent', key: keys[0] }],
    keys.map((key) => ({ kind: 'put', key, value })),
  );
  if (!result.committed) throw new Error(`${name} was there already`);
}

async function compareAndSwap(store: Store, calls = 1000): Promise<Measured> {
  let revision = 0;
  return measure(1, calls, async () => {
    revision = await swap(store, revision);
  });
}

async function swap(store: Store, revision: number): Promise<number> {
  const key = 'one';
  const result = await store.transact(
    [revision === 0 ? { kind: 'absent', key } : { kind: 'modified', key, revision }],
    [{ kind: 'put', key, value }],
  );
  if (!result.committed) throw new Error('nobody else writes this key');
  return result.revision;
}

/** One at a time, in turns with a bare compare-and-swap. */
async function decision(cluster: Cluster): Promise<void> {
  const { nodes, close } = await nodeOn(cluster, '/decision/');
  const { ipam } = nodes[0]!;
  const raw = cluster.open({ prefix: '/swap/' });
  const floor = new Floor(cluster.open({ prefix: '/shown/' }), value);
  const directory = mkdtempSync(join(tmpdir(), 'netctl-bench-'));
  const local = new SqliteStore({ path: join(directory, 'netctl.db') });
  const ours: number[] = [];
  const theirs: number[] = [];
  const allocations: number[] = [];
  const shown: number[] = [];
  const stored: number[] = [];
  let revision = 0;
  const timed = async (times: number[], act: () => Promise<unknown>): Promise<void> => {
    const before = performance.now();
    await act();
    times.push(performance.now() - before);
    // What one leaves to be done after its answer is not the next one's: SQLite's commit, watches.
    await new Promise((resolve) => setTimeout(resolve, 1));
  };
  // So long that what runs is compiled, as in an agent that has been up for a while.
  for (let turn = -1000; turn < 700; turn++) {
    const [a, b, c, d, e] = turn < 0 ? [[], [], [], [], []] : [ours, theirs, allocations, shown, stored];
    await timed(a!, () => ipam.attach(`d${turn}`, { kind: 'macvlan' }));
    await timed(b!, async () => {
      revision = await swap(raw, revision);
    });
    await timed(c!, () => rawAllocation(raw, `d${turn}`));
    await timed(d!, () => floor.shown(`d${turn}`));
    await timed(e!, () => floor.stored(`e${turn}`, local));
  }
  await close();
  floor.close();
  await local.close();
  rmSync(directory, { recursive: true });
  const line = (what: string, times: readonly number[]): void =>
    console.log(
      `  ${what.padEnd(46)} p50 ${median(times).toFixed(2)} ms   p99 ${quantile(times, 0.99).toFixed(2)} ms`,
    );
  console.log('One allocation that etcd decides, 700 in turns with bare transactions of the same etcd');
  line('allocation, in the local store when answered', ours);
  line('bare compare-and-swap', theirs);
  line('bare transaction of its three records', allocations);
  line('the same with a fence, until a watch shows it', shown);
  line('the same with a fence, and into SQLite', stored);
  const ofSwap = (times: readonly number[]): string =>
    median(times.map((took, turn) => took / theirs[turn]!)).toFixed(2);
  console.log(`  pair by pair of the swap: ${ofSwap(ours)} (aim: 1.25); under it, without plan and picture:`);
  console.log(
    `  three records ${ofSwap(allocations)}, with fence and event ${ofSwap(shown)}, with fence and SQLite ${ofSwap(stored)}\n`,
  );
}

/** Counted at etcd: started calls of its KV service. */
async function requests(cluster: Cluster): Promise<void> {
  const started = async (): Promise<number> => {
    const text = await (await fetch(`${cluster.endpoints[0]}/metrics`)).text();
    const lines = text.matchAll(/^grpc_server_started_total\{.*grpc_service="etcdserverpb.KV".*\} (\d+)$/gm);
    return [...lines].reduce((sum, [, count]) => sum + Number(count), 0);
  };
  const { nodes, settled, close } = await nodeOn(cluster, '/requests/');
  const { ipam, store } = nodes[0]!;
  await ipam.attach('first');
  await settled();
  const addAndDel = async (name: string): Promise<void> => {
    const { addresses } = await ipam.attach(name);
    await ipam.release(name, addresses);
  };
  const arrived = async (): Promise<void> => {
    while (store.status().waiting > 0) await new Promise((resolve) => setTimeout(resolve, 1));
  };
  console.log('Requests to etcd for ADD and DEL from an own block, counted at etcd');
  const before = await started();
  await cluster.members[0]!.freeze();
  await measure(1, 200, (number) => addAndDel(`f${number}`));
  cluster.members[0]!.thaw();
  await arrived();
  console.log(
    `  etcd frozen: 200 ADD and 200 DEL answered, so 0 on their path (aim: 0); ${(await started()) - before} afterwards`,
  );
  for (const count of [1, 16, 100]) {
    const from = await started();
    await measure(count, 1000, (number) => addAndDel(`${count}-${number}`));
    await arrived();
    const each = ((await started()) - from) / 2000;
    console.log(
      `  ${String(count).padStart(3)} at a time: ${each.toFixed(3)} for each ADD or DEL, after its answer (aim: at most 1)`,
    );
  }
  console.log('');
  await close();
}
