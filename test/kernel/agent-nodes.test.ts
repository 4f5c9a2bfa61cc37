/**
 * Nodes on one etcd as an operator sees them: who lives, by a lease; taking one out of the cluster, also when that is cut short, and
 * what it does when it comes back.
 */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Host } from '../../lab/host.ts';
import { eventually } from '../../lab/run.ts';
import { conflist, EtcdHosts } from './etcd-hosts.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';

// The addresses of the hosts are the same in every file that has some.
enterSandbox(import.meta.url);

interface NodeRow {
  readonly name: string;
  readonly alive: boolean | null;
  readonly since: string | null;
  readonly interface: string | null;
  readonly labels: Record<string, string>;
}

describe('nodes', () => {
  let lab: EtcdHosts;
  let one: Host;
  let two: Host;

  before(async () => {
    lab = await EtcdHosts.create('nd', 2, ['--labels', 'rack=r1', '--interface', 'eth0']);
    [one, two] = lab.hosts as [Host, Host];
    await lab.ok(one, 'pool', 'add', '10.67.0.0/16', '--cooldown', '1');
    await eventually('the pool is on the other host', 10_000, async () =>
      (await lab.ok(two, 'pool', 'show')).includes('10.67.0.0/16'),
    );
  });
  after(() => lab?.close());

  const row = async (host: Host, node: Host): Promise<NodeRow | undefined> =>
    (await lab.json<NodeRow[]>(host, 'node', 'show')).find(({ name }) => name === node.name);
  const isAlive = (host: Host, node: Host, alive: boolean | null) =>
    eventually(
      `${node.name} is ${alive} for ${host.name}`,
      40_000,
      async () => (await row(host, node))?.alive === alive,
    );
  const keys = async (...words: string[]): Promise<string[]> =>
    (await lab.etcd.ctl('get', '--prefix', '--keys-only', '/netctl/v1/', ...words))
      .split('\n')
      .filter(Boolean)
      .map((key) => key.slice('/netctl/v1/'.length));

  test('each knows the other, since when it lives, and when it does not: ended, killed, cut off', async () => {
    await isAlive(one, two, true);
    await isAlive(two, one, true);
    const { since, labels, interface: link } = (await row(one, two))!;
    assert.ok(Date.now() - Date.parse(since!) < 60_000);
    assert.deepEqual([labels, link], [{ rack: 'r1' }, 'eth0']);
    await two.kill('SIGTERM');
    const ended = Date.now();
    await isAlive(one, two, false);
    assert.ok(Date.now() - ended < 5000, 'an agent that ends says so');
    await lab.start(two);
    await isAlive(one, two, true);
    await two.kill('SIGKILL');
    const killed = Date.now();
    await isAlive(one, two, false);
    assert.ok(Date.now() - killed < 25_000, 'after the time of the lease');
    await lab.start(two);
    await isAlive(one, two, true);
    await lab.wire(two, 'down');
    await isAlive(one, two, false);
    await isAlive(two, one, null);
    assert.equal((await row(two, two))?.alive, true);
    await lab.wire(two, 'up');
    await isAlive(one, two, true);
    await isAlive(two, one, true);
    await lab.healthy(two);
  });

  test('a lease that is lost is noticed and made again', async () => {
    const [lease] = (await lab.etcd.ctl('lease', 'list')).split('\n').slice(1);
    assert.ok(lease);
    for (const id of (await lab.etcd.ctl('lease', 'list')).split('\n').slice(1).filter(Boolean))
      await lab.etcd.ctl('lease', 'revoke', id);
    await eventually(
      'both are there again',
      30_000,
      async () => (await keys()).filter((key) => key.startsWith('status/')).length === 2,
    );
    await one.logged(/etcd has ended our lease/);
    await lab.etcd.ctl('del', '--prefix', '/netctl/v1/status/');
    await eventually(
      'what somebody deleted, too',
      60_000,
      async () => (await keys()).filter((key) => key.startsWith('status/')).length === 2,
    );
    await lab.healthy(one);
  });

  test('removing a node: shown first, refused while it lives, then gone with all that it had; fixed addresses stay', async () => {
    const owned = { args: 'NETCTL_OWNER=shop/kept/0' };
    const fixed = await lab.join(two, 'fixed', owned);
    const plain = [await lab.join(two, 'a'), await lab.join(two, 'b')];
    const reserved = await lab.api(two, 'POST', '/v1/reservations', {
      ...{ id: 'r2', tenant: 'shop', app: 'x', instances: ['0'], ipv4: 1, ttlSeconds: 3600 },
      node: two.name,
    });
    assert.equal(reserved.status, 201);
    const survivor = await lab.join(one, 'survivor');
    await eventually('one knows all of it', 10_000, async () => {
      const { stdout } = await one.netctl(['node', 'remove', two.name]);
      return /has \d blocks?, 3 endpoints, 2 addresses to be free, 1 kept for its owner, 1 reservation, its record/.test(
        stdout,
      );
    });
    const refused = await one.netctl(['node', 'remove', two.name, '--yes']);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /agent of node .* is running: stop it first/);
    assert.match((await two.netctl(['node', 'remove', two.name, '--yes'])).stderr, /is the one that you ask/);
    assert.match((await one.netctl(['node', 'remove', 'nobody', '--yes'])).stderr, /there is no node nobody/);

    await two.kill('SIGKILL');
    await isAlive(one, two, false);
    assert.match(await lab.ok(one, 'node', 'remove', two.name, '--yes'), /removed: \d blocks?, 3 endpoints/);
    const left = await keys();
    assert.deepEqual(
      left.filter((key) => key.includes(two.name)),
      [],
    );
    assert.deepEqual(
      left.filter((key) => key.startsWith('reservations/')),
      [],
    );
    assert.equal((await one.netctl(['node', 'remove', two.name, '--yes'])).code, 1);
    await eventually('what it had is free, but for the fixed address', 20_000, async () => {
      const addresses = (await keys()).filter((key) => key.startsWith('addresses/'));
      return addresses.length === 2 && addresses.includes(`addresses/${fixed.address}`);
    });
    const heir = await lab.join(one, 'heir', owned);
    assert.deepEqual([heir.address, heir.mac], [fixed.address, fixed.mac]);

    assert.equal((await lab.links(two)).length, 3, 'the host itself has not heard of it');
    await lab.start(two);
    await eventually('it tears them down', 30_000, async () => (await lab.links(two)).length === 0);
    await two.logged(/claims of this node are gone/);
    await isAlive(one, two, true);
    for (const { container } of [fixed, ...plain]) await container.cniDel(conflist);
    assert.notEqual((await lab.join(two, 'new')).address, survivor.address);
    assert.equal((await lab.links(one)).length, 2, 'others have kept theirs');
    assert.equal((await one.netctl(['ipam', 'check'])).code, 0);
    await lab.healthy(two);
  });

  test('by force from under a running agent: it tears down, says so, and goes on as a new node', async () => {
    await lab.join(two, 'doomed');
    const before = (await lab.links(two)).length;
    assert.ok(before >= 2);
    await eventually('one knows it', 10_000, async () =>
      (await one.netctl(['node', 'remove', two.name])).stdout.includes(`${before} endpoints`),
    );
    await lab.ok(one, 'node', 'remove', two.name, '--yes', '--force');
    await eventually('its links are gone', 30_000, async () => (await lab.links(two)).length === 0);
    await isAlive(one, two, true);
    await lab.join(two, 'afterwards');
    await lab.healthy(two);
    await eventually(
      'nothing contradicts',
      10_000,
      async () => (await one.netctl(['ipam', 'check'])).code === 0,
    );
  });
});
