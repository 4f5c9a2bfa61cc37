/**
 * Agents whose etcd is frozen, gone or wiped: containers keep talking, come and go, agents restart, nothing spins; afterwards everything is
 * in etcd, once.
 */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Host } from '../../lab/host.ts';
import { eventually } from '../../lab/run.ts';
import { conflist, EtcdHosts } from './etcd-hosts.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';

// The addresses of the hosts are the same in every file that has some.
enterSandbox(import.meta.url);

const ticksPerSecond = 100;

/** Seconds of processor time that the agent has used. */
function processorSeconds(host: Host): number {
  const fields = readFileSync(`/proc/${host.agentPid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

describe('an outage of etcd', () => {
  let lab: EtcdHosts;
  let one: Host;
  let two: Host;

  before(async () => {
    lab = await EtcdHosts.create('ou', 2);
    [one, two] = lab.hosts as [Host, Host];
    await lab.ok(one, 'pool', 'add', '10.70.0.0/16', '--cooldown', '0');
    await eventually('the pool is on the other host', 10_000, async () =>
      (await lab.ok(two, 'pool', 'show')).includes('10.70.0.0/16'),
    );
  });
  after(() => lab?.close());

  const inEtcd = async (host: Host): Promise<Map<string, number>> => {
    const answer = JSON.parse(
      await lab.etcd.ctl('get', '--prefix', `/netctl/v1/endpoints/${host.name}/`, '-w', 'json'),
    ) as { kvs?: { key: string; version: number }[] };
    const entries = (answer.kvs ?? []).map(({ key, version }): [string, number] => [
      Buffer.from(key, 'base64').toString().split('/').at(-1)!,
      version,
    ]);
    return new Map(entries);
  };
  const here = async (host: Host): Promise<string[]> =>
    (await lab.json<{ id: string }[]>(host, 'endpoint', 'show', '--node', host.name)).map(({ id }) => id);

  async function saysSo(host: Host): Promise<void> {
    await eventually(`${host.name} says so`, 30_000, async () => {
      const { code, stdout } = await host.netctl(['node', 'status']);
      return code === 4 && /not reachable since/.test(stdout) && /[1-9]\d* changes wait/.test(stdout);
    });
    const started = Date.now();
    const refused = await host.netctl(['profile', 'add', `late-${host.name}`]);
    assert.notEqual(refused.code, 0);
    assert.match(refused.stderr, /cluster|etcd/i);
    assert.ok(Date.now() - started < 8000, 'what needs the cluster fails within seconds');
  }

  async function isIdle(host: Host): Promise<void> {
    const seconds = 10;
    const before = processorSeconds(host);
    await sleep(seconds * 1000);
    const used = (processorSeconds(host) - before) / seconds;
    console.log(`# ${host.name} uses ${(100 * used).toFixed(1)} % of a processor`);
    assert.ok(used < 0.1, `${(100 * used).toFixed(1)} % of a processor while it waits`);
  }

  test('frozen, then killed: containers come and go, an agent is killed and restarted, nothing spins; all of it arrives once', async () => {
    const server = await lab.join(one, 'server');
    const client = await lab.join(one, 'client');
    await server.container.serve([8080]);
    const report = await client.container.hold({ address: server.address, port: 8080 });
    const leaving = await lab.join(one, 'leaving');
    const [member] = lab.etcd.members;
    await member!.freeze();

    const started = Date.now();
    await lab.join(one, 'frozen');
    await leaving.container.cniDel(conflist);
    assert.ok(Date.now() - started < 4000, 'nothing waits for etcd');
    await saysSo(one);
    await one.kill('SIGKILL');
    await lab.start(one);
    await lab.join(one, 'restarted');
    await saysSo(one);
    await isIdle(one);
    member!.thaw();
    await member!.kill();
    const gone = await lab.join(one, 'gone');
    await gone.container.cniDel(conflist);
    await lab.join(one, 'stays');
    await saysSo(one);
    await isIdle(one);

    member!.start();
    await lab.healthy(one);
    await eventually('etcd has what the host has', 20_000, async () => {
      const there = [...(await inEtcd(one)).keys()].sort();
      return JSON.stringify(there) === JSON.stringify((await here(one)).sort());
    });
    assert.deepEqual([...(await inEtcd(one)).values()], [1, 1, 1, 1, 1], 'each was written once');
    await eventually('the other host knows', 10_000, async () => {
      const rows = await lab.json<object[]>(two, 'endpoint', 'show', '--node', one.name);
      return rows.length === 5;
    });
    assert.equal((await two.netctl(['ipam', 'check'])).code, 0);
    const { echoes, longestGapMs } = await report();
    assert.ok(echoes > 100 && longestGapMs < 2000, `${echoes} messages, longest pause ${longestGapMs} ms`);
  });

  test('wiped: nothing is torn down, the host goes on and says why; by the operator’s word it takes the new one', async () => {
    await lab.join(two, 'a');
    const { container } = await lab.join(two, 'b');
    const links = await lab.links(two);
    await lab.etcd.ctl('del', '--prefix', '/netctl/v1/');
    for (const host of [one, two]) {
      await eventually('held', 20_000, async () => {
        const { code, stdout } = await host.netctl(['node', 'status']);
        return code === 4 && /looks wiped|is not the cluster that it was/.test(stdout);
      });
    }
    await lab.join(two, 'meanwhile');
    await container.cniDel(conflist);
    await two.kill('SIGKILL');
    await lab.start(two);
    assert.match((await two.netctl(['node', 'status'])).stdout, /held back/);
    assert.equal((await lab.links(two)).length, links.length, 'one came, one went');
    assert.equal((await lab.links(one)).length, 5);
    await two.kill('SIGTERM');
    await lab.start(two, ['--confirm-mass-deletion']);
    await eventually('it has taken the empty one', 20_000, async () => (await lab.links(two)).length === 0);
    await lab.healthy(two);
    assert.equal((await lab.links(one)).length, 5, 'the other has heard no word');
  });
});
