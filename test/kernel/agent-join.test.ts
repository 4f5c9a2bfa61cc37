/**
 * A host with containers on its embedded store joins a cluster: its containers keep their network, the other hosts learn of them; where its
 * records do not go together with the cluster's it says which, and goes on alone.
 */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { eventually, mustRun } from '../../lab/run.ts';
import { conflist, EtcdHosts } from './etcd-hosts.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';

// The addresses of the hosts are the same in every file that has some.
enterSandbox(import.meta.url);

describe('a host that was alone joins a cluster', () => {
  let lab: EtcdHosts;
  let member: Host;
  const hosts: Host[] = [];
  const containers: Container[] = [];

  before(async () => {
    lab = await EtcdHosts.create('jn', 1);
    member = lab.hosts[0] as Host;
    await lab.ok(member, 'pool', 'add', '10.68.0.0/16', '--name', 'cluster');
    await lab.join(member, 'member');
  });
  after(async () => {
    await Promise.all(containers.map((container) => container.close()));
    await Promise.all(hosts.map((host) => host.close()));
    await lab?.close();
  });

  async function alone(
    index: number,
    pool: string,
    name = `own${index}`,
  ): Promise<{ host: Host; container: Container; address: string }> {
    const host = await Host.create({ name: `jo${index}x${process.pid}`, address: `198.18.${100 + index}.1` });
    hosts.push(host);
    await mustRun(['ip', 'address', 'add', `198.18.${100 + index}.254/24`, 'dev', `up-${host.name}`]);
    await host.start();
    await lab.ok(host, 'pool', 'add', pool, '--name', name);
    const container = await Container.create(host, 'c');
    containers.push(container);
    const { ips } = await container.cniAdd(conflist);
    return { host, container, address: ips[0]!.address.replace('/32', '') };
  }

  async function restartWithEtcd(host: Host, index: number): Promise<void> {
    await host.kill('SIGTERM');
    await host.start([
      '--no-bgp',
      '--datastore',
      'etcd',
      '--etcd-endpoints',
      `http://198.18.${100 + index}.254:${lab.port}`,
    ]);
  }

  test('its containers keep what they have, the others know of them', async () => {
    const { host, container, address } = await alone(0, '10.69.0.0/16');
    const links = await lab.links(host);
    await restartWithEtcd(host, 0);
    await lab.healthy(host);
    assert.deepEqual(await lab.links(host), links);
    assert.match(await container.mustExec(['ip', '-o', 'address']), new RegExp(address));
    await eventually('the member knows its endpoint and pool', 10_000, async () => {
      const endpoints = await lab.ok(member, 'endpoint', 'show', '--node', host.name);
      return endpoints.includes(address) && (await lab.ok(member, 'pool', 'show')).includes('10.69.0.0/16');
    });
    for (const each of [host, member]) assert.equal((await each.netctl(['ipam', 'check'])).code, 0);
    await container.cniDel(conflist);
    await eventually(
      'and that it is gone',
      10_000,
      async () => !(await lab.ok(member, 'endpoint', 'show', '--node', host.name)).includes(address),
    );
  });

  test('a pool of the same name as another of the cluster: it is called after its prefix, and its containers keep what they have', async () => {
    const { host, container, address } = await alone(2, '10.70.0.0/16', 'cluster');
    const links = await lab.links(host);
    await restartWithEtcd(host, 2);
    await lab.healthy(host);
    assert.deepEqual(await lab.links(host), links);
    const pools = await lab.ok(member, 'pool', 'show');
    assert.match(pools, /^10\.70\.0\.0-16 /m);
    assert.match(pools, /^cluster .*10\.68\.0\.0\/16/m);
    assert.match(await container.mustExec(['ip', '-o', 'address']), new RegExp(address));
    for (const each of [host, member]) assert.equal((await each.netctl(['ipam', 'check'])).code, 0);
    await container.cniDel(conflist);
  });

  test('a pool that overlaps: it says so and goes on alone; by the operator’s word it takes over the cluster’s', async () => {
    const { host, container, address } = await alone(1, '10.68.0.0/20');
    await restartWithEtcd(host, 1);
    const { code, stdout } = await eventually('the status says so', 20_000, async () => {
      const status = await host.netctl(['node', 'status']);
      return /overlaps/.test(status.stdout) ? status : null;
    });
    assert.equal(code, 4);
    assert.match(
      stdout,
      /pool own1 \(10\.68\.0\.0\/20\) overlaps cluster \(10\.68\.0\.0\/16\) of the cluster/,
    );
    assert.match(await container.mustExec(['ip', '-o', 'address']), new RegExp(address));
    const second = await Container.create(host, 'd');
    containers.push(second);
    await second.cniAdd(conflist);
    assert.ok(!(await lab.ok(member, 'pool', 'show')).includes('10.68.0.0/20'));
    await host.kill('SIGTERM');
    await host.start([
      ...['--no-bgp', '--datastore', 'etcd', '--etcd-endpoints', `http://198.18.101.254:${lab.port}`],
      '--confirm-mass-deletion',
    ]);
    await lab.healthy(host);
    await eventually('its endpoints are torn down', 20_000, async () => (await lab.links(host)).length === 0);
    assert.ok(!(await lab.ok(host, 'pool', 'show')).includes('10.68.0.0/20'));
  });
});
