/**
 * `make bench`: how long ADD and DEL take, netctl next to `ptp` + `host-local` of Debian's containernetworking-plugins, and on a wire
 * next to `macvlan` + `host-local`.
 *
 * In: a finished build; runs in scripts/sandbox. Out: median and 99th percentile of each, and their ratios. All are executed
 * the same way, in turns (every run starts with another one), so that what else the machine does falls on both. A
 * program that does nothing is measured along, to tell how fast the machine starts any.
 * Never: a run counted that failed.
 */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Host } from '../lab/host.ts';
import { run as execute, mustRun } from '../lab/run.ts';
import { pairedRatio, quantile } from './statistics.ts';

const runs = 200;
/** An agent runs for weeks: what is measured is one that has served a few hundred requests, not one whose code is still cold. */
const warmUps = 300;
const stopwatch = resolve(import.meta.dirname, '../dist/bench/spawn-time');

interface Contestant {
  readonly name: string;
  readonly program: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly netns: string;
  readonly add: number[];
  readonly del: number[];
}

// In the sandbox's own namespace: no detour by nsenter in what is measured.
const host = await Host.create({ name: 'bench', address: '192.168.78.21', netns: null });
try {
  await host.start();
  const added = await host.netctl(['pool', 'add', '10.65.0.0/16', '--cooldown', '1']);
  if (added.code !== 0) throw new Error(added.stderr);
  await host.mustNetctl([
    'pool',
    'add',
    '10.67.0.0/16',
    '--kind',
    'macvlan',
    '--name',
    'lan',
    '--cooldown',
    '1',
  ]);
  const hostLocal = (subnet: string) => ({
    type: 'host-local',
    subnet,
    dataDir: mkdtempSync(join(tmpdir(), 'host-local-')),
  });
  const ours = { type: 'netctl', socket: host.cniSocket };
  const [netctl, ptp, wired, macvlan] = await Promise.all([
    contestant('netctl', host.programs.cni, ours),
    contestant('ptp + host-local', '/usr/lib/cni/ptp', { type: 'ptp', ipam: hostLocal('10.66.0.0/16') }),
    contestant('netctl, macvlan', host.programs.cni, {
      ...ours,
      mode: 'macvlan',
      parent: 'eth0',
      pools: ['lan'],
    }),
    contestant('macvlan + host-local', '/usr/lib/cni/macvlan', {
      type: 'macvlan',
      master: 'eth0',
      ipam: hostLocal('10.68.0.0/16'),
    }),
  ]);
  const all = [netctl, ptp, wired, macvlan];
  // The first macvlan endpoint of a host costs some 20 ms more, in which the kernel rewrites its own code to ask for rules at more places.
  await call(wired, 'ADD', 'standing', 'net1');
  const nothing: number[] = [];
  for (let run = -warmUps; run < runs; run++) {
    const order = all.map((_, at) => all[(at + run + warmUps) % all.length]!);
    for (const command of ['ADD', 'DEL'] as const) {
      for (const one of order) {
        const took = await call(one, command, `bench-${run + warmUps}`);
        if (run >= 0) (command === 'ADD' ? one.add : one.del).push(took);
      }
    }
    nothing.push(await timed('/bin/true', {}, ''));
  }
  for (const [ours, theirs] of [
    [netctl, ptp],
    [wired, macvlan],
  ] as const) {
    report('ADD', ours, theirs, ({ add }) => add);
    report('DEL', ours, theirs, ({ del }) => del);
  }
  console.log(`for scale: to start and end /bin/true takes ${quantile(nothing, 0.5).toFixed(2)} ms (median)`);
} finally {
  await host.close();
}

async function contestant(
  name: string,
  program: string,
  plugin: Record<string, unknown>,
): Promise<Contestant> {
  const netns = `bench-${name.replace(/\W+/g, '-')}`;
  await mustRun(['ip', 'netns', 'add', netns]);
  return {
    name,
    program,
    config: { cniVersion: '1.0.0', name: `bench-${plugin['mode'] ?? plugin['type']}`, ...plugin },
    netns,
    add: [],
    del: [],
  };
}

function call(
  one: Contestant,
  command: 'ADD' | 'DEL',
  containerId: string,
  interfaceName = 'eth0',
): Promise<number> {
  const env = {
    CNI_COMMAND: command,
    CNI_CONTAINERID: containerId,
    CNI_NETNS: `/run/netns/${one.netns}`,
    CNI_IFNAME: interfaceName,
    CNI_PATH: '/usr/lib/cni',
  };
  return timed(one.program, env, JSON.stringify(one.config));
}

/** Milliseconds from posix_spawn to the program's end. @throws when the program fails, with what it printed */
async function timed(program: string, env: Record<string, string>, stdin: string): Promise<number> {
  const { code, stdout, stderr } = await execute([stopwatch, program], { env, stdin });
  if (code !== 0) throw new Error(`${program}: exit code ${code}: ${stdout}${stderr}`);
  return Number.parseFloat(stdout) / 1000;
}

function report(
  what: string,
  ours: Contestant,
  peer: Contestant,
  times: (one: Contestant) => number[],
): void {
  const line = (one: Contestant) =>
    `  ${one.name.padEnd(20)} median ${quantile(times(one), 0.5).toFixed(2).padStart(6)} ms   p99 ${quantile(times(one), 0.99).toFixed(2).padStart(6)} ms`;
  const medians = quantile(times(ours), 0.5) / quantile(times(peer), 0.5);
  console.log(
    `${what}, ${times(ours).length} runs each, in turns, after ${warmUps} to warm up\n${line(ours)}\n${line(peer)}`,
  );
  console.log(
    `  ratio of the medians ${medians.toFixed(3)}, median of the ratios pair by pair ${pairedRatio(times(ours), times(peer)).toFixed(3)}\n`,
  );
}
