/**
 * One allocator of the chaos test: a node with its own local store on a shared etcd, which does everything that addresses can have
 * done to them, slowly and quickly, and dies at any moment, by its own hand too: before and after each access to a store or the ledger.
 *
 * In: node, directory, etcd's endpoint, odds of a death (0: none), `work` or `settle`. Out: on standard output a line for each operation;
 * a ledger (ledger.ts) that says what it was told, fsynced. Never: a line in the ledger that it was not told.
 */
import { writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { IpamNode, silent } from '../../lab/ipam-node.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { asNetctlError } from '../../src/lib/errors.ts';
import type { Address } from '../../src/model/ip.ts';
import { EtcdStore } from '../../src/store/etcd.ts';
import { ReplicatedStore } from '../../src/store/replicated.ts';
import { SqliteStore } from '../../src/store/sqlite.ts';
import type { Store } from '../../src/store/store.ts';
import { Ledger } from './ipam-chaos-ledger.ts';
import { chance, isExpected, pick, verbsOf } from './ipam-chaos-verbs.ts';

const [name = '', directory = '', endpoint = '', odds = '0', manner = 'work'] = process.argv.slice(2);

function perhapsDie(): void {
  if (chance(Number(odds))) process.kill(process.pid, 'SIGKILL');
}

async function latency(): Promise<void> {
  perhapsDie();
  if (chance(0.3)) await sleep(Math.random() * 8);
  if (chance(0.003)) await sleep(300);
  perhapsDie();
}

/** The local store answers in the order of the calls, so it is not delayed: only deaths. */
function mortal(store: Store, mishap: () => Promise<void> | void): Store {
  return {
    get: (key) => store.get(key),
    list: (prefix) => store.list(prefix),
    watch: (prefix, after, watcher) => store.watch(prefix, after, watcher),
    close: () => store.close(),
    ...(store.settled === undefined ? {} : { settled: () => store.settled!() }),
    ...(store.flush === undefined ? {} : { flush: () => store.flush!() }),
    transact: async (compares, writes, manner) => {
      const wait = mishap();
      if (wait !== undefined) await wait;
      const result = await store.transact(compares, writes, manner);
      const more = mishap();
      if (more !== undefined) await more;
      return result;
    },
  };
}

// Timers and connections of the stores do not keep a process; this one lives until it is killed.
setInterval(() => undefined, 60_000);
const ledger = new Ledger(join(directory, 'ledger'), perhapsDie);
const etcd = new EtcdStore({
  endpoints: [endpoint],
  prefix: '/netctl/v1/',
  clock: systemClock,
  logger: silent,
});
const replicated = await ReplicatedStore.open({
  node: name,
  local: mortal(new SqliteStore({ path: join(directory, 'netctl.db') }), perhapsDie),
  cluster: mortal(etcd, latency),
  clock: systemClock,
  logger: silent,
  // On a busy machine it takes long; who is not answered dies, and that is to be the exception.
  patienceMilliseconds: 60_000,
});
const node = new IpamNode(name, replicated, systemClock);
await node.follow();
await isLive();
await adopt();
if (manner === 'settle') await settle();
else await Promise.all([...Array.from({ length: 4 }, work), expire()]);

/**
 * Until this node has what the cluster has, and the cluster what it has: a decision of the cluster comes after all that an earlier life
 * had asked for, and arrives here after all that was decided before it.
 */
async function isLive(): Promise<void> {
  for (let isDecided = false; !isDecided; ) {
    const knock = { kind: 'put', key: `idempotency/${name}`, value: { at: Date.now() } } as const;
    isDecided = await replicated.transact([], [knock]).then(
      ({ committed }) => committed,
      () => false,
    );
    if (!isDecided) await sleep(50);
  }
  while (replicated.status().waiting > 0) await sleep(10);
  const { revision } = await replicated.list('');
  while (node.book.revision < revision) await sleep(5);
}

/** What was told is there; what is there and was not told (it died before it heard of it) is told now. */
async function adopt(): Promise<void> {
  for (const [address, hold] of ledger.held()) {
    const record = node.record(address);
    const isSame = record !== undefined && record.node === name && record.endpoint === hold.by;
    // A bind or a transfer may have been carried out and not told: it is this process's anyway.
    if (!isSame && record?.owner.instance.split('.')[0] !== name) ledger.lost(address, hold, record);
  }
  for (const address of node.book.addresses().keys()) told(address);
}

/** Enters the address as the record says, if it is this process's. */
function told(address: Address): void {
  const record = node.record(address);
  if (record === undefined || record.state === 'cooldown') return;
  const { owner, endpoint: id, container, reservation, state } = record;
  const isFixed = owner.instance.startsWith('fixed');
  if (isFixed ? record.node !== name || id === null : owner.instance.split('.')[0] !== name) return;
  const by = id ?? container ?? (state === 'reserved' ? reservation : null) ?? owner.instance;
  ledger.hold(address, by, record);
}

/** Ends when local store and etcd have the same; others may still be bringing theirs. */
async function settle(): Promise<void> {
  const visible = ({ entries }: Awaited<ReturnType<Store['list']>>): string[] =>
    entries
      .filter(({ key }) => !/^(local\/|replication\/|cluster$)/.test(key))
      .map(({ key, value }) => `${key} ${JSON.stringify(value)}`);
  const end = performance.now() + 60_000;
  for (let differ = ['']; differ.length > 0; ) {
    // All come back at once: etcd may take longer than a call has.
    const read = await etcd.list('').then(visible, () => null);
    if (read === null && performance.now() < end) continue;
    const [here, there] = [await replicated.list('').then(visible), read ?? []];
    const [mine, theirs] = [new Set(here), new Set(there)];
    differ = [...here.filter((line) => !theirs.has(line)), ...there.filter((line) => !mine.has(line))];
    if (performance.now() < end) await sleep(50);
    else {
      writeSync(1, `unexpected difference ${differ.slice(0, 6).join(' ')}\n`);
      process.exit(1);
    }
  }
  writeSync(1, 'settled\n');
  await replicated.close();
  process.exit(0);
}

async function expire(): Promise<void> {
  for (;;) {
    await sleep(200 + Math.random() * 400);
    await node.ipam.expire().catch(tolerate);
  }
}

/** @param lane what one worker has is no other worker's of this process */
async function work(_: unknown, lane: number): Promise<void> {
  const verbs = verbsOf(node, ledger, told, `${name}.${lane}`);
  for (;;) {
    const verb = pick(verbs);
    let outcome = 'done';
    try {
      await verb();
    } catch (error) {
      outcome = tolerate(error);
    }
    writeSync(1, `${verb.name} ${outcome}\n`);
    await sleep(Math.random() * 15);
  }
}

function tolerate(error: unknown): string {
  const { code, message } = asNetctlError(error);
  // Not known whether it was done: the next life looks.
  if (code === 'STORE_UNAVAILABLE') process.kill(process.pid, 'SIGKILL');
  if (isExpected(code)) return code;
  writeSync(1, `unexpected ${code} ${message} ${(error as Error).stack}`.replaceAll('\n', ' ').concat('\n'));
  process.exit(1);
}
