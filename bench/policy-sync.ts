/**
 * From nothing to complete: policy of a thousand endpoints with three profiles of ten rules each way, ours beside the programs that
 * load Felix's layouts; and a start that finds everything right. In CPU time: these take so long that other work of the machine falls
 * into them.
 *
 * In: a namespace of the caller's own. Out: tables. Never: a second start that wrote anything.
 */
import { mustRun } from '../lab/run.ts';
import { ownCpu, programCpu } from './cpu-time.ts';
import { felix2015, felixIptables, felixNftables, felixSets } from './felix.ts';
import { type BackendName, startPolicy } from './policy-part.ts';
import { makeWorld, tell, type World } from './policy-world.ts';
import { printTable, quantile } from './statistics.ts';

const ENDPOINTS = 1000;
const ROUNDS = 5;

export async function benchSync(): Promise<void> {
  for (const lists of [10, 100, 1000]) {
    const world = makeWorld({ endpoints: ENDPOINTS, lists });
    const first = new Map<string, number[]>();
    const again = new Map<string, number[]>();
    for (let round = 0; round < ROUNDS; round++) {
      for (const backend of ['nftables', 'iptables-legacy', 'iptables-nft'] as const) {
        const name = `netctl, ${backend}`;
        note(first, name, await firstStart(backend, world));
        note(again, name, await secondStart(backend, world));
      }
      if (lists === 1000 && round > 0) continue;
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
      `${ENDPOINTS} endpoints, ${lists} lists of three profiles; milliseconds of CPU time, median of ${ROUNDS}`,
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
