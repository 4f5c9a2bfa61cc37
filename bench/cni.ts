/**
 * `make bench-cni`: how long ADD and DEL take, from posix_spawn to the end of the plugin, and how many a host can do.
 *
 * In: a finished build; names of parts (default: all); runs in scripts/sandbox. Out: per part a table in which all contestants took turns
 * (each round begins with another one), so that what else the machine does falls on all. Never: a call counted that failed, a median
 * without its 99th percentile.
 */
import { type Calls, Contest, type Contestant, calls } from './cni-contestants.ts';
import { median, printTable, quantile } from './statistics.ts';

type Command = 'ADD' | 'DEL';
const commands: readonly Command[] = ['ADD', 'DEL'];
const containers = 1100;
const parts: Readonly<Record<string, (contest: Contest) => Promise<void>>> = {
  latency: (contest) => turns(contest, 'one after the other', 1, 10, 20),
  parallel10: (contest) => turns(contest, '10 at a time', 10, 100, 3),
  parallel16: (contest) => turns(contest, '16 at a time', 16, 96, 3),
  parallel50: (contest) => turns(contest, '50 at a time', 50, 100, 3),
  burst: (contest) => turns(contest, '100 at once', 100, 100, 3),
  thousand,
  syn,
};

const chosen = process.argv.slice(2);
const contest = await Contest.open(
  chosen.includes('thousand') || chosen.length === 0 ? containers : 100,
  600,
);
try {
  for (const [name, part] of Object.entries(parts))
    if (chosen.length === 0 || chosen.includes(name)) await part(contest);
} finally {
  await contest.close();
}

/** Each round everybody adds `count` containers, then deletes them. */
async function turns(
  { all, references }: Contest,
  what: string,
  parallel: number,
  count: number,
  rounds: number,
): Promise<void> {
  const seen = new Map<Contestant, Record<Command, Calls[]>>(all.map((one) => [one, { ADD: [], DEL: [] }]));
  for (let round = 0; round < rounds; round++)
    for (const one of rotated(all, round))
      for (const command of commands)
        seen.get(one)![command].push(await calls(one, command, parallel, 0, count));
  for (const command of commands) {
    const timesOf = (one: Contestant) => seen.get(one)![command].flatMap(({ times }) => times);
    const rateOf = (one: Contestant) => median(seen.get(one)![command].map(({ perSecond }) => perSecond));
    const ptp = references[0]!;
    console.log(`${command}, ${what}: ${rounds * count} calls each, in turns of ${count}`);
    printTable([
      ['', 'median ms', 'p99 ms', 'per second', 'median / ptp', 'rate / ptp'],
      ...all.map((one) => [
        one.name,
        quantile(timesOf(one), 0.5).toFixed(2),
        quantile(timesOf(one), 0.99).toFixed(2),
        rateOf(one).toFixed(0),
        (median(timesOf(one)) / median(timesOf(ptp))).toFixed(3),
        (rateOf(one) / rateOf(ptp)).toFixed(1),
      ]),
    ]);
  }
}

/** What ADD costs beside a thousand containers, next to what it costs beside none, before them and after. */
async function thousand({ ours, limit }: Contest): Promise<void> {
  const count = 100;
  const first = containers - count;
  const rows: string[][] = [];
  for (const one of [...ours, limit]) {
    const measured = async (): Promise<number[]> => {
      const { times } = await calls(one, 'ADD', 1, first, containers);
      await calls(one, 'DEL', 10, first, containers);
      return [...times];
    };
    const alone = await measured();
    const filling = await calls(one, 'ADD', 50, 0, first);
    const beside = await measured();
    const emptying = await calls(one, 'DEL', 50, 0, first);
    alone.push(...(await measured()));
    rows.push([
      one.name,
      ...[alone, beside].flatMap((times) => [0.5, 0.99].map((share) => quantile(times, share).toFixed(2))),
      (median(beside) / median(alone)).toFixed(2),
      ...[filling, emptying].map(({ perSecond }) => perSecond.toFixed(0)),
    ]);
  }
  console.log(`ADD beside no container and beside ${first} (these came and went 50 at a time)`);
  printTable([['', 'none: median ms', 'p99', '1,000: median', 'p99', 'ratio', 'ADDs/s', 'DELs/s'], ...rows]);
}

/** The first packet after ADD's answer: when it is lost, TCP sends another one after a second. */
async function syn({ ours }: Contest): Promise<void> {
  const rows: string[][] = [];
  for (const one of ours) {
    const connections: number[] = [];
    for (let round = 0; round < 5; round++) {
      connections.push(...(await calls(one, 'ADD', 1, 0, 100, true)).connections);
      await calls(one, 'DEL', 10, 0, 100);
    }
    rows.push([
      one.name,
      String(connections.length),
      String(connections.filter((time) => time >= 900).length),
      quantile(connections, 0.5).toFixed(3),
      quantile(connections, 0.99).toFixed(3),
    ]);
  }
  console.log("A TCP connection from the host into the container, right after ADD's answer");
  printTable([['', 'made', 'with a SYN lost', 'median ms', 'p99 ms'], ...rows]);
}

function rotated<T>(items: readonly T[], by: number): T[] {
  const at = by % items.length;
  return [...items.slice(at), ...items.slice(0, at)];
}
