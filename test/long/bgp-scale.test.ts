/**
 * Many routes into one host: 10,000 and 100,000 addresses that another host announces. Prints what they cost, next to `ip -batch`.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import type { NamespaceHost } from '../../lab/host.ts';
import { eventually } from '../../lab/run.ts';
import { BgpHosts, type Joined } from '../kernel/bgp-hosts.ts';

/** Addresses of 10.96.0.0/11, one by one. */
const addressAt = (i: number): string => `10.${96 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;

describe('many routes', () => {
  let all: BgpHosts;
  let one: NamespaceHost;
  let two: NamespaceHost;
  let a: Joined;
  let b: Joined;

  before(async () => {
    // What is put into the kernel by hand below, a resync would take away.
    all = await BgpHosts.create(2, ['--resync-seconds', '3600']);
    [one, two] = all.hosts as [NamespaceHost, NamespaceHost];
    [a, b] = await Promise.all([all.join(one, 'a'), all.join(two, 'b')]);
    await one.mustNetctl(['pool', 'add', '10.96.0.0/11', '--block-size', '27']);
    await eventually('BIRD takes the pool', 10_000, async () =>
      readFileSync(`${two.runDirectory}/bird.conf`, 'utf8').includes('10.96.0.0/11+'),
    );
    await all.converged();
  });
  after(() => all?.close());

  const routeCount = async (host: NamespaceHost): Promise<number> =>
    Number(/Prefixes:\s+(\d+)/.exec(await host.mustExec(['cat', '/proc/net/fib_triestat']))?.[1]);
  const residentMb = (pid: number): number =>
    Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
  const batch = (host: NamespaceHost, lines: readonly string[]) =>
    host.mustExec(['ip', '-batch', '-'], { stdin: lines.join('\n'), deadlineMs: 60_000 });

  async function medianPingMs(): Promise<number> {
    const printed = await a.container.mustExec(['ping', '-q', '-i', '0.005', '-c', '400', b.address4]);
    return Number(/= [\d.]+\/([\d.]+)\//.exec(printed)?.[1]);
  }

  test('from the answer of ADD to the first answered ping from another host', async () => {
    // Every address is a block of its own here, so that each ADD is news for the others.
    await one.mustNetctl(['pool', 'add', '10.67.0.0/24', '--name', 'singles', '--block-size', '32']);
    await eventually('BIRD takes the pool', 10_000, async () =>
      readFileSync(`${two.runDirectory}/bird.conf`, 'utf8').includes('10.67.0.0/24+'),
    );
    for (const [what, args] of [
      ['in an announced block', ''],
      ['in a new block', 'NETCTL_POOL=singles'],
    ] as const) {
      const samples: [first: number, again: number][] = [];
      for (let i = 0; i < 15; i++) {
        const { address4 } = await all.join(one, `p${i}${args.length}`, args);
        const ping = async (): Promise<number> => {
          const begin = performance.now();
          await eventually('an answer', 5000, async () => {
            const { code } = await b.container.exec(['ping', '-c', '1', '-W', '1', '-q', address4]);
            return code === 0;
          });
          return performance.now() - begin;
        };
        samples.push([await ping(), await ping()]);
      }
      const median = (at: 0 | 1) =>
        samples
          .map((sample) => sample[at])
          .sort((x, y) => x - y)[7]!
          .toFixed(1);
      console.log(
        `# first ping ${what}: ${median(0)} ms, the same again: ${median(1)} ms (medians, process included)`,
      );
    }
  });

  for (const count of [10_000, 100_000]) {
    test(`${count} routes`, { timeout: 240_000 }, async () => {
      const lines = Array.from(
        { length: count },
        (_, i) => `route add blackhole ${addressAt(i)}/32 proto 111`,
      );
      const before = await routeCount(two);
      const pingBefore = await medianPingMs();
      let begin = performance.now();
      await batch(one, lines);
      const batchMs = performance.now() - begin;
      await eventually(
        'all are in the kernel of the other host',
        120_000,
        async () => (await routeCount(two)) >= before + count,
      );
      const importMs = performance.now() - begin;
      const pingAfter = await medianPingMs();

      begin = performance.now();
      const late = `10.127.255.${count === 10_000 ? 1 : 2}`;
      await one.mustExec(['ip', 'route', 'add', 'blackhole', `${late}/32`, 'proto', '111']);
      await eventually('one more', 5000, async () =>
        (await two.exec(['ip', 'route', 'get', late])).stdout.includes('via'),
      );
      const oneMoreMs = performance.now() - begin;

      const pid = two.agentPid!;
      begin = performance.now();
      const { code } = await two.netctl(['node', 'status'], { deadlineMs: 20_000 });
      const statusMs = performance.now() - begin;
      const figures = {
        batchMs,
        importMs,
        oneMoreMs,
        statusMs,
        birdMb: residentMb(all.birdPid(two)),
        agentMb: residentMb(pid),
        pingBefore,
        pingAfter,
      };
      console.log(
        `# ${count} routes: ${Object.entries(figures)
          .map(([name, value]) => `${name} ${value.toFixed(name.startsWith('ping') ? 3 : 1)}`)
          .join(', ')}`,
      );
      assert.equal(code, 0);
      assert.ok(oneMoreMs < 1000);
      assert.ok(figures.birdMb < 200);
      assert.ok(pingAfter < pingBefore * 3 + 0.2);

      // BIRD dies with all of them, and no route moves.
      const stop = await all.watchRoutes(two, /^(Deleted )?10\./);
      const old = all.birdPid(two);
      process.kill(old, 'SIGKILL');
      begin = performance.now();
      await eventually('BIRD is back', 10_000, async () => all.birdPid(two) !== old);
      await all.converged();
      await eventually('it has recovered', 60_000, async () => {
        const { bgp } = JSON.parse((await two.netctl(['node', 'status', '-o', 'json'])).stdout) as {
          bgp: { bird: { recovering: boolean } | null };
        };
        return bgp.bird?.recovering === false;
      });
      const events = await stop();
      console.log(
        `# ${count} routes: BIRD killed, recovered after ${(performance.now() - begin).toFixed(0)} ms, ${events.length} route events`,
      );
      assert.deepEqual(events, []);

      await batch(
        one,
        lines.map((line) => line.replace('add', 'del')),
      );
      await eventually('all are gone again', 120_000, async () => (await routeCount(two)) < before + 10);
    });
  }
});
