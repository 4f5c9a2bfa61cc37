/**
 * Eight programs that write rules of iptables without pause, and our changes beside them; against eight that only keep the machine as
 * busy, so that what is compared is the waiting for others, not for a processor. Beside ours, the least that anybody who writes to
 * nftables waits: one element, in a table of its own; and what a request waits that comes to the agent's thread at any time meanwhile.
 *
 * In: a namespace of the caller's own. Out: a table. Never: a writer left running.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { mustRun } from '../lab/run.ts';
import { type BackendName, startPolicy } from './policy-part.ts';
import { addressOf, interfaceOf, makeWorld, tell } from './policy-world.ts';
import { printTable, quantile } from './statistics.ts';

const WRITERS = 8;
const ROUNDS = 6;
const SAMPLES = 40;
const FOREIGN_RULES = 2000;

export async function benchWriters(): Promise<void> {
  const rows: string[][] = [];
  for (const [backend, program] of [
    ['nftables', 'iptables-legacy-restore'],
    ['nftables', 'iptables-nft-restore'],
    ['iptables-legacy', 'iptables-legacy-restore'],
  ] as const)
    rows.push(...(await measure(backend, program)));
  console.log(
    `Eight foreign writers of iptables at once, against eight busy programs; ${ROUNDS} rounds in turns`,
  );
  printTable([['', 'beside busy ones µs', 'beside writers µs', 'ratio', 'aim'], ...rows]);
}

async function measure(backend: BackendName, program: string): Promise<string[][]> {
  const rules = Array.from({ length: FOREIGN_RULES }, (_, i) => `-A others -s 192.0.2.${i % 250} -j RETURN`);
  const text = ['*filter', ':others - [0:0]', ...rules, 'COMMIT', ''].join('\n');
  const { engine, dataplane, linux, backend: part } = await startPolicy(backend);
  tell(engine, makeWorld({ endpoints: 100, lists: 10 }));
  await dataplane.start();
  const times = new Map<string, number[]>();
  let next = 200;
  const change = async (profiles: readonly string[]): Promise<number> => {
    const i = next++;
    const start = performance.now();
    const endpoint = { local: true, hostInterface: interfaceOf(i), addresses: [addressOf(i)], profiles };
    engine.onEndpoint(`${i}`, endpoint);
    await dataplane.flush();
    return (performance.now() - start) * 1000;
  };
  const least = { family: 4, table: 'least', set: 'least' } as const;
  const spec = { key: 'address', prefixes: false, data: null } as const;
  if (backend === 'nftables')
    linux.nftables.transact([
      { ...least, kind: 'table-add' },
      { ...least, kind: 'set-add', spec },
    ]);
  const writeLeast = (): number => {
    const start = performance.now();
    linux.nftables.transact([{ ...least, kind: 'elements-add', spec, elements: [[addressOf(next), null]] }]);
    return (performance.now() - start) * 1000;
  };
  const asker = new Worker(new URL('./policy-asker.ts', import.meta.url));
  asker.on('message', (message) => message === 'ask' && asker.postMessage('answer'));
  const asked = async (): Promise<number[]> => {
    asker.postMessage('take');
    for (;;) {
      const [message] = (await once(asker, 'message')) as [number[] | 'ask'];
      if (message !== 'ask') return message;
    }
  };
  const known = [0, 1, 2].map((each) => `list0-part${each}`);
  for (let round = 0; round < ROUNDS; round++) {
    for (const kind of round % 2 === 0 ? ['busy', 'writers'] : ['writers', 'busy']) {
      const script =
        kind === 'busy'
          ? 'while :; do :; done'
          : `while :; do printf '%s' "$0" | ${program} --noflush -w; done`;
      const others = Array.from({ length: WRITERS }, () =>
        spawn('sh', ['-c', script, text], { stdio: 'ignore', detached: true }),
      );
      await asked();
      for (let i = 0; i < SAMPLES; i++) {
        note(times, `known ${kind}`, await change(known));
        await pause();
        if (i % 8 === 0) note(times, `new ${kind}`, await change([...known, `new${next}`]));
        await pause();
        if (backend === 'nftables') note(times, `least ${kind}`, writeLeast());
        await pause();
      }
      for (const milliseconds of await asked()) note(times, `asked ${kind}`, milliseconds * 1000);
      await Promise.all(others.map(stop));
    }
  }
  await asker.terminate();
  await part.removeAll();
  if (backend === 'nftables') linux.nftables.transact([{ ...least, kind: 'table-delete' }]);
  linux.close();
  for (const what of ['-F', '-X']) await mustRun([program.replace('-restore', ''), what]);
  const rows: readonly (readonly [kind: string, name: string, share: number])[] = [
    ['known', 'an endpoint with a known list', 0.5],
    ['new', 'an endpoint with a new list', 0.5],
    ...(backend === 'nftables' ? ([['least', 'one element and nothing else', 0.5]] as const) : []),
    ['asked', 'a request that comes meanwhile', 0.5],
    ['asked', 'the same, p99', 0.99],
  ];
  return rows.map(([kind, name, share]) => {
    const busy = quantile(times.get(`${kind} busy`)!, share);
    const beside = quantile(times.get(`${kind} writers`)!, share);
    return [
      `${backend} beside ${program}: ${name}`,
      busy.toFixed(0),
      beside.toFixed(0),
      (beside / busy).toFixed(2),
      '≤ 1.2',
    ];
  });
}

/** Who has just written is the next to write, before those who wait are awake: each sample begins among the others. */
function pause(): Promise<void> {
  return new Promise((wake) => setTimeout(wake, 5));
}

/** With all that it has started. */
async function stop(child: ChildProcess): Promise<void> {
  const gone = once(child, 'exit');
  process.kill(-child.pid!, 'SIGKILL');
  await gone;
}

function note(times: Map<string, number[]>, key: string, took: number): void {
  times.set(key, [...(times.get(key) ?? []), took]);
}
