/**
 * netctl behind Debian's `ptp` in a list: the interface is theirs, the policy is ours, on both back ends. The interface's name has
 * nothing of ours, so nothing of it may get by unjudged.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type CniResult, type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { eventually } from '../../lab/run.ts';

for (const dataplane of ['iptables', 'nftables'])
  describe(`policy on an interface of another plugin, by ${dataplane}`, () => {
    const made: [Container, Conflist][] = [];
    let host: Host;
    let behindPtp: Conflist;
    const routed: Conflist = { cniVersion: '1.0.0', name: 'routed', plugins: [{ type: 'netctl' }] };

    const rules = async (): Promise<string> =>
      dataplane === 'nftables'
        ? host.mustExec(['nft', 'list', 'ruleset'])
        : (await host.mustExec(['iptables-save'])) + (await host.mustExec(['ip6tables-save']));
    const add = async (
      name: string,
      conflist: Conflist,
    ): Promise<{ container: Container; address: string }> => {
      const container = await Container.create(host, name);
      made.push([container, conflist]);
      const { ips }: CniResult = await container.cniAdd(conflist);
      return { container, address: ips[0]!.address.split('/')[0]! };
    };
    /** Whether each reaches port 80 of the other. */
    const reach = async (from: Container, address: string): Promise<boolean> =>
      (await from.connect([{ address, port: 80 }], 700))[0]!;

    before(async () => {
      host = await Host.create({ name: `cf${process.pid}${dataplane[0]}`, address: '192.0.2.1' });
      await host.start(['--dataplane', dataplane, '--resync-seconds', '2']);
      await host.mustNetctl(['pool', 'add', '10.65.0.0/16', '--cooldown', '0']);
      const ipam = {
        type: 'host-local',
        ranges: [[{ subnet: '10.79.0.0/24' }]],
        routes: [{ dst: '0.0.0.0/0' }],
        dataDir: `${host.stateDirectory}/host-local`,
      };
      behindPtp = {
        cniVersion: '1.0.0',
        name: 'police',
        plugins: [{ type: 'ptp', ipam }, { type: 'netctl' }],
      };
    });
    after(async () => {
      for (const [container] of made) await container.close();
      await host.close();
    });

    test('profiles decide between such containers and ours, in both directions', async () => {
      const one = await add('one', behindPtp);
      const two = await add('two', behindPtp);
      const ours = await add('ours', routed);
      for (const { container } of [two, ours]) await container.serve([80]);
      assert.equal(await reach(one.container, two.address), true);
      assert.equal(await reach(ours.container, two.address), false, 'another profile');
      assert.equal(await reach(one.container, ours.address), false, 'another profile');
      await host.mustNetctl([
        'profile',
        'police',
        'rule',
        'add',
        'inbound',
        'allow',
        'from',
        'tag',
        'routed',
      ]);
      await eventually('ours is let in', 5000, () => reach(ours.container, two.address));
      await host.mustNetctl([
        'profile',
        'police',
        'rule',
        'add',
        'inbound',
        '--at',
        '1',
        'deny',
        'tcp',
        'to',
        'ports',
        '80',
      ]);
      await eventually('the rule holds', 5000, async () => !(await reach(one.container, two.address)));
      await host.mustNetctl(['profile', 'police', 'rule', 'remove', 'inbound', '--at', '1']);
      await eventually('the rule is gone', 5000, () => reach(one.container, two.address));
      await host.mustNetctl([
        'profile',
        'police',
        'rule',
        'add',
        'outbound',
        '--at',
        '1',
        'deny',
        'tcp',
        'to',
        'ports',
        '80',
      ]);
      await eventually('outbound rules hold', 5000, async () => !(await reach(one.container, two.address)));
      await host.mustNetctl(['profile', 'police', 'rule', 'remove', 'outbound', '--at', '1']);
      await eventually('and are gone', 5000, () => reach(one.container, two.address));
    });

    test('a forged source is dropped, and so is a family that it has no address of', async () => {
      const [[one], [two]] = made as [[Container, Conflist], [Container, Conflist]];
      const { addresses } = JSON.parse(await host.mustNetctl(['endpoint', 'show', '-o', 'json'])).find(
        (endpoint: { containerId: string }) => endpoint.containerId === two.id,
      ) as { addresses: [string] };
      await one.mustExec(['ip', 'address', 'add', '10.79.0.250/32', 'dev', 'eth0']);
      await host.mustExec(['ip', 'route', 'add', '10.79.0.250/32', 'dev', await hostEnd(one)]);
      const target = { address: addresses[0], port: 80 };
      assert.deepEqual(await one.connect([{ ...target, from: '10.79.0.250' }, target], 700), [false, true]);
      await host.mustExec(['ip', 'address', 'add', 'fd00:79::1/64', 'dev', await hostEnd(one), 'nodad']);
      await one.mustExec(['ip', 'address', 'add', 'fd00:79::2/64', 'dev', 'eth0', 'nodad']);
      await two.mustExec(['true']);
      assert.notEqual((await one.exec(['ping', '-6', '-c', '1', '-W', '1', 'fd00:79::1'])).code, 0);
    });

    /** The other end of its eth0. */
    async function hostEnd(container: Container): Promise<string> {
      const index = /eth0@if(\d+)/.exec(await container.mustExec(['ip', '-o', 'link', 'show', 'eth0']))![1]!;
      return (
        JSON.parse(await host.mustExec(['ip', '-j', 'link'])) as { ifindex: number; ifname: string }[]
      ).find(({ ifindex }) => String(ifindex) === index)!.ifname;
    }

    test('it holds over a restart, and leaves with the last of them', async () => {
      const [[one], [two, conflist]] = made as [[Container, Conflist], [Container, Conflist]];
      assert.match(await rules(), /nctl-foreign/);
      await host.restart();
      const { code, stdout } = await two.cni('CHECK', conflist);
      assert.equal(code, 0, stdout);
      for (const container of [one, two]) await container.cniDel(conflist);
      await eventually('nothing of it is left', 5000, async () => !/foreign/.test(await rules()));
    });
  });
