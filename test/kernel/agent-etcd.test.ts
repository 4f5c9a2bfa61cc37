/**
 * Two hosts, each with its agent, on one real etcd: what one says the other does; and a host that is cut off goes on alone, also
 * through a restart of its agent, and catches up afterwards.
 */
import assert from 'node:assert/strict';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { eventually, mustRun } from '../../lab/run.ts';
import { type Cluster, startEtcd } from './etcd-harness.ts';

const conflist: Conflist = { cniVersion: '1.0.0', name: 'edge', plugins: [{ type: 'netctl' }] };

interface EndpointRow {
  readonly endpoint: string;
  readonly addresses: readonly string[];
}

describe('agents on etcd', () => {
  let etcd: Cluster;
  let gate: Server;
  const open = new Set<Socket>();
  const hosts: Host[] = [];
  const containers: Container[] = [];
  let one: Host;
  let two: Host;

  before(async () => {
    etcd = await startEtcd();
    const port = Number(new URL(etcd.endpoints[0]!).port);
    gate = createServer((socket) => {
      open.add(socket.once('close', () => open.delete(socket)));
      const onward = createConnection(port, '127.0.0.1');
      for (const [from, to] of [
        [socket, onward],
        [onward, socket],
      ] as const) {
        from.pipe(to);
        from.on('error', () => to.destroy());
      }
    });
    await new Promise<void>((listening) => gate.listen(2379, '0.0.0.0', listening));
    for (const [i, subnet] of ['192.0.2', '198.51.100'].entries()) {
      const host = await Host.create({ name: `et${i}x${process.pid}`, address: `${subnet}.1` });
      hosts.push(host);
      await mustRun(['ip', 'address', 'add', `${subnet}.254/24`, 'dev', `up-${host.name}`]);
      await host.start(['--no-bgp', '--datastore', 'etcd', '--etcd-endpoints', `http://${subnet}.254:2379`]);
    }
    [one, two] = hosts as [Host, Host];
    await ok(one, ['pool', 'add', '10.65.0.0/16', '--cooldown', '0']);
  });
  after(async () => {
    await Promise.all(containers.map((container) => container.close()));
    await Promise.all(hosts.map((host) => host.close()));
    gate.close();
    for (const socket of open) socket.destroy();
    await etcd.dispose();
  });

  async function ok(host: Host, words: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await host.netctl(words);
    assert.equal(code, 0, `${words.join(' ')}: ${stderr}`);
    return stdout;
  }

  async function endpoints(host: Host, node: Host): Promise<EndpointRow[]> {
    const rows = JSON.parse(
      await ok(host, ['endpoint', 'show', '--node', node.name, '-o', 'json']),
    ) as EndpointRow[];
    // Revisions are each host's own.
    return rows.map(({ endpoint, addresses }) => ({ endpoint, addresses }));
  }

  async function join(host: Host, name: string): Promise<{ container: Container; address: string }> {
    const container = await Container.create(host, name);
    containers.push(container);
    const { ips } = await container.cniAdd(conflist);
    return { container, address: ips[0]!.address.replace('/32', '') };
  }

  /** The wire to everything else, as a cable that is pulled. */
  const wire = (host: Host, state: 'up' | 'down') => mustRun(['ip', 'link', 'set', `up-${host.name}`, state]);

  async function agree(what: string): Promise<void> {
    await eventually(what, 20_000, async () => {
      for (const node of hosts) {
        const [here, there] = await Promise.all(hosts.map((host) => endpoints(host, node)));
        if (JSON.stringify(here) !== JSON.stringify(there)) return false;
      }
      return true;
    });
  }

  test('what one host is told, the other does; addresses are unique', async () => {
    await eventually('the pool is on the other host', 5000, async () =>
      (await two.netctl(['pool', 'show', '-o', 'json'])).stdout.includes('10.65'),
    );
    const joined = await Promise.all([join(one, 'a'), join(one, 'b'), join(two, 'c'), join(two, 'd')]);
    assert.equal(new Set(joined.map(({ address }) => address)).size, 4);
    await agree('both hosts know all endpoints');
    const members = async () =>
      (await two.mustExec(['ipset', 'save'])).match(/add nctl4-tag-edge\S* (\S+)/g)?.length;
    await eventually('the tag has the addresses of both hosts', 5000, async () => (await members()) === 4);
    await ok(one, ['profile', 'edge', 'rule', 'add', 'inbound', 'allow', 'tcp', 'to', 'ports', '8080']);
    await eventually('the rule is on the other host', 5000, async () =>
      /dports? 8080/.test(await two.mustExec(['iptables-save'])),
    );
    for (const host of hosts) assert.equal((await host.netctl(['node', 'status'])).code, 0);
  });

  test('a host that is cut off starts and stops containers, restarts its agent, says so, and catches up', async () => {
    const { container: early } = await join(one, 'early');
    await wire(one, 'down');
    const { container, address } = await join(one, 'alone');
    await early.cniDel(conflist);
    await eventually('the status says so', 20_000, async () => {
      const { code, stdout } = await one.netctl(['node', 'status']);
      return code === 4 && /not reachable since/.test(stdout) && /[1-9]\d* changes wait/.test(stdout);
    });
    const start = Date.now();
    const refused = await one.netctl(['profile', 'add', 'later']);
    assert.notEqual(refused.code, 0);
    assert.ok(Date.now() - start < 6000, 'what needs the cluster fails within seconds');
    assert.match(refused.stderr, /cluster|etcd/i);
    await one.kill('SIGKILL');
    await one.start(['--no-bgp', '--datastore', 'etcd', '--etcd-endpoints', 'http://192.0.2.254:2379']);
    assert.match(
      await container.mustExec(['ip', '-o', 'address', 'show', 'eth0']),
      new RegExp(address.replaceAll('.', '\\.')),
    );
    const { address: another } = await join(one, 'restarted');
    assert.notEqual(another, address);
    assert.ok(!JSON.stringify(await endpoints(two, one)).includes(another));
    await wire(one, 'up');
    await eventually('the other host knows', 30_000, async () =>
      JSON.stringify(await endpoints(two, one)).includes(another),
    );
    await agree('both agree again');
    await eventually('healthy again', 20_000, async () => (await one.netctl(['node', 'status'])).code === 0);
  });

  test('a node whose claims were removed tears those endpoints down', async () => {
    const { container } = await join(two, 'doomed');
    await agree('both know');
    const claims = (await etcd.ctl('get', '--prefix', '/netctl/v1/blocks/')).split('\n').filter(Boolean);
    for (let i = 0; i < claims.length; i += 2) {
      if (claims[i + 1]!.includes(two.name)) await etcd.ctl('del', claims[i]!);
    }
    await eventually(
      'its links are gone',
      15_000,
      async () => !/nctl[0-9a-f]{11}/.test(await two.mustExec(['ip', '-o', 'link'])),
    );
    assert.match(two.log(), /torn down/);
    await container.cniDel(conflist);
    assert.deepEqual(await endpoints(two, two), []);
    await join(two, 'again');
  });
});
