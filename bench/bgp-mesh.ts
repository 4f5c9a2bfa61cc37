/**
 * 100 hosts in one lab: as a mesh, and as clients of three reflectors. What every BIRD has to hold, and how long they take; next to
 * configurations written by hand on the same hosts.
 *
 * In: a namespace of the caller's own; HOSTS in the environment for another number. Out: a table. The agents are stopped while BIRDs are
 * measured: all are started at once, and the clock stops when the last kernel has the blocks of all. Never: agents' own work in
 * a figure of BIRD's.
 */
import { readFileSync } from 'node:fs';
import { Lab } from '../lab/lab.ts';
import type { LabNode } from '../lab/node.ts';
import { eventually } from '../lab/run.ts';
import { stateOf } from '../lab/state.ts';
import { median, pairedRatio, printTable } from './statistics.ts';

const hosts = Number(process.env['HOSTS'] ?? 100);
const rounds = 3;
/** Of each host and family. */
const blocks = 4;

export async function benchMesh(): Promise<void> {
  const rows: string[][] = [];
  for (const reflectors of [0, 3]) rows.push(await measure(reflectors));
  console.log(
    `${hosts} hosts with ${blocks} blocks of each family; BIRDs all started at once, median of ${rounds} in turns`,
  );
  printTable([
    [
      '',
      'sessions',
      'configuration, kB',
      'netctl’s, s',
      'by hand, s',
      'ratio',
      'BIRD, MB',
      'by hand, MB',
      'agent, MB',
      'lab up, s',
    ],
    ...rows,
  ]);
}

async function measure(reflectors: number): Promise<string[]> {
  const begin = performance.now();
  const lab = await Lab.up({ name: `mesh${process.pid}`, nodes: hosts, reflectors });
  try {
    const upSeconds = (performance.now() - begin) / 1000;
    const last = lab.nodes.at(-1)!;
    const { sessions } = await stateOf(last);
    const agentMb = residentMb(last, last.agentPid!);
    const text = await last.mustExec(['cat', '/run/netctl/bird.conf']);
    await inParallel(lab.nodes, (node) => node.kill('SIGKILL'));
    await inParallel(lab.nodes, async (node, i) => {
      const commands = Array.from({ length: blocks }, (_, b) => [
        `route replace blackhole 10.65.${i}.${64 * b}/26 proto 111\n`,
        `route replace blackhole fd00:65:0:0:${i.toString(16)}:${b}::/96 proto 111\n`,
      ]);
      await node.mustExec(['ip', '-batch', '-'], { stdin: commands.flat().join('') });
      const ours = await node.mustExec(['cat', '/run/netctl/bird.conf']);
      await node.mustExec(['sh', '-c', 'cat >/run/hand.conf'], { stdin: byHand(ours) });
    });
    const [ours, hand]: [number[], number[]] = [[], []];
    let [oursMb, handMb] = [0, 0];
    for (let round = 0; round < rounds; round++) {
      const mine = async () => {
        ours.push(await convergence(lab, '/run/netctl/bird.conf'));
        oursMb = residentMb(last, last.birdPid!);
      };
      const theirs = async () => {
        hand.push(await convergence(lab, '/run/hand.conf'));
        handMb = residentMb(last, last.birdPid!);
      };
      for (const measured of round % 2 === 0 ? [mine, theirs] : [theirs, mine]) await measured();
    }
    return [
      reflectors === 0 ? 'mesh' : `${reflectors} reflectors`,
      `${sessions?.all}`,
      (text.length / 1000).toFixed(1),
      (median(ours) / 1000).toFixed(1),
      (median(hand) / 1000).toFixed(1),
      pairedRatio(ours, hand).toFixed(2),
      oursMb.toFixed(1),
      handMb.toFixed(1),
      agentMb.toFixed(0),
      upSeconds.toFixed(0),
    ];
  } finally {
    await lab.down();
  }
}

/** Starts every BIRD with that configuration at once; milliseconds until every kernel has every block. */
async function convergence(lab: Lab, config: string): Promise<number> {
  await inParallel(lab.nodes, async (node) => {
    await node.killBird('SIGKILL');
    for (const family of ['-4', '-6']) await node.exec(['ip', family, 'route', 'flush', 'proto', 'bird']);
  });
  const before = lab.nodes.map(routesOf);
  const command = [`/usr/sbin/bird -c ${config}`, '-s /run/netctl/bird.ctl', '-P /run/netctl/bird.pid'].join(
    ' ',
  );
  const begin = performance.now();
  await inParallel(lab.nodes, async (node) => {
    await node.mustExec(['sh', '-c', command], { deadlineMs: 120_000 });
  });
  const waiting = new Set(lab.nodes.keys());
  await eventually('all kernels have all blocks', 300_000, async () => {
    for (const i of waiting)
      if (routesOf(lab.nodes[i]!) >= before[i]! + 2 * blocks * (hosts - 1)) waiting.delete(i);
    return waiting.size === 0;
  });
  return performance.now() - begin;
}

/** In the kernel of the host, of both families; read without a program. */
function routesOf(node: LabNode): number {
  const { pid } = node.machine.process;
  const lines = (file: string) => readFileSync(`/proc/${pid}/net/${file}`, 'utf8').split('\n').length;
  const tries = readFileSync(`/proc/${pid}/net/fib_triestat`, 'utf8');
  return Number(/Prefixes:\s+(\d+)/.exec(tries)?.[1]) + lines('ipv6_route');
}

function residentMb(node: LabNode, pid: number): number {
  const status = readFileSync(node.place.path(`/proc/${pid}/status`), 'utf8');
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;
}

/** The same sessions in the plainest words: neither filters, nor graceful restart, nor names, nor the stamp. */
function byHand(ours: string): string {
  const local = new Map<string, string>();
  for (const [, template, body] of ours.matchAll(/^template bgp (\w+) \{\n(.*?)\n\}/gms))
    local.set(template!, body!);
  const sessions = [
    ...ours.matchAll(/^protocol bgp \w+ from (\w+) \{ neighbor (\S+) port (\d+) as (\d+);(.*?)\}/gm),
  ];
  const kernels = [4, 6].map(
    (family) =>
      `protocol kernel { learn; ipv${family} { import where krt_source = 111; export where source = RTS_BGP; }; }`,
  );
  return [
    /^router id .*;$/m.exec(ours)![0],
    'protocol device { }',
    ...kernels,
    ...sessions.map(([, template, address, port, as, rest]) => {
      const body = local.get(template!)!;
      const [, own] = /local (\S+) port/.exec(body)!;
      const family = address!.includes(':') ? 6 : 4;
      const client = /rr client; rr cluster id \S+;/.exec(body)?.[0] ?? '';
      const passed = client === '' ? 'source = RTS_INHERIT' : 'source = RTS_INHERIT || source = RTS_BGP';
      return `protocol bgp { local ${own} as ${as}; neighbor ${address} port ${port} as ${as};${rest} direct; ${client} connect delay time 1; connect retry time 1; ipv${family} { import all; export where ${passed}; }; }`;
    }),
    '',
  ].join('\n');
}

/** Eight at a time. */
async function inParallel(
  nodes: readonly LabNode[],
  work: (node: LabNode, i: number) => Promise<unknown>,
): Promise<void> {
  const waiting = [...nodes.entries()];
  const worker = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await work(next[1], next[0]);
  };
  await Promise.all(Array.from({ length: 8 }, worker));
}
