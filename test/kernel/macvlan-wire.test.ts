/** The wire below macvlan endpoints: it goes and comes back, and somebody else claims an address on it. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { type CniCall, type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { eventually, mustRun, run } from '../../lab/run.ts';

const network = (words: object = {}): Conflist => ({
  cniVersion: '1.0.0',
  name: 'wire',
  plugins: [{ type: 'netctl', mode: 'macvlan', parent: 'eth0', ...words }],
});
const bridge = `brw${process.pid}`;

describe('the wire of macvlan endpoints', () => {
  const containers: Container[] = [];
  let host: Host;
  let peer: Host;

  before(async () => {
    await mustRun(['ip', 'link', 'add', bridge, 'up', 'type', 'bridge', 'mcast_snooping', '0']);
    host = await Host.create({ name: `wa${process.pid}`, address: '192.0.2.1' });
    peer = await Host.create({ name: `wb${process.pid}`, address: '192.0.2.2' });
    for (const { name } of [host, peer]) await mustRun(['ip', 'link', 'set', `up-${name}`, 'master', bridge]);
    await peer.mustExec(['ip', 'address', 'add', '10.66.0.200/24', 'dev', 'eth0']);
    await host.start(['--resync-seconds', '300']);
    const pool = '10.66.0.0/24 --exclude 10.66.0.192/26 --kind macvlan --cooldown 0';
    await host.mustNetctl(['pool', 'add', ...pool.split(' ')]);
  });
  afterEach(async () => {
    for (const container of containers.splice(0)) {
      await container.cniDel(network());
      await container.close();
    }
  });
  after(async () => {
    await host?.close();
    await peer?.close();
    await run(['ip', 'link', 'delete', bridge]);
  });

  async function join(
    words: object = {},
    name = 'one',
    call: CniCall = {},
  ): Promise<{ container: Container; address: string }> {
    const container = await Container.create(host, name);
    containers.push(container);
    const { ips } = await container.cniAdd(network(words), call);
    return { container, address: ips[0]!.address.split('/')[0]! };
  }

  const ownMac = async (container: Container): Promise<string> =>
    /link\/ether (\S+)/.exec(await container.mustExec(['ip', '-o', 'link', 'show', 'eth0']))![1]!;

  const macOf = async (address: string): Promise<string> =>
    /lladdr (\S+)/.exec(await peer.mustExec(['ip', 'neigh', 'show', address]))?.[1] ?? '';

  test('the wire is announced on again when it has carrier again', async () => {
    const { container, address } = await join();
    const mac = await ownMac(container);
    await eventually(
      'the agent listens',
      10_000,
      async () => (await host.mustExec(['cat', '/proc/net/packet'])).trim().split('\n').length > 1,
    );
    // What the peer believes in the meantime is wrong; only an announcement puts it right without a question of its own.
    await mustRun(['ip', 'link', 'set', `up-${host.name}`, 'down']);
    await peer.mustExec([
      'ip',
      'neigh',
      'replace',
      address,
      'lladdr',
      '02:00:00:00:99:99',
      'dev',
      'eth0',
      'nud',
      'stale',
    ]);
    await eventually('the agent has seen it', 10_000, async () =>
      /NO-CARRIER/.test(await host.mustExec(['ip', 'link', 'show', 'eth0'])),
    );
    await mustRun(['ip', 'link', 'set', `up-${host.name}`, 'up']);
    await eventually('the peer knows better', 10_000, async () => (await macOf(address)) === mac);
  });

  test('another machine that claims the address is contested and reported; a probe is not', async () => {
    const { container, address } = await join();
    const mac = await ownMac(container);
    await eventually(
      'the agent listens',
      10_000,
      async () => (await host.mustExec(['cat', '/proc/net/packet'])).trim().split('\n').length > 1,
    );
    const intruder = await Container.create(peer, 'intruder');
    try {
      await peer.mustExec(
        'ip link add link eth0 name x0 address 02:00:00:00:66:66 type macvlan mode bridge'.split(' '),
      );
      await peer.mustExec(['ip', 'link', 'set', 'x0', 'netns', intruder.netns]);
      await intruder.mustExec(['sysctl', '-qw', 'net.ipv4.conf.x0.arp_notify=1']);
      await intruder.mustExec(['ip', 'address', 'add', `${address}/24`, 'dev', 'x0']);
      await intruder.mustExec(['ip', 'link', 'set', 'x0', 'up']);
      await eventually('the conflict is in the store', 10_000, async () =>
        /quarantined/.test(await host.mustNetctl(['ipam', 'show', '--ip', address])),
      );
      const record = await host.mustNetctl(['ipam', 'show', '--ip', address, '-o', 'json']);
      assert.match(record, /02:00:00:00:66:66/);
      await host.logged(/somebody else claims the address/);
      // Nobody takes the address from the container that has it.
      assert.match(await container.mustExec(['ip', '-o', 'address', 'show', 'eth0']), new RegExp(address));
      assert.equal((await container.cni('CHECK', network())).code, 0);
      assert.equal(await ownMac(container), mac);
    } finally {
      await intruder.close();
    }
  });

  test('a parent that goes and comes back: an error meanwhile, then the interface again', async () => {
    await host.mustExec(['ip', 'link', 'add', 'wire1', 'type', 'veth', 'peer', 'name', 'far1']);
    for (const end of ['wire1', 'far1']) await host.mustExec(['ip', 'link', 'set', end, 'up']);
    const { container, address } = await join({ parent: 'wire1' }, 'gone');
    await eventually(
      'the agent listens',
      10_000,
      async () => (await host.mustExec(['cat', '/proc/net/packet'])).trim().split('\n').length > 1,
    );
    await host.mustExec(['ip', 'link', 'delete', 'wire1']);
    await eventually('it is said', 15_000, async () =>
      /parent wire1 (does not exist|is missing)/.test((await host.netctl(['node', 'status'])).stdout),
    );
    await host.mustExec(['ip', 'link', 'add', 'wire1', 'type', 'veth', 'peer', 'name', 'far1']);
    for (const end of ['wire1', 'far1']) await host.mustExec(['ip', 'link', 'set', end, 'up']);
    await eventually('the interface is back', 15_000, async () =>
      (await container.exec(['ip', '-o', 'address', 'show', 'eth0'])).stdout.includes(address),
    );
    assert.equal((await container.cni('CHECK', network({ parent: 'wire1' }))).code, 0);
  });

  describe('a MAC that an interface on the wire still has', () => {
    const mac = '02:00:00:00:44:44';
    const withMac = { args: `MAC=${mac}` };

    async function holder(): Promise<Container> {
      const container = await Container.create(host, 'holder');
      containers.push(container);
      const link = `ip link add link eth0 name h0 address ${mac} type macvlan mode bridge`;
      await host.mustExec(link.split(' '));
      await host.mustExec(['ip', 'link', 'set', 'h0', 'netns', container.netns]);
      await container.mustExec(['ip', 'link', 'set', 'h0', 'up']);
      return container;
    }

    test('the container that had it is about to go: the next one waits for that', async () => {
      const old = await holder();
      const adding = join({}, 'next', withMac);
      await setTimeout(300);
      await old.mustExec(['ip', 'link', 'delete', 'h0']);
      const { container } = await adding;
      assert.equal(await ownMac(container), mac);
      assert.equal((await container.cni('CHECK', network(), withMac)).code, 0);
      assert.match(await container.mustExec(['ip', 'route']), /default|10\.66\.0\.0\/24/);
    });

    test('it stays: the error says so, and nothing is left', async () => {
      await holder();
      const container = await Container.create(host, 'refused');
      containers.push(container);
      const { code, stdout } = await container.cni('ADD', network(), withMac);
      assert.notEqual(code, 0);
      assert.match(stdout, new RegExp(`another interface on eth0 has MAC ${mac}`));
      assert.doesNotMatch(await container.mustExec(['ip', '-o', 'link']), /eth0/);
    });
  });
});
