/**
 * From nothing to complete: policy of a thousand endpoints with three profiles of ten rules each way, ours beside the programs that
 * load Felix's layouts; and a start that finds everything right. In CPU time: these take so long that other work of the machine falls
 * into them. Rounds are in one process, whose code is warm; an agent starts in a new one, which has a row of its own.
 *
 * In: a namespace of the caller's own. Out: tables. Never: a second start that wrote anything.
 */
import { resolve } from 'node:path';
import { mustRun } from '../lab/run.ts';
import { ownCpu, programCpu } from './cpu-time.ts';
import { felix2015, felixIptables, felixNftables, felixSets } from './felix.ts';
import { type BackendName, startPolicy } from './policy-part.ts';
import type { Order } from './policy-process.ts';
import { makeWorld, tell, type World } from './policy-world.ts';
import { printTable, quantile } from './statistics.ts';

const ENDPOINTS = 1000;
const policyProcess = resolve(import.meta.dirname, 'policy-process.ts');

/** Lists that endpoints share. */
export const benchSync = (): Promise<void> => measure([10, 100], { ours: 5, programs: 5 });

/** Each endpoint has its own: the programs take seconds for each of these. */
export const benchSyncOwnLists = (): Promise<void> => measure([1000], { ours: 3, programs: 1 });

async function measure(
  listCounts: readonly number[],
  rounds: { readonly ours: number; readonly programs: number },
): Promise<void> {
  for (const lists of listCounts) {
    const world = makeWorld({ endpoints: ENDPOINTS, lists });
    const first = new Map<string, number[]>();
    const again = new Map<string, number[]>();
    for (let round = 0; round < rounds.ours; round++) {
      note(first, 'netctl, nftables, new process', await newProcess(lists));
      for (const backend of ['nftables', 'iptables-legacy', 'iptables-nft'] as const) {
        const name = `netctl, ${backend}`;
        note(first, name, await firstStart(backend, world));
        note(again, name, await secondStart(backend, world));
      }
      if (round >= rounds.programs) continue;
      await mustRun(['ipset', 'restore'], { stdin: felixSets(world) });
      for (const [name, program, text] of [
        ['Felix of 2015, iptables-legacy-restore', ['iptables-legacy-restore'], felix2015(world)],
        ['Felix of 2015, iptables-nft-restore', ['iptables-nft-restore'], felix2015(world)],
        ['Felix, iptables-legacy-restore', ['iptables-legacy-restore'], felixIptables(world, false)],
        ['Felix, iptables-nft-restore', ['iptables-nft-restore'], felixIptables(world, false)],
        ['Felix, nft -f', ['nft', '-f', '-'], felixNftables(world, false)],
      ] as const) {
        note(first, name, await programCpu(program, text));
        // What the next one would have to clear away is not its own.
        if (program[0] !== 'iptables-legacy-restore') await mustRun(['nft', 'flush', 'ruleset']);
      }
      await forgetFelix();
    }
    console.log(
      `${ENDPOINTS} endpoints, ${lists} lists of three profiles; milliseconds of CPU time, median of ${rounds.ours}, of programs of ${rounds.programs}`,
    );
    const classic = quantile(first.get('Felix of 2015, iptables-legacy-restore')!, 0.5);
    printTable([
      ['', 'from nothing', '× 2015', 'when all is right'],
      ...Array.from(first, ([name, times]) => {
        const median = quantile(times, 0.5);
        const second = again.get(name);
        return [
          name,
          median.toFixed(0),
          (median / classic).toFixed(3),
          second === undefined ? '' : quantile(second, 0.5).toFixed(0),
        ];
      }),
    ]);
  }
}

/** The same in a process that does nothing else. */
async function newProcess(lists: number): Promise<number> {
  const order: Order = { backend: 'nftables', endpoints: ENDPOINTS, lists, members: 10, nat: false };
  const printed = await mustRun([process.execPath, policyProcess, JSON.stringify(order)]);
  await mustRun(['nft', 'flush', 'ruleset']);
  return Number(printed);
}

/** From the world in memory to the kernel. */
async function firstStart(name: BackendName, world: World): Promise<number> {
  const { engine, dataplane, linux } = await startPolicy(name);
  const took = await ownCpu(async () => {
    tell(engine, world);
    await dataplane.start();
  });
  linux.close();
  return took;
}

async function secondStart(name: BackendName, world: World): Promise<number> {
  const { engine, dataplane, linux, backend } = await startPolicy(name);
  const took = await ownCpu(async () => {
    tell(engine, world);
    await dataplane.start();
  });
  const { nftTransactions = 0, iptablesRuns = 0, ipsetRequests = 0 } = dataplane.status.writes;
  if (nftTransactions + iptablesRuns + ipsetRequests > 0) throw new Error(`${name}: a restart wrote`);
  await backend.removeAll();
  linux.close();
  return took;
}

async function forgetFelix(): Promise<void> {
  for (const program of ['iptables-legacy', 'iptables-nft'])
    for (const table of ['raw', 'mangle', 'nat', 'filter'])
      for (const what of ['-F', '-X']) await mustRun([program, '-t', table, what], { deadlineMs: 120_000 });
  await mustRun(['nft', 'flush', 'ruleset'], { deadlineMs: 60_000 });
  await mustRun(['ipset', 'destroy']);
}

function note(times: Map<string, number[]>, name: string, took: number): void {
  times.set(name, [...(times.get(name) ?? []), took]);
}
