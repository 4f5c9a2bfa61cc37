/**
 * Containers on different hosts, joined by routes that BIRD carries: agents, BIRDs, kernels and etcd are real. What happens to traffic
 * and routes when one of them fails, and that nothing is announced that should not be.
 */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { after, before, describe, test } from 'node:test';
import type { Host, NamespaceHost } from '../../lab/host.ts';
import { eventually, mustRun } from '../../lab/run.ts';
import { BgpHosts, conflist, type Joined } from './bgp-hosts.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';

// The addresses of the hosts are the same in every file that has some.
enterSandbox(import.meta.url);

/** Routes to containers, in the words of `ip monitor`. */
const containerRoute = /\b10\.65\.|fd00:65:/;

describe('BGP between hosts', () => {
  let all: BgpHosts;
  let one: NamespaceHost;
  let two: NamespaceHost;
  let three: NamespaceHost;
  let a: Joined;
  let b: Joined;
  let c: Joined;

  before(async () => {
    all = await BgpHosts.create(3);
    [one, two, three] = all.hosts as [NamespaceHost, NamespaceHost, NamespaceHost];
    [a, b, c] = await Promise.all([all.join(one, 'a'), all.join(two, 'b'), all.join(three, 'c')]);
    await b.container.serve([8080]);
  });
  after(() => all?.close());

  const routes = (host: Host) => all.routes(host);

  async function pings(from: Joined, to: string): Promise<boolean> {
    return (await from.container.exec(['ping', '-c', '1', '-W', '1', to])).code === 0;
  }

  test('containers reach each other by routed packets, with their own addresses', async () => {
    for (const [from, to] of [
      [a.address4, b.address4],
      [a.address6, b.address6],
    ] as const) {
      const begin = Date.now();
      await eventually(`${from} reaches ${to}`, 5000, () => pings(a, to));
      console.log(`# first answer from another host ${Date.now() - begin} ms after the ADD before`);
      const hold = await a.container.hold({ address: to, port: 8080 });
      const peers = await b.container.mustExec(['ss', '-Htn', 'state', 'established']);
      assert.ok(peers.includes(from), `the server sees ${from}: ${peers}`);
      await hold();
    }
    assert.doesNotMatch(await one.mustExec(['ip', '-d', 'link']), /ipip|vxlan|gre|wireguard/);
    // A host that forwards IPv6 would lose a default route that a router has advertised.
    assert.equal((await one.mustExec(['sysctl', '-n', 'net.ipv6.conf.eth0.accept_ra'])).trim(), '2');
  });

  test('an address in an announced block is reached without any route changing elsewhere', async () => {
    const stop = await all.watchRoutes(two, containerRoute);
    const d = await all.join(one, 'd');
    assert.ok(await pings(b, d.address4), 'the first packet is answered');
    assert.ok(await pings(b, d.address6), 'the first packet is answered');
    assert.deepEqual(await stop(), []);
  });

  test('policy holds across hosts', async () => {
    await one.mustNetctl(['profile', 'add', 'closed']);
    const closed = await all.join(two, 'closed', 'NETCTL_PROFILE=closed');
    await closed.container.serve([8080]);
    const target = { address: closed.address4, port: 8080 };
    assert.deepEqual(await a.container.connect([target], 500), [false]);
    await one.mustNetctl(['profile', 'closed', 'rule', 'add', 'inbound', 'allow', 'from', 'tag', 'edge']);
    await eventually('allowed', 5000, async () => (await a.container.connect([target], 500))[0] === true);
  });

  test('nothing else of the host reaches the others', async () => {
    const before = await routes(two);
    for (const route of [
      ['10.99.0.0/24', 'dev', 'eth0'],
      ['blackhole', '10.65.77.0/26'],
      ['10.65.78.9/32', 'dev', 'eth0', 'proto', '110'],
      ['10.98.0.0/24', 'dev', 'eth0', 'proto', '111'],
    ])
      await one.mustExec(['ip', 'route', 'add', ...route]);
    // What is announced goes out in order: once this is there, the others would be too.
    await one.mustExec(['ip', 'route', 'add', 'blackhole', '10.65.79.0/26', 'proto', '111']);
    let seen = '';
    await eventually('the one that is to be announced is', 10_000, async () => {
      seen = await routes(two);
      return seen.includes('10.65.79.0/26');
    });
    const added = seen.split('\n').filter((line) => !before.includes(line));
    assert.equal(added.length, 1, added.join('\n'));
    await eventually(
      'a route of ours that nobody knows is removed, and taken back',
      12_000,
      // A host may have a block nearby.
      async () => !/10\.65\.(78\.9|79\.0\/26) /.test((await routes(two)) + (await routes(one))),
    );
  });

  test('a fixed address moves to another host while its container runs', async () => {
    const old = await all.join(one, 'old');
    const { address4 } = old;
    assert.ok(await pings(c, address4));
    const record = JSON.parse(await one.mustNetctl(['ipam', 'show', '--ip', address4, '-o', 'json'])) as {
      generation: number;
    };
    const stop = await all.watchRoutes(three, new RegExp(address4.replaceAll('.', '\\.')));
    await post(one, `/v1/allocations/${address4}/transfer`, {
      generation: record.generation,
      toNode: two.name,
      toOwner: { tenant: 'default', app: 'edge', instance: 'fixed' },
    });
    await eventually(
      'the old host does not lead to it',
      5000,
      async () => !(await routes(one)).includes(`${address4} dev`),
    );
    const fresh = await eventually('the record is on the other host', 5000, async () =>
      all.join(two, 'fresh', 'NETCTL_OWNER=default/edge/fixed').catch(() => null),
    );
    assert.equal(fresh.address4, address4);
    const begin = Date.now();
    await eventually('the others follow', 10_000, async () =>
      (await three.mustExec(['ip', 'route', 'get', address4])).includes('via 192.0.2.2'),
    );
    console.log(`# the others followed a moved address within ${Date.now() - begin} ms`);
    assert.ok(await pings(c, address4));
    await fresh.container.serve([9090]);
    assert.deepEqual(await c.container.connect([{ address: address4, port: 9090 }], 5000), [true]);
    assert.match(await one.mustExec(['ip', 'route', 'get', address4]), /via 192\.0\.2\.2/);
    await old.container.cniDel(conflist);
    assert.ok(await pings(c, address4), 'the end of the old container takes nothing away');
    assert.equal((await stop()).length, 1, 'one route, once');
  });

  test('restarts of agent and BIRD, a lost etcd and new configuration cost no packet and no route', async () => {
    const watches = await Promise.all(all.hosts.map((host) => all.watchRoutes(host, containerRoute)));
    const holds = await Promise.all(
      [b.address4, b.address6].map((address) => a.container.hold({ address, port: 8080 })),
    );
    for (let round = 0; round < 2; round++) {
      const pid = all.birdPid(one);
      process.kill(pid, 'SIGKILL');
      await eventually('BIRD is back', 5000, async () => all.birdPid(one) !== pid);
      await all.converged();
    }
    const pid = all.birdPid(two);
    for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
      await two.kill(signal);
      assert.doesNotThrow(() => process.kill(pid, 0), 'BIRD lives on');
      await two.start(all.flags(1));
    }
    assert.equal(all.birdPid(two), pid, 'BIRD was adopted');
    await one.mustNetctl(['pool', 'add', '10.66.0.0/16']);
    await eventually('the configuration in force has the new pool', 5000, async () => {
      const text = readFileSync(`${two.runDirectory}/bird.conf`, 'utf8');
      const running = await two.mustExec([
        'birdc',
        '-s',
        `${two.runDirectory}/bird.ctl`,
        'eval netctl_stamp',
      ]);
      return text.includes('10.66.0.0/16+') && running.includes(/netctl_stamp = "(\w+)"/.exec(text)![1]!);
    });
    await all.converged();
    await all.cutEtcd();
    await two.kill('SIGKILL');
    await two.start(all.flags(1));
    await all.healEtcd();
    await all.converged();
    const reports = await Promise.all(holds.map((hold) => hold()));
    const events = (await Promise.all(watches.map((stop) => stop()))).flat();
    console.log(`# ${events.length} route events; ${JSON.stringify(reports)}`);
    assert.deepEqual(events, []);
    for (const { echoes, longestGapMs } of reports) {
      assert.ok(echoes > 50);
      assert.ok(longestGapMs < 1000, `a gap of ${longestGapMs} ms`);
    }
  });

  test('a host that dies is forgotten within the time of BFD, and comes back', async () => {
    assert.ok((await routes(one)).includes('via 192.0.2.3'));
    const begin = Date.now();
    await mustRun(['ip', 'link', 'set', `up-${three.name}`, 'down']);
    await eventually('its routes are gone', 5000, async () => !(await routes(one)).includes('192.0.2.3 dev'));
    console.log(`# routes of a dead host were gone after ${Date.now() - begin} ms`);
    const { code, stdout } = await one.netctl(['node', 'status']);
    assert.equal(code, 4);
    assert.match(stdout, new RegExp(three.name));
    await mustRun(['ip', 'link', 'set', `up-${three.name}`, 'up']);
    await eventually('it is back', 15_000, () => pings(a, c.address4));
    await all.converged();
  });

  test('switched off, it takes everything back', async () => {
    const pid = all.birdPid(three);
    await three.kill('SIGTERM');
    await three.start([...all.flags(2), '--no-bgp']);
    await eventually('BIRD has ended', 5000, async () => !isAlive(pid));
    assert.doesNotMatch(await routes(three), /proto bird/);
    await eventually(
      'the others have forgotten it',
      5000,
      async () => !(await routes(one)).includes('192.0.2.3 dev'),
    );
    await all.converged([one, two]);
    assert.equal((await three.netctl(['node', 'status'])).code, 0);
  });

  test('without BIRD containers start, and the status names the package', async () => {
    await three.kill('SIGTERM');
    await three.start([...all.flags(2), '--bird-path', '/nowhere/bird']);
    const { code, stdout } = await three.netctl(['node', 'status']);
    assert.equal(code, 4);
    assert.match(stdout, /bird2/);
    await all.join(three, 'nobird');
  });

  test('a node that is removed takes its blocks, endpoints and sessions with it, after a confirmation', async () => {
    await three.kill('SIGTERM');
    await three.start(all.flags(2));
    await all.converged();
    await three.kill('SIGKILL');
    const asked = await one.netctl(['node', 'remove', three.name]);
    assert.match(asked.stdout, /[1-9]\d* blocks?.*[1-9]\d* endpoints?/s);
    await one.mustNetctl(['node', 'remove', three.name, '--yes', '--force']);
    for (const words of [
      ['node', 'show'],
      ['ipam', 'show', '--blocks'],
      ['endpoint', 'show'],
      ['node', 'status'],
    ])
      await eventually(
        `${words.join(' ')} does not name it`,
        5000,
        async () => !(await two.netctl([...words, '-o', 'json'])).stdout.includes(three.name),
      );
    await eventually('its routes are gone', 5000, async () => !(await routes(one)).includes('192.0.2.3 dev'));
    await all.converged([one, two]);
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

function post(host: Host, path: string, body: unknown): Promise<void> {
  return new Promise((resolve, reject) => {
    const call = request({
      socketPath: host.apiSocket,
      path,
      method: 'POST',
      headers: { 'content-type': 'application/json' },
    });
    call.on('response', (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      response.on('end', () =>
        response.statusCode === 200
          ? resolve()
          : reject(new Error(`${path}: ${response.statusCode} ${text}`)),
      );
    });
    call.on('error', reject).end(JSON.stringify(body));
  });
}
