/** The agent on the real kernel, by the real CNI executable and command line: what a runtime and an operator rely on. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { difference, readState, rulePackets } from '../../lab/kernel-state.ts';
import { eventually, follow, mustRun } from '../../lab/run.ts';

const conflist: Conflist = { cniVersion: '1.0.0', name: 'edge', plugins: [{ type: 'netctl' }] };

/** What others do to our rules here, they do to these. */
const iptables = ['--dataplane', 'iptables'];

interface CniError {
  readonly code: number;
  readonly msg: string;
}

describe('agent', () => {
  let host: Host;
  let containers: Container[] = [];

  before(async () => {
    host = await Host.create({ name: `ag${process.pid}`, address: '192.0.2.1' });
    await host.start([...iptables, '--resync-seconds', '2']);
    await ok(['pool', 'add', '10.65.0.0/16', '--cooldown', '0']);
    await ok(['pool', 'add', 'fd00:65::/64', '--name', 'six', '--cooldown', '0']);
  });
  after(async () => {
    await Promise.all(containers.map((container) => container.close()));
    await host.close();
  });
  beforeEach(async () => {
    if (host.agentPid === null) await host.start([...iptables, '--resync-seconds', '2']);
    for (const container of containers) {
      await container.cniDel(conflist);
      await container.close();
    }
    containers = [];
  });

  async function ok(words: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await host.netctl(words);
    assert.equal(code, 0, stderr);
    return stdout;
  }

  async function list<T = Record<string, unknown>>(...words: string[]): Promise<T[]> {
    return JSON.parse(await ok([...words, '-o', 'json'])) as T[];
  }

  async function addressesInUse(): Promise<number> {
    const pools = await list<{ used: number; cooldown: number }>('ipam', 'show');
    return pools.reduce((sum, { used, cooldown }) => sum + used + cooldown, 0);
  }

  async function container(name: string): Promise<Container> {
    const made = await Container.create(host, name);
    containers.push(made);
    return made;
  }

  async function refused(
    target: Container,
    command: string,
    config: Conflist = conflist,
    args = '',
  ): Promise<CniError> {
    const { code, stdout } = await target.cni(command, config, { args });
    assert.equal(code, 1, stdout);
    return JSON.parse(stdout) as CniError;
  }

  async function pings(from: Container, address: string): Promise<boolean> {
    const [bare = ''] = address.split('/');
    const [answered] = await from.connect([{ address: bare, port: 7 }], 1000);
    return answered === true;
  }

  test('ADD gives addresses, routes and a way to each other at once; CHECK agrees; DEL takes all away', async () => {
    const empty = await readState(host);
    const [a, b] = [await container('a'), await container('b')];
    const first = await a.cniAdd(conflist);
    const second = await b.cniAdd(conflist);
    await b.serve([7]);
    for (const { address } of second.ips) assert.equal(await pings(a, address), true, `a reaches ${address}`);
    assert.match(await a.mustExec(['ip', 'route']), /^default via 169\.254\.1\.1 dev eth0/m);
    assert.equal(first.interfaces[1]?.sandbox, `/run/netns/${a.netns}`);
    const check: Conflist = { ...conflist, plugins: [{ type: 'netctl', prevResult: first }] };
    assert.deepEqual(await a.cni('CHECK', check), { code: 0, stdout: '', stderr: '' });
    await a.mustExec(['ip', 'address', 'flush', 'dev', 'eth0', 'scope', 'global']);
    assert.match((await refused(a, 'CHECK', check)).msg, /address .* is missing in the container/);
    await a.cniDel(conflist);
    await b.cniDel(conflist);
    assert.deepEqual(await list('endpoint', 'show'), []);
    await eventually('host as before', 10_000, async () => difference(empty, await readState(host)) === '');
  });

  test('ADD again is the same answer; ADD for another namespace starts over; a foreign eth0 is refused', async () => {
    const a = await container('a');
    const first = await a.cniAdd(conflist);
    assert.deepEqual(await a.cniAdd(conflist), first);
    assert.equal((await list('endpoint', 'show')).length, 1);
    await mustRun(['ip', 'netns', 'delete', a.netns]);
    await mustRun(['ip', 'netns', 'add', a.netns]);
    const again = await a.cniAdd(conflist);
    assert.equal(again.interfaces[0]?.name, first.interfaces[0]?.name);
    assert.match(await a.mustExec(['ip', '-o', 'link', 'show', 'eth0']), /state UP/);

    const foreign = await container('foreign');
    await foreign.mustExec(['ip', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'other']);
    const before = await readState(host);
    assert.deepEqual(await refused(foreign, 'ADD').then(({ code, msg }) => [code, msg]), [
      111,
      'the container already has an interface eth0',
    ]);
    assert.equal(difference(before, await readState(host)), '');
    assert.equal((await list('endpoint', 'show')).length, 1);
  });

  test('DEL: twice, without ADD, with the namespace gone', async () => {
    const a = await container('a');
    await a.cniDel(conflist);
    await a.cniAdd(conflist);
    await a.cniDel(conflist);
    await a.cniDel(conflist);
    const b = await container('b');
    await b.cniAdd(conflist);
    await mustRun(['ip', 'netns', 'delete', b.netns]);
    await b.cniDel(conflist);
    assert.equal(await addressesInUse(), 0);
  });

  test('bad input is refused with its number and one line; kernel and store are unchanged', async () => {
    const a = await container('a');
    const rows: [object, string, number, RegExp][] = [
      [{ profiles: ['x'.repeat(300)] }, '', 7, /profile/],
      [{ pools: ['nope'] }, '', 103, /there is no pool nope/],
      [{}, 'IP=10.65.0.300', 7, /ip/],
      [{}, 'IP=192.0.2.77', 102, /is in no pool/],
      [{ mode: 'l2' }, '', 7, /mode/],
      [{ mode: 'macvlan' }, '', 7, /parent/],
      [{ mtu: 5 }, '', 7, /mtu/],
    ];
    const settled = async () =>
      [await readState(host), await list('ipam', 'show'), await list('profile', 'show')].map((part) =>
        JSON.stringify(part, null, 1).split('\n'),
      );
    await eventually(
      'nothing of earlier tests lingers',
      10_000,
      async () => !/nctl4-tag/.test((await readState(host)).join('\n')),
    );
    const before = await settled();
    for (const [fields, args, code, message] of rows) {
      const error = await refused(a, 'ADD', { ...conflist, plugins: [{ type: 'netctl', ...fields }] }, args);
      assert.deepEqual(
        [error.code, message.test(error.msg), error.msg.includes('\n')],
        [code, true, false],
        error.msg,
      );
    }
    const now = await settled();
    for (const [part, lines] of before.entries()) assert.equal(difference(lines, now[part] ?? []), '');
  });

  test('an ADD whose profiles are in use already executes no program', async () => {
    // Nor does the agent look at the rules by itself meanwhile.
    await host.kill('SIGTERM');
    await host.start([...iptables, '--resync-seconds', '600']);
    const [a, b] = [await container('a'), await container('b')];
    await a.cniAdd(conflist);
    const stop = await follow(['sh', '-c', `exec strace -f -qq -e trace=execve -p ${host.agentPid} 2>&1`]);
    await eventually('strace is attached', 5000, async () =>
      /TracerPid:\t[1-9]/.test(await mustRun(['cat', `/proc/${host.agentPid}/status`])),
    );
    await b.cniAdd(conflist);
    const trace = await stop();
    await host.kill('SIGTERM');
    assert.equal(trace.match(/execve\(.*/g), null, trace);
  });

  test('SIGKILL and restart: containers go on talking, nothing is written anew', async () => {
    const [a, b] = [await container('a'), await container('b')];
    await a.cniAdd(conflist);
    const { ips } = await b.cniAdd(conflist);
    await b.serve([7]);
    const held = await a.hold({ address: ips[0]!.address.split('/')[0]!, port: 7 });
    const before = await readState(host);
    await host.kill('SIGKILL');
    assert.equal(await pings(a, ips[0]!.address), true, 'new connections without an agent');
    const counters = await rulePackets(host);
    await host.start([...iptables, '--resync-seconds', '2']);
    assert.equal(difference(before, await readState(host)), '');
    for (const [rule, packets] of await rulePackets(host))
      assert.ok(packets >= (counters.get(rule) ?? 0), `counter of ${rule} survived`);
    const { longestGapMs } = await held();
    assert.ok(longestGapMs < 1000, `longest gap ${longestGapMs} ms`);
  });

  test('a DEL without an agent is queued and carried out by the next one; a later ADD of the same container stays', async () => {
    const [a, b] = [await container('a'), await container('b')];
    await a.cniAdd(conflist);
    await b.cniAdd(conflist);
    await host.kill('SIGTERM');
    await a.cniDel(conflist);
    await b.cniDel(conflist);
    const queue = join(host.stateDirectory, 'delqueue');
    assert.equal(readdirSync(queue).filter((name) => name.endsWith('.delete')).length, 2);
    await host.start([...iptables, '--resync-seconds', '2']);
    assert.deepEqual(
      readdirSync(queue).filter((name) => name.endsWith('.delete')),
      [],
    );
    assert.deepEqual(await list('endpoint', 'show'), []);
    assert.doesNotMatch(await host.mustExec(['ip', '-o', 'link']), /nctl/);
    assert.match((await a.cniAdd(conflist)).ips[0]!.address, /^10\.65\./);
  });

  test('an interface removed by hand is made anew; an endpoint whose namespace is gone is released', async () => {
    const [a, b] = [await container('a'), await container('b')];
    const { interfaces } = await a.cniAdd(conflist);
    const { ips } = await b.cniAdd(conflist);
    await b.serve([7]);
    await host.mustExec(['ip', 'link', 'delete', interfaces[0]!.name]);
    await eventually('a is wired again', 10_000, () => pings(a, ips[0]!.address));
    await b.close();
    await eventually('b is released', 10_000, async () => (await list('endpoint', 'show')).length === 1);
  });

  test('routes and rules that others removed come back; foreign rules are left alone', async () => {
    const a = await container('a');
    const { ips } = await a.cniAdd(conflist);
    await host.mustExec(['iptables', '-A', 'FORWARD', '-s', '198.51.100.0/24', '-j', 'ACCEPT']);
    const before = await readState(host);
    await host.mustExec(['ip', 'route', 'delete', ips[0]!.address]);
    const { policy } = JSON.parse(await ok(['node', 'status', '-o', 'json']));
    if (policy.backend === 'nftables') {
      await host.mustExec(['nft', 'flush', 'chain', 'ip', 'netctl', 'nctl-FORWARD']);
      await host.mustExec(['nft', 'flush', 'set', 'ip', 'netctl', 'nctl4-ep']);
      await host.mustExec(['nft', 'delete', 'table', 'ip6', 'netctl']);
    } else {
      await host.mustExec(['iptables', '-F', 'nctl-FORWARD']);
      await host.mustExec(['ipset', 'flush', 'nctl4-ep']);
    }
    await eventually('all is back', 15_000, async () => difference(before, await readState(host)) === '');
    await host.mustExec(['iptables', '-D', 'FORWARD', '-s', '198.51.100.0/24', '-j', 'ACCEPT']);
  });

  test('16 containers at once, some of which cannot be: those are refused alone; deleted at once', async () => {
    const [pool] = (await list<{ name: string; cidr: string }>('pool', 'show')).filter(
      ({ cidr }) => cidr === '10.65.0.0/16',
    );
    const four: Conflist = { ...conflist, plugins: [{ type: 'netctl', pools: [pool!.name] }] };
    const many = await Promise.all(Array.from({ length: 16 }, (_, i) => container(`g${i}`)));
    const taken = [many[3]!, many[8]!];
    for (const one of taken)
      await one.mustExec(['ip', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'other']);
    const multihomed = many[11]!;
    await multihomed.mustExec(['ip', 'link', 'set', 'lo', 'up']);
    await multihomed.mustExec(['ip', 'route', 'add', 'default', 'dev', 'lo']);
    const answers = await Promise.all(many.map((one) => one.cni('ADD', four)));
    for (const [i, { code, stdout }] of answers.entries()) {
      assert.equal(code, taken.includes(many[i]!) ? 1 : 0, stdout);
      if (code === 1) assert.match(stdout, /the container already has an interface eth0/);
    }
    assert.match(await multihomed.mustExec(['ip', 'route']), /^default dev lo/m);
    const addresses = answers.flatMap(({ code, stdout }) =>
      code === 0 ? [(JSON.parse(stdout) as { ips: { address: string }[] }).ips[0]!.address] : [],
    );
    assert.equal(new Set(addresses).size, 14);
    await many[0]!.serve([7]);
    const others = many.slice(1).filter((one) => !taken.includes(one));
    const reached = await Promise.all(others.map((one) => pings(one, addresses[0]!)));
    assert.deepEqual([...new Set(reached)], [true]);
    assert.equal((await list('endpoint', 'show')).length, 14);
    await Promise.all(many.map((one) => one.cniDel(four)));
    assert.deepEqual(await list('endpoint', 'show'), []);
    assert.equal(await addressesInUse(), 0);
    assert.doesNotMatch(await host.mustExec(['ip', '-o', 'link']), /nctl/);
    assert.equal(await host.mustExec(['ip', '-4', 'route', 'show', 'proto', '110']), '');
  });

  test('60 containers at once: every address once, every container reachable', async () => {
    const many = await Promise.all(Array.from({ length: 60 }, (_, i) => container(`m${i}`)));
    const results = await Promise.all(many.map((one) => one.cniAdd(conflist)));
    const addresses = results.flatMap(({ ips }) => ips.map(({ address }) => address));
    assert.equal(new Set(addresses).size, 120);
    const last = many.at(-1)!;
    await last.serve([7]);
    const target = results.at(-1)!.ips[0]!.address;
    assert.deepEqual(
      await Promise.all(many.slice(0, 8).map((one) => pings(one, target))),
      Array(8).fill(true),
    );
    await Promise.all(many.map((one) => one.cniDel(conflist)));
    assert.equal(await addressesInUse(), 0);
    assert.doesNotMatch(await host.mustExec(['ip', '-o', 'link']), /nctl/);
  });

  test('a store that is suddenly empty does not empty the host, until told to', async () => {
    const five = await Promise.all(['a', 'b', 'c', 'd', 'e'].map((name) => container(name)));
    for (const one of five) await one.cniAdd(conflist);
    await host.kill('SIGTERM');
    for (const name of readdirSync(host.stateDirectory))
      if (name.startsWith('netctl.db')) rmSync(join(host.stateDirectory, name));
    assert.equal(existsSync(join(host.stateDirectory, 'netctl.db')), false);
    await host.start([...iptables, '--resync-seconds', '2']);
    assert.equal((await host.mustExec(['ip', '-o', 'link'])).match(/nctl[0-9a-f]{11}/g)?.length, 5);
    const status = await host.netctl(['node', 'status']);
    assert.deepEqual([status.code, /held back/i.test(status.stdout + status.stderr)], [4, true]);
    await host.kill('SIGTERM');
    await host.start([...iptables, '--resync-seconds', '2', '--confirm-mass-deletion']);
    assert.doesNotMatch(await host.mustExec(['ip', '-o', 'link']), /nctl/);
    await ok(['pool', 'add', '10.65.0.0/16', '--cooldown', '0']);
  });

  test('endpoints get the MTU of the interface that leads to other hosts; an interface that is not there is refused', async () => {
    await host.mustExec(['ip', 'link', 'set', 'eth0', 'mtu', '1400']);
    await host.kill('SIGTERM');
    await host.start(['--interface', 'eth0']);
    const a = await container('a');
    await a.cniAdd(conflist);
    assert.match(await a.mustExec(['ip', '-o', 'link', 'show', 'eth0']), /mtu 1400/);
    const b = await container('b');
    await b.cniAdd({ ...conflist, plugins: [{ type: 'netctl', mtu: 1300 }] });
    assert.match(await b.mustExec(['ip', '-o', 'link', 'show', 'eth0']), /mtu 1300/);
    await host.kill('SIGTERM');
    await assert.rejects(host.start(['--interface', 'nope']), /this host has no interface nope/);
    await host.kill('SIGTERM');
  });

  test('a second agent with directories of its own is refused in the same network namespace', async () => {
    const { netctld } = host.programs;
    const more = (name: string): string => join(host.stateDirectory, name);
    const words = ['--run-dir', more('run2'), '--state-dir', more('state2'), '--no-bgp', '--node', 'other'];
    await assert.rejects(
      mustRun(host.command(['timeout', '10', netctld, ...words])),
      new RegExp(`another agent is running in this network namespace, process ${host.agentPid}:`),
    );
  });

  test('a second agent on the same directories is refused', async () => {
    await assert.rejects(
      mustRun(
        host.command([
          join(import.meta.dirname, '../../dist/bin/netctld'),
          '--run-dir',
          host.runDirectory,
          '--state-dir',
          host.stateDirectory,
        ]),
      ),
      /another agent is running/,
    );
  });
});
