/**
 * Fixed addresses and reservations by real CNI calls on two hosts with one etcd: what an owner has survives deletion and moves with
 * it; a host that comes back after its address has moved gives way.
 */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Host } from '../../lab/host.ts';
import { eventually } from '../../lab/run.ts';
import { conflist, EtcdHosts } from './etcd-hosts.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';

// The addresses of the hosts are the same in every file that has some.
enterSandbox(import.meta.url);

interface Allocation {
  readonly state: string;
  readonly generation: number;
  readonly node: string | null;
  readonly container: string | null;
}

describe('addresses that stay their owner’s', () => {
  let lab: EtcdHosts;
  let one: Host;
  let two: Host;

  before(async () => {
    lab = await EtcdHosts.create('ow', 2);
    [one, two] = lab.hosts as [Host, Host];
    await lab.ok(one, 'pool', 'add', '10.66.0.0/16', '--cooldown', '0');
    await eventually('the pool is on the other host', 10_000, async () =>
      (await lab.ok(two, 'pool', 'show')).includes('10.66.0.0/16'),
    );
  });
  after(() => lab?.close());

  async function allocation(host: Host, address: string): Promise<Allocation | null> {
    const { status, body } = await lab.api(host, 'GET', `/v1/allocations?ip=${address}`);
    assert.equal(status, 200, JSON.stringify(body));
    return body.items.find((item: { address: string }) => item.address === address) ?? null;
  }

  test('an instance leaves one host and starts on the other: the same address and MAC, and back again', async () => {
    const call = { args: 'NETCTL_OWNER=shop/db/0' };
    const first = await lab.join(one, 'a', call);
    const inUse = await lab.join(two, 'b', call).then(
      () => '',
      (error: Error) => error.message,
    );
    assert.match(inUse, new RegExp(`${first.address} of shop/db/0 is still in use on node ${one.name}`));
    await first.container.cniDel(conflist, call);
    const second = await lab.join(two, 'c', call);
    assert.deepEqual([second.address, second.mac], [first.address, first.mac]);
    assert.match(
      await second.container.mustExec(['ip', '-o', 'link', 'show', 'eth0']),
      new RegExp(first.mac),
    );
    await second.container.cniDel(conflist, call);
    const third = await lab.join(one, 'd', call);
    assert.deepEqual([third.address, third.mac], [first.address, first.mac]);
    assert.equal((await allocation(one, first.address))?.state, 'active');
  });

  test('a new instance starts on both hosts at the same moment: one has an address, which alone is kept', async () => {
    for (let round = 0; round < 3; round++) {
      const call = { args: `NETCTL_OWNER=shop/first/${round}` };
      const starts = await Promise.allSettled([
        lab.join(one, `f${round}`, call),
        lab.join(two, `g${round}`, call),
      ]);
      const started = starts.flatMap((start) => (start.status === 'fulfilled' ? [start.value] : []));
      const refused = starts.flatMap((start) => (start.status === 'rejected' ? [String(start.reason)] : []));
      assert.equal(started.length, 1, refused.join('; '));
      assert.match(
        refused[0]!,
        new RegExp(`${started[0]!.address} of shop/first/${round} is still in use on node`),
      );
      for (const host of [one, two]) {
        const { body } = await lab.api(
          host,
          'GET',
          `/v1/allocations?tenant=shop&app=first&instance=${round}`,
        );
        assert.deepEqual(
          body.items.map(({ address }: { address: string }) => address),
          [started[0]!.address],
        );
      }
    }
  });

  test('policies: ttl and never keep, delete does not', async () => {
    const after = async (args: string): Promise<string | null> => {
      const { container, address } = await lab.join(one, 'p', { args });
      await container.cniDel(conflist, { args });
      return (await allocation(one, address))?.state ?? null;
    };
    assert.equal(await after('NETCTL_OWNER=shop/p/0;NETCTL_ON_RELEASE=delete'), null);
    assert.equal(await after('NETCTL_OWNER=shop/p/1;NETCTL_ON_RELEASE=never'), 'retained');
    assert.equal(
      await after('NETCTL_OWNER=shop/p/2;NETCTL_ON_RELEASE=ttl;NETCTL_RETAIN_SECONDS=1'),
      'retained',
    );
    await eventually('what was kept for a second is free', 20_000, async () => {
      const { body } = await lab.api(one, 'GET', '/v1/allocations?tenant=shop&app=p&limit=10');
      return body.items.length === 1;
    });
  });

  test('ADD takes what a reservation holds, on whichever host, a moment after it was made; once', async () => {
    const body = { id: 'r1', tenant: 'shop', app: 'web', instances: ['0'], ipv4: 1, ttlSeconds: 300 };
    const reserved = await lab.api(one, 'POST', '/v1/reservations', body);
    assert.equal(reserved.status, 201, JSON.stringify(reserved.body));
    const call = { args: 'NETCTL_RESERVATION=r1' };
    const joined = await lab.join(two, 'r', call);
    const [{ address, mac }] = reserved.body.addresses;
    assert.deepEqual([joined.address, joined.mac], [address, mac]);
    const { state, generation, container } = (await allocation(two, address))!;
    assert.deepEqual([state, generation, container], ['active', 2, joined.container.id]);
    const again = await lab.join(two, 's', call).then(String, String);
    assert.match(again, /reservation r1 has no address left/);
    assert.match(
      await lab.join(one, 't', { args: 'NETCTL_RESERVATION=none' }).then(String, String),
      /no reservation none/,
    );
  });

  test('cut off while its address moves: STALE_GENERATION for its bind and release, and it tears down', async () => {
    const call = { args: 'NETCTL_OWNER=shop/moving/0' };
    const old = await lab.join(one, 'old', call);
    const { generation } = (await allocation(one, old.address))!;
    await eventually('the other host knows', 10_000, () => allocation(two, old.address));
    await lab.wire(one, 'down');
    const moved = await lab.api(two, 'POST', `/v1/allocations/${old.address}/transfer`, {
      generation,
      toNode: two.name,
      force: true,
    });
    assert.equal(moved.status, 200, JSON.stringify(moved.body));
    const heir = await lab.join(two, 'heir', call);
    assert.deepEqual([heir.address, heir.mac], [old.address, old.mac]);
    assert.match(await old.container.mustExec(['ip', '-o', 'address']), new RegExp(`${old.address}/32`));
    await lab.wire(one, 'up');
    await eventually(
      'it has torn the endpoint down',
      30_000,
      async () => (await old.container.exec(['ip', 'link', 'show', 'eth0'])).code !== 0,
    );
    await one.logged(/is active for shop\/moving\/0 by now/);
    const fence = { generation, tenant: 'shop' };
    const bound = { ...fence, container: old.container.id, node: one.name };
    for (const [verb, body] of [
      ['bind', bound],
      ['release', fence],
    ] as const) {
      const { status, body: answer } = await lab.api(
        one,
        'POST',
        `/v1/allocations/${old.address}/${verb}`,
        body,
      );
      assert.deepEqual([status, answer.error.code], [412, 'STALE_GENERATION']);
    }
    await old.container.cniDel(conflist, call);
    assert.equal((await allocation(two, old.address))?.container, heir.container.id);
    assert.match(await heir.container.mustExec(['ip', '-o', 'address']), new RegExp(`${old.address}/32`));
    await lab.healthy(one);
  });
});
