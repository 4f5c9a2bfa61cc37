/** macvlan endpoints by the real agent and the real CNI executable, on two hosts that share a wire. */
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { type Conflist, Container, connectFrom } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { eventually } from '../../lab/run.ts';

const network = (words: object = {}): Conflist => ({
  cniVersion: '1.0.0',
  name: 'wire',
  plugins: [{ type: 'netctl', mode: 'macvlan', parent: 'eth0', ...words }],
});

describe('macvlan', () => {
  const containers: Container[] = [];
  let host: Host;

  before(async () => {
    host = await Host.create({ name: `mv${process.pid}`, address: '192.0.2.1' });
    await host.start(['--resync-seconds', '2']);
    for (const pool of [
      ['pool', 'add', '10.66.0.0/24', '--kind', 'macvlan', '--gateway', '10.66.0.1', '--cooldown', '0'],
      ['pool', 'add', '10.65.0.0/16', '--name', 'routed', '--cooldown', '0'],
    ]) {
      const { code, stderr } = await host.netctl(pool);
      assert.equal(code, 0, stderr);
    }
  });
  afterEach(async () => {
    for (const container of containers.splice(0)) {
      await container.cniDel(network());
      await container.close();
    }
  });
  after(() => host.close());

  async function join(name: string, words: object = {}): Promise<{ container: Container; address: string }> {
    const container = await Container.create(host, name);
    containers.push(container);
    const { ips } = await container.cniAdd(network(words));
    return { container, address: ips[0]!.address.split('/')[0]! };
  }

  test('ADD: the interface in the container, in the subnet of the wire, with its default route', async () => {
    const { container, address } = await join('one');
    const shown = await container.mustExec(['ip', '-o', '-d', 'link', 'show', 'eth0']);
    assert.match(shown, /macvlan mode bridge/);
    assert.match(
      await container.mustExec(['ip', '-o', 'address', 'show', 'eth0']),
      new RegExp(`${address}/24`),
    );
    assert.match(await container.mustExec(['ip', 'route']), /default via 10\.66\.0\.1 dev eth0/);
    await container.cniDel(network());
    assert.notEqual((await container.exec(['ip', 'link', 'show', 'eth0'])).code, 0);
    await container.cniDel(network());
  });

  test('siblings reach each other', async () => {
    const { container: one } = await join('one');
    const { container: two, address } = await join('two');
    await two.serve([80]);
    assert.deepEqual(await one.connect([{ address, port: 80 }], 5000), [true]);
  });

  test('hostAccess veth: the host and the container reach each other, and DEL takes the pair away', async () => {
    const { container, address } = await join('near', { hostAccess: 'veth' });
    await container.serve([80]);
    const fromHost = (command: readonly string[]): Promise<string> => host.mustExec(command);
    assert.deepEqual(await connectFrom(fromHost, [{ address, port: 80 }], 5000), [true]);
    assert.match(
      await container.mustExec(['ip', 'route', 'get', host.address]),
      /via 169\.254\.1\.1 dev eth0-host/,
    );
    await container.cniDel(network());
    assert.doesNotMatch(await host.mustExec(['ip', '-o', 'link']), /nctl/);
    const { container: far, address: there } = await join('far');
    await far.serve([80]);
    assert.deepEqual(await connectFrom(fromHost, [{ address: there, port: 80 }], 500), [false]);
  });

  test('an address that somebody else answers for is put aside, and another one taken', async () => {
    const intruder = await Container.create(host, 'intruder');
    try {
      // Whatever address comes first, the intruder has it: it answers for the whole subnet.
      await host.mustExec('ip link add link eth0 name x0 type macvlan mode bridge'.split(' '));
      await host.mustExec(['ip', 'link', 'set', 'x0', 'netns', intruder.netns]);
      await intruder.mustExec(['ip', 'link', 'set', 'x0', 'up']);
      await intruder.mustExec(['ip', 'address', 'add', '10.66.0.77/32', 'dev', 'x0']);
      const asked = await Container.create(host, 'asked');
      containers.push(asked);
      const refused = await asked.cni('ADD', network({ duplicateDetection: 'fast' }), {
        args: 'IP=10.66.0.77',
      });
      assert.notEqual(refused.code, 0);
      assert.match(refused.stdout, /10\.66\.0\.77 is in use by/);
      const { address } = await join('other', { duplicateDetection: 'fast' });
      assert.notEqual(address, '10.66.0.77');
      const { stdout } = await host.netctl(['ipam', 'show', '--ip', '10.66.0.77']);
      assert.match(stdout, /quarantined/);
    } finally {
      await intruder.close();
    }
  });

  test('an address that the host itself has on the wire is put aside, and another one taken', async () => {
    await host.mustNetctl(['pool', 'add', '10.67.0.0/30', '--name', 'few', '--kind', 'macvlan']);
    await host.mustExec(['ip', 'address', 'add', '10.67.0.1/30', 'dev', 'eth0']);
    try {
      const asked = await Container.create(host, 'asked');
      containers.push(asked);
      const refused = await asked.cni('ADD', network({ pools: ['few'] }), { args: 'IP=10.67.0.1' });
      assert.notEqual(refused.code, 0);
      assert.match(refused.stdout, /10\.67\.0\.1 is the host’s own on eth0/);
      const { address } = await join('other', { pools: ['few'] });
      assert.equal(address, '10.67.0.2');
    } finally {
      await host.mustExec(['ip', 'address', 'delete', '10.67.0.1/30', 'dev', 'eth0']);
    }
  });

  test('the link that somebody deleted is made again', async () => {
    const { container } = await join('one');
    await container.mustExec(['ip', 'link', 'delete', 'eth0']);
    await eventually(
      'the link is there',
      10_000,
      async () => (await container.exec(['ip', 'link', 'show', 'eth0'])).code === 0,
    );
  });

  test('what is wrong with a parent is said', async () => {
    const container = await Container.create(host, 'lost');
    containers.push(container);
    const { code, stdout } = await container.cni('ADD', network({ parent: 'eth9' }));
    assert.equal(code, 1);
    assert.match(stdout, /parent eth9 does not exist on this host/);
    const large = await container.cni('ADD', network({ mtu: 9000 }));
    assert.match(large.stdout, /MTU 9000 is more than the 1500 of parent eth0/);
  });
});
