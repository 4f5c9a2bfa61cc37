/**
 * What lies between a macvlan endpoint and its host, by the real agent: the host's own macvlan on the parent (`hostAccess: shim`), the
 * gateway that is asked, the VLAN that this kernel does not have.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, afterEach, before, describe, test } from 'node:test';
import { type Conflist, Container, connectFrom } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { eventually, mustRun, run } from '../../lab/run.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';

enterSandbox(import.meta.url);

const near = { address4: '192.0.2.1', address6: '2001:db8::1' };
const network = (words: object = {}): Conflist => ({
  cniVersion: '1.0.0',
  name: 'wire',
  plugins: [{ type: 'netctl', mode: 'macvlan', parent: 'eth1', pools: ['wire4', 'wire6'], ...words }],
});
const shim = network({ hostAccess: 'shim' });

describe('between a macvlan endpoint and its host', () => {
  const containers: [Container, Conflist][] = [];
  let host: Host;
  let peer: Host;

  before(async () => {
    await mustRun(['ip', 'link', 'add', 'wire', 'up', 'type', 'bridge', 'mcast_snooping', '0']);
    host = await Host.create({ name: 'here', address: near.address4 });
    peer = await Host.create({ name: 'there', address: '192.0.2.9' });
    await host.mustExec(['ip', 'address', 'add', `${near.address6}/64`, 'dev', 'eth0', 'nodad']);
    for (const { name } of [host, peer]) {
      await mustRun(
        `ip link add w-${name} up master wire type veth peer name eth1 netns nct-${name}`.split(' '),
      );
    }
    await host.mustExec(['ip', 'link', 'set', 'eth1', 'up']);
    await peer.mustExec(['ip', 'link', 'set', 'eth1', 'up']);
    await host.start(['--address6', near.address6, '--resync-seconds', '2']);
    const pool = '--kind macvlan --cooldown 0'.split(' ');
    const wire4 = '10.66.0.0/24 --exclude 10.66.0.192/26 --name wire4 --gateway 10.66.0.1'.split(' ');
    await host.mustNetctl(['pool', 'add', ...wire4, ...pool]);
    await host.mustNetctl(['pool', 'add', 'fd66::/64', '--name', 'wire6', '--gateway', 'fd66::1', ...pool]);
  });
  afterEach(async () => {
    for (const [container, of] of containers.splice(0)) {
      await container.cniDel(of);
      await container.close();
    }
  });
  after(async () => {
    await host?.close();
    await peer?.close();
    await run(['ip', 'link', 'delete', 'wire']);
  });

  async function create(of: Conflist): Promise<Container> {
    const container = await Container.create(host, `c${containers.length}`);
    containers.push([container, of]);
    return container;
  }

  async function join(of: Conflist): Promise<{ container: Container; addresses: string[] }> {
    const container = await create(of);
    const { ips } = await container.cniAdd(of);
    await container.serve([80]);
    return { container, addresses: ips.map(({ address }) => address.split('/')[0]!) };
  }

  const fromHost = (command: readonly string[]): Promise<string> => host.mustExec(command);
  const reaches = (addresses: readonly string[], timeoutMs = 2000): Promise<boolean[]> =>
    connectFrom(
      fromHost,
      addresses.map((address) => ({ address, port: 80 })),
      timeoutMs,
    );
  const shims = async (): Promise<string[]> =>
    [...(await host.mustExec(['ip', '-o', 'link'])).matchAll(/ (ncts\w+)@/g)].map(([, name]) => name!);

  test('the host reaches its containers by one shim, which goes with the last of them', async () => {
    const one = await join(shim);
    const two = await join(shim);
    assert.deepEqual(await reaches([...one.addresses, ...two.addresses]), [true, true, true, true]);
    assert.equal((await shims()).length, 1);
    await one.container.cniDel(shim);
    assert.equal((await shims()).length, 1);
    assert.deepEqual(await reaches(two.addresses), [true, true]);
    await two.container.cniDel(shim);
    assert.deepEqual(await shims(), []);
    assert.doesNotMatch(await host.mustExec(['ip', 'route']), /10\.66\.0/);
  });

  test('what a container sends to its host is judged as from any other endpoint', async () => {
    const { container } = await join(shim);
    const script =
      "require('node:net').createServer((s) => s.end()).listen(2222, '::', () => console.log('ready'))";
    const [program = '', ...args] = host.command([process.execPath, '-e', script]);
    const server = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      await once(server.stdout, 'data');
      const targets = [near.address4, near.address6].map((address) => ({ address, port: 2222 }));
      // endpointToHost is drop.
      assert.deepEqual(await container.connect(targets, 700), [false, false]);
    } finally {
      server.kill('SIGKILL');
    }
  });

  test('who only says that it is the host is not let in as the host', async () => {
    const { container, addresses } = await join(shim);
    assert.deepEqual(await reaches([addresses[0]!]), [true]);
    // The same source address, from another place of the wire.
    await peer.mustExec(['ip', 'address', 'replace', '10.66.0.200/24', 'dev', 'eth1']);
    await peer.mustExec(['ip', 'address', 'replace', `${near.address4}/32`, 'dev', 'eth1']);
    const mac = /link\/ether (\S+)/.exec(await container.mustExec(['ip', '-o', 'link', 'show', 'eth0']))![1]!;
    await peer.mustExec([
      'ip',
      'neigh',
      'replace',
      addresses[0]!,
      'lladdr',
      mac,
      'dev',
      'eth1',
      'nud',
      'permanent',
    ]);
    const before = await dropped(container);
    const script = `const socket = require('node:dgram').createSocket('udp4');
      socket.bind(0, '${near.address4}', () => socket.send('x', 9999, '${addresses[0]}', () => process.exit(0)));`;
    await peer.mustExec([process.execPath, '-e', script]);
    await eventually('it is dropped', 5000, async () => (await dropped(container)) > before);
  });

  /** Packets that the rules in the container have dropped. */
  async function dropped(container: Container): Promise<number> {
    const rules = await container.mustExec(['nft', 'list', 'table', 'ip', 'netctl-eth0']);
    return [...rules.matchAll(/counter packets (\d+) bytes \d+ drop/g)].reduce(
      (sum, [, n]) => sum + Number(n),
      0,
    );
  }

  test('others on the wire are told of no address of the host by the shim', async () => {
    await join(shim);
    await peer.mustExec(['ip', 'address', 'replace', '10.66.0.200/24', 'dev', 'eth1']);
    await host.mustExec(['ip', 'address', 'add', '10.66.0.254/24', 'dev', 'eth1']);
    try {
      await peer.mustExec(['ip', 'neigh', 'flush', 'dev', 'eth1']);
      await peer.mustExec(['ping', '-c', '1', '-W', '2', '10.66.0.254']);
      const [mac] = /(?<=link\/ether )\S+/.exec(await host.mustExec(['ip', '-o', 'link', 'show', 'eth1']))!;
      assert.match(await peer.mustExec(['ip', 'neigh', 'show', '10.66.0.254']), new RegExp(`lladdr ${mac}`));
    } finally {
      await host.mustExec(['ip', 'address', 'delete', '10.66.0.254/24', 'dev', 'eth1']);
    }
  });

  test('what others take away is repaired: the shim, the host’s route, the container’s', async () => {
    const { container, addresses } = await join(shim);
    const back = (what: string): Promise<true> =>
      eventually(what, 20_000, async () => (await reaches(addresses, 500)).every((each) => each));
    const [name] = (await shims()) as [string];
    await host.mustExec(['ip', 'link', 'delete', name]);
    const { code, stdout } = await container.cni('CHECK', shim);
    if (code !== 0) assert.match(stdout, /the host's own interface ncts\w+ on eth1 is missing/);
    await back('the shim is there again');
    await host.mustExec(['ip', 'route', 'delete', `${addresses[0]!}/32`]);
    await back('the route is there again');
    await container.mustExec(['ip', 'route', 'delete', `${near.address4}/32`]);
    await back('the route in the container is there again');
    await host.kill('SIGKILL');
    await host.mustExec(['ip', 'link', 'delete', name]);
    await host.start(['--address6', near.address6, '--resync-seconds', '2']);
    await back('after a restart');
  });

  test('a shim that nobody needs any more is removed by the next agent', async () => {
    const { container } = await join(shim);
    await host.kill('SIGKILL');
    await container.close();
    await host.start(['--address6', near.address6, '--resync-seconds', '2']);
    await eventually('it is gone', 20_000, async () => (await shims()).length === 0);
  });

  test('with a mode in which it would reach nobody it is refused', async () => {
    const of = network({ hostAccess: 'shim', macvlanMode: 'passthru' });
    const { code, stdout } = await (await create(network())).cni('ADD', of);
    assert.equal(code, 1);
    assert.match(stdout, /shim reaches nobody with macvlanMode passthru/);
  });

  test('the gateway is asked before ADD answers: silent, it is a warning or an error', async () => {
    const required = network({ gatewayCheck: 'require' });
    const container = await create(required);
    const { code, stdout } = await container.cni('ADD', required);
    assert.equal(code, 1);
    assert.match(stdout, /gateway 10\.66\.0\.1, fd66::1 does not answer on eth1/);
    assert.equal((JSON.parse(stdout) as { code: number }).code, 115);
    assert.notEqual((await container.exec(['ip', 'link', 'show', 'eth0'])).code, 0);
    assert.doesNotMatch(await host.mustNetctl(['endpoint', 'show']), /wire/);
    await join(network({ gatewayCheck: 'warn' }));
    await host.logged(/gateway 10\.66\.0\.1, fd66::1 does not answer on eth1/);
    await peer.mustExec(['ip', 'address', 'add', '10.66.0.1/24', 'dev', 'eth1']);
    await peer.mustExec(['ip', 'address', 'add', 'fd66::1/64', 'dev', 'eth1', 'nodad']);
    try {
      const started = performance.now();
      await container.cniAdd(required);
      assert.ok(performance.now() - started < 2000);
    } finally {
      await peer.mustExec(['ip', 'address', 'delete', '10.66.0.1/24', 'dev', 'eth1']);
      await peer.mustExec(['ip', 'address', 'delete', 'fd66::1/64', 'dev', 'eth1']);
    }
  });

  test('a VLAN is made where the kernel has VLANs, and else refused with the reason', async () => {
    for (const words of [{ vlan: 100 }, { parent: 'eth1.100' }]) {
      const of = network(words);
      const { code, stdout } = await (await create(of)).cni('ADD', of);
      if (code === 0)
        assert.match(await host.mustExec(['ip', '-d', 'link', 'show', 'eth1.100']), /vlan .*id 100/);
      else assert.match(stdout, /cannot make VLAN 100 on eth1: this kernel has no VLANs \(module 8021q\)/);
    }
  });
});
