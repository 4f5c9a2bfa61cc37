/**
 * Chaos on one real etcd: allocators in processes of their own, killed at random by this test and by themselves; then the truth from
 * outside, by the ledgers of the processes and what is in etcd.
 *
 * In: how many processes and operations. Out: what was done. Never: a process left behind; a pass in which nobody was killed.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { check } from '../../src/ipam/check.ts';
import { readSnapshot } from '../../src/ipam/snapshot.ts';
import type { Address } from '../../src/model/ip.ts';
import { addressKey, nodeKey, poolKey, tenantKey } from '../../src/model/keys.ts';
import { poolSchema } from '../../src/model/records.ts';
import type { Json, Store } from '../../src/store/store.ts';
import { startEtcd } from './etcd-harness.ts';
import { historyOf, judge } from './ipam-chaos-ledger.ts';

const cooldownSeconds = 1;
const quota = 25;

const pools = {
  r4: { cidr: '10.65.0.0/21', blockSize: 27, maxBlocksPerNode: 6, cooldownSeconds },
  r6: { cidr: 'fd00:65::/112', blockSize: 123, cooldownSeconds },
  m4: { cidr: '10.66.0.0/23', blockSize: 26, kind: 'macvlan', cooldownSeconds },
};

export interface ChaosOptions {
  readonly processes: number;
  readonly operations: number;
  /** Operations between two kills from outside, on average: as many on a busy machine as on an idle one. */
  readonly killEach: number;
  /** Odds that a process kills itself at each access to a store or the ledger. */
  readonly odds: number;
}

export interface ChaosReport {
  readonly operations: number;
  readonly kills: number;
  readonly deaths: number;
  readonly holds: number;
  /** How often each verb had which outcome. */
  readonly outcomes: ReadonlyMap<string, number>;
}

/** @throws AssertionError with what contradicts */
export async function chaos({ processes, operations, killEach, odds }: ChaosOptions): Promise<ChaosReport> {
  const etcd = await startEtcd();
  const root = mkdtempSync(join(tmpdir(), 'netctl-chaos-'));
  const program = bundled(root);
  const names = Array.from({ length: processes }, (_, index) => `n${String(index).padStart(2, '0')}`);
  const outcomes = new Map<string, number>();
  const problems: string[] = [];
  const living = new Map<string, ChildProcess>();
  let done = 0;
  let kills = 0;
  let deaths = 0;
  let over = false;

  function start(name: string, manner: 'work' | 'settle'): Promise<string[]> {
    const life = [name, join(root, name), etcd.endpoints[0]!, String(manner === 'work' ? odds : 0), manner];
    const child = spawn(process.execPath, [program, ...life], { stdio: ['ignore', 'pipe', 'pipe'] });
    living.set(name, child);
    const lines: string[] = [];
    createInterface({ input: child.stdout }).on('line', (line) => {
      lines.push(line);
      if (line.startsWith('unexpected')) problems.push(`${name}: ${line}`);
      else if (manner === 'work') {
        done++;
        outcomes.set(line, (outcomes.get(line) ?? 0) + 1);
      }
    });
    child.stderr.on('data', (bytes) => problems.push(`${name}: ${bytes}`));
    return new Promise((resolve) => {
      child.once('close', (_, signal) => {
        living.delete(name);
        if (signal === 'SIGKILL') deaths++;
        else if (manner === 'work') problems.push(`${name} ended by itself: ${lines.at(-1)}`);
        resolve(lines);
      });
    });
  }

  /** Lives, one after the other, until all is done. */
  async function live(name: string): Promise<void> {
    while (!over) await start(name, 'work');
  }

  try {
    for (const name of names) mkdirSync(join(root, name));
    const store = etcd.open({ prefix: '/netctl/v1/' });
    await furnish(store, names);
    const lives = names.map(live);
    for (let next = 0; done < operations && problems.length === 0; ) {
      await sleep(20);
      if (done < next) continue;
      next = done + Math.random() * 2 * killEach;
      const child = living.get(names[Math.floor(Math.random() * names.length)]!);
      if (child?.kill('SIGKILL')) kills++;
    }
    over = true;
    for (const child of living.values()) child.kill('SIGKILL');
    await Promise.all(lives);
    assert.deepEqual(problems, []);

    // Recovery: all come back, replicate, and see the same.
    const settled = await Promise.all(names.map((name) => start(name, 'settle')));
    assert.deepEqual(problems, []);
    assert.deepEqual(
      settled.flat(),
      names.map(() => 'settled'),
    );

    const holds = await verify(store, new Map(names.map((name) => [name, join(root, name, 'ledger')])));
    return { operations: done, kills, deaths, holds, outcomes };
  } finally {
    over = true;
    for (const child of living.values()) child.kill('SIGKILL');
    await etcd.dispose();
    rmSync(root, { recursive: true, force: true });
  }
}

/** One file: a process that starts from the sources needs a second of a processor, from this a fifth of that. */
function bundled(root: string): string {
  const program = join(root, 'process.mjs');
  const here = import.meta.dirname;
  const require =
    'import { createRequire as makeRequire } from "node:module"; const require = makeRequire(import.meta.url);';
  execFileSync(join(here, '../../node_modules/.bin/esbuild'), [
    ...['--bundle', '--platform=node', '--target=node24', '--log-level=error', '--format=esm'],
    ...[`--banner:js=${require}`, `--outfile=${program}`, join(here, 'ipam-chaos-process.ts')],
  ]);
  return program;
}

async function furnish(store: Store, names: readonly string[]): Promise<void> {
  const put = (key: string, value: unknown) =>
    store.transact([], [{ kind: 'put', key, value: value as Json }]);
  for (const [name, pool] of Object.entries(pools)) await put(poolKey(name), poolSchema.parse(pool));
  await put(tenantKey('limited'), { maxAddresses: quota });
  for (const name of names)
    await put(nodeKey(name), {
      address4: null,
      address6: null,
      asNumber: null,
      labels: {},
      version: '0',
      startedAt: new Date().toISOString(),
    });
}

/** What etcd has of the address, from the beginning, with the transactions of the nodes that made it so. */
async function changesOf(address: Address, store: Store): Promise<string[]> {
  const key = addressKey(address);
  const history: string[] = [];
  const { revision: last } = await store.list(key);
  const end = Promise.withResolvers<void>();
  const watch = store.watch('', 0, {
    onChanges: ({ revision, changes }) => {
      const change = changes.find((one) => one.key === key);
      const fences = changes.filter((one) => one.key.startsWith('replication/'));
      if (change !== undefined)
        history.push(
          `etcd ${revision} ${JSON.stringify(change.entry?.value)} ${JSON.stringify(fences.map((one) => [one.key, one.entry?.value]))}`,
        );
      if (revision >= last) end.resolve();
    },
    onEnd: end.reject,
  });
  await end.promise;
  watch.close();
  return history;
}

/** The ledgers among themselves, and against what is in etcd. */
async function verify(store: Store, ledgers: ReadonlyMap<string, string>): Promise<number> {
  const told = judge(ledgers, cooldownSeconds);
  for (const { address, what } of told.contradictions) {
    const history = [...historyOf(address, ledgers), ...(await changesOf(address, store))];
    assert.fail([`${told.contradictions.length} contradictions: ${what}`, ...history].join('\n'));
  }
  const { entries, revision } = await store.list('');
  const snapshot = readSnapshot(entries, revision);
  assert.deepEqual(check(snapshot, new Date()), []);
  const standing = [...snapshot.addresses].filter(([, { value }]) => {
    const { state, owner, endpoint } = value;
    // Nobody waits for what was reserved briefly, and fixed addresses without an endpoint are nobody's in particular.
    return (
      state !== 'cooldown' && !owner.instance.startsWith('brief') && (owner.app !== 'f' || endpoint !== null)
    );
  });
  assert.deepEqual(
    standing.map(([address]) => address).sort(),
    [...told.held.keys()].sort(),
    'what the processes were told is what there is',
  );
  for (const [address, owner] of told.fixed) {
    const { tenant, app, instance } = snapshot.addresses.get(address)!.value.owner;
    assert.equal(`${tenant}/${app}/${instance}`, owner, `${address} is kept for ${owner}`);
  }
  assert.ok(told.most('limited') <= quota, `${told.most('limited')} addresses are more than the quota`);
  return told.holds;
}
