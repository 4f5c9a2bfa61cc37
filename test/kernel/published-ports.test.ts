/**
 * Published ports by the real agent: who reaches a container by a port of its host, from where it seems to come, and what is left when the
 * container is gone. With both back ends, for routed and macvlan endpoints.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { eventually, mustRun, type Result } from '../../lab/run.ts';
import { probePacket } from '../../src/linux/packet.ts';
import { createLinux } from '../../src/linux/real/linux.ts';
import { type Address, addressFromBytes } from '../../src/model/ip.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';

enterSandbox(import.meta.url);

const near = { address4: '192.0.2.1', address6: '2001:db8::1' };
const client = { address4: '192.0.2.2', address6: '2001:db8::2', stranger: '192.0.2.3' };
const capabilities = { portMappings: true };
const routed: Conflist = {
  cniVersion: '1.0.0',
  name: 'edge',
  plugins: [{ type: 'netctl', pools: ['four', 'six'], profiles: ['open'], capabilities }],
};
const macvlan = (words: object = {}): Conflist => ({
  cniVersion: '1.0.0',
  name: 'wire',
  plugins: [
    {
      type: 'netctl',
      mode: 'macvlan',
      parent: 'eth1',
      pools: ['wire4', 'wire6'],
      profiles: ['open'],
      hostAccess: 'veth',
      capabilities,
      ...words,
    },
  ],
});

/** Answers everybody with the address that they come from; prints `ready`. */
const server = `
  const net = require('node:net'), dgram = require('node:dgram');
  const plain = (address) => address.replace('::ffff:', '');
  const [tcp, udp] = process.argv.slice(1).map(Number);
  net.createServer((socket) => socket.on('error', () => {}).end(plain(socket.remoteAddress))).listen(tcp, '::', () => {
    const socket = dgram.createSocket('udp6');
    socket.on('message', (_, from) => socket.send(plain(from.address), from.port, from.address));
    socket.bind(udp, '::', () => console.log('ready'));
  });`;
/** Prints what the server answered, or that it did not. */
const asker = `
  const [protocol, address, port, from, milliseconds] = process.argv.slice(1);
  const end = (text) => { console.log(text); process.exit(0); };
  setTimeout(() => end('no answer'), Number(milliseconds));
  if (protocol === 'tcp') {
    let text = '';
    const socket = require('node:net').connect({ host: address, port: Number(port), ...(from ? { localAddress: from } : {}) });
    socket.on('data', (data) => (text += data)).on('end', () => end(text)).on('error', (error) => end(error.code));
  } else {
    const socket = require('node:dgram').createSocket(address.includes(':') ? 'udp6' : 'udp4');
    socket.on('message', (data) => end(String(data))).on('error', (error) => end(error.code));
    socket.bind({ port: 4444, ...(from ? { address: from } : {}) }, () => {
      const send = () => socket.send('who', Number(port), address);
      send();
      setInterval(send, 100);
    });
  }`;

for (const dataplane of ['nftables', 'iptables'] as const)
  describe(`published ports with ${dataplane}`, () => {
    const containers: [Container, Conflist][] = [];
    const children: ChildProcess[] = [];
    let host: Host;
    let peer: Host;

    before(async () => {
      await mustRun(['ip', 'link', 'add', 'lan', 'up', 'type', 'bridge', 'mcast_snooping', '0']);
      await mustRun(['ip', 'link', 'add', 'wire', 'up', 'type', 'bridge', 'mcast_snooping', '0']);
      host = await Host.create({ name: 'pub', address: near.address4 });
      peer = await Host.create({ name: 'far', address: client.address4 });
      for (const { name } of [host, peer])
        await mustRun(['ip', 'link', 'set', `up-${name}`, 'master', 'lan']);
      await host.mustExec(['ip', 'address', 'add', `${near.address6}/64`, 'dev', 'eth0', 'nodad']);
      await peer.mustExec(['ip', 'address', 'add', `${client.address6}/64`, 'dev', 'eth0', 'nodad']);
      await peer.mustExec(['ip', 'address', 'add', `${client.stranger}/24`, 'dev', 'eth0']);
      await mustRun('ip link add w-pub up master wire type veth peer name eth1 netns nct-pub'.split(' '));
      await host.mustExec(['ip', 'link', 'set', 'eth1', 'up']);
      await host.start(['--dataplane', dataplane, '--address6', near.address6, '--resync-seconds', '2']);
      await host.mustNetctl('pool add 10.65.0.0/16 --name four --cooldown 0'.split(' '));
      await host.mustNetctl('pool add fd65::/64 --name six --cooldown 0'.split(' '));
      // Its gateway is nobody: what goes back by the wire is lost.
      const wire = '--kind macvlan --cooldown 0'.split(' ');
      await host.mustNetctl([
        'pool',
        'add',
        '10.66.0.0/24',
        '--name',
        'wire4',
        '--gateway',
        '10.66.0.1',
        ...wire,
      ]);
      await host.mustNetctl(['pool', 'add', 'fd66::/64', '--name', 'wire6', '--gateway', 'fd66::1', ...wire]);
      await host.mustNetctl(['profile', 'add', 'open']);
      for (const rule of [
        'allow from cidr 192.0.2.2',
        'allow from cidr 2001:db8::/64',
        'allow from tag open',
      ])
        await host.mustNetctl(['profile', 'open', 'rule', 'add', 'inbound', ...rule.split(' ')]);
    });
    afterEach(async () => {
      for (const child of children.splice(0)) child.kill('SIGKILL');
      for (const [container, network] of containers.splice(0)) {
        await container.cniDel(network);
        await container.close();
      }
    });
    after(async () => {
      await host?.close();
      await peer?.close();
      for (const bridge of ['lan', 'wire']) await mustRun(['ip', 'link', 'delete', bridge]);
    });

    async function create(network: Conflist): Promise<Container> {
      const container = await Container.create(host, `c${containers.length}`);
      containers.push([container, network]);
      return container;
    }

    async function serve(container: Container): Promise<void> {
      const [program = '', ...args] = container.command([process.execPath, '-e', server, '80', '53']);
      const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
      children.push(child);
      await once(child.stdout, 'data');
    }

    /** A container that serves, with 8080/tcp and 5353/udp of the host. */
    async function publish(network: Conflist, mappings: readonly object[] = usual): Promise<Container> {
      const container = await create(network);
      await container.cniAdd(network, { runtime: { portMappings: mappings } });
      await serve(container);
      return container;
    }

    const usual = [
      { hostPort: 8080, containerPort: 80, protocol: 'tcp' },
      { hostPort: 5353, containerPort: 53, protocol: 'UDP', hostIP: '' },
      { hostPort: 9899, containerPort: 9898, protocol: 'sctp' },
    ];

    type Place = Pick<Container, 'mustExec'>;
    const ask = async (
      from: Place,
      protocol: 'tcp' | 'udp',
      address: string,
      port: number,
      { own = '', ms = 3000 } = {},
    ): Promise<string> =>
      (
        await from.mustExec([process.execPath, '-e', asker, protocol, address, String(port), own, String(ms)])
      ).trim();

    const addressOf = async (container: Container, family: 4 | 6): Promise<string> => {
      const shown = await container.mustExec([
        'ip',
        '-o',
        `-${family}`,
        'address',
        'show',
        'dev',
        'eth0',
        'scope',
        'global',
      ]);
      return / inet6? ([^/ ]+)/.exec(shown)![1]!;
    };

    for (const [kind, network] of [
      ['routed', routed],
      ['macvlan', macvlan()],
    ] as const) {
      test(`${kind}: clients reach it with their own address, and only those that its policy lets in`, async () => {
        await publish(network);
        assert.equal(await ask(peer, 'tcp', near.address4, 8080), client.address4);
        assert.equal(await ask(peer, 'udp', near.address4, 5353), client.address4);
        assert.equal(await ask(peer, 'tcp', near.address6, 8080), client.address6);
        assert.equal(await ask(peer, 'udp', near.address6, 5353), client.address6);
        const stranger = { own: client.stranger, ms: 700 };
        assert.equal(await ask(peer, 'tcp', near.address4, 8080, stranger), 'no answer');
        assert.equal(await ask(peer, 'udp', near.address4, 5353, stranger), 'no answer');
      });

      test(`${kind}: the host reaches it, by its loopback too, and the container itself and its neighbours do`, async () => {
        const container = await publish(network);
        assert.equal(await ask(host, 'tcp', near.address4, 8080), near.address4);
        assert.equal(await ask(host, 'tcp', near.address6, 8080), near.address6);
        // Only here the source is another one: answers to 127.0.0.1 would stay in the container.
        assert.match(await ask(host, 'tcp', '127.0.0.1', 8080), /^192\.0\.2\.1$|^10\./);
        assert.match(await ask(host, 'udp', '127.0.0.1', 5353), /^192\.0\.2\.1$|^10\./);
        assert.equal(await ask(host, 'tcp', '::1', 8080), 'ECONNREFUSED');
        assert.match(await ask(container, 'tcp', near.address4, 8080), /^192\.0\.2\.1$|^10\./);
        assert.notEqual(await ask(container, 'tcp', near.address6, 8080), 'no answer');
        const neighbour = await create(network);
        await neighbour.cniAdd(network);
        assert.equal(await ask(neighbour, 'tcp', near.address4, 8080), await addressOf(neighbour, 4));
        assert.equal(await ask(neighbour, 'tcp', near.address6, 8080), await addressOf(neighbour, 6));
      });
    }

    test('macvlan: what comes by the host is answered by it although the reverse path filter is strict', async () => {
      const network = macvlan();
      const container = await create(network);
      for (const name of ['all', 'default'])
        await container.mustExec(['sh', '-c', `echo 1 > /proc/sys/net/ipv4/conf/${name}/rp_filter`]);
      await container.cniAdd(network, { runtime: { portMappings: usual } });
      await serve(container);
      assert.equal(await ask(peer, 'tcp', near.address4, 8080), client.address4);
    });

    test('macvlan: the way back is repaired, and CHECK sees that it is missing', async () => {
      const network = macvlan();
      const container = await publish(network);
      const rules = async (): Promise<string> => container.mustExec(['ip', 'rule']);
      const led = /fwmark \S+ lookup (\d+)/.exec(await rules())!;
      await container.mustExec(['ip', 'rule', 'delete', 'table', led[1]!]);
      const { code, stdout } = await container.cni('CHECK', network);
      if (code !== 0) assert.match(stdout, /rule for what came by the host is missing/);
      await eventually('the rule is there again', 20_000, async () => (await rules()).includes(led[0]!));
      assert.equal(await ask(peer, 'tcp', near.address4, 8080), client.address4);
      await container.cniDel(network);
      assert.doesNotMatch(await rules(), /fwmark/);
    });

    test('who sent to the port before it was published gets there all the same', async () => {
      const container = await create(routed);
      const asked = ask(peer, 'udp', near.address4, 5353, { ms: 15_000 });
      await eventually('the connection is tracked', 5000, async () =>
        (await host.mustExec(['cat', '/proc/net/nf_conntrack'])).includes('dport=5353'),
      ).catch(() => undefined);
      await container.cniAdd(routed, { runtime: { portMappings: usual } });
      await serve(container);
      assert.equal(await asked, client.address4);
    });

    test('a port that another container has is refused by name; on another address of the host it is not', async () => {
      const first = await publish(routed, [
        { hostPort: 8080, containerPort: 80, protocol: 'tcp', hostIP: near.address4 },
      ]);
      const second = await create(routed);
      const add = (mapping: object): Promise<Result> =>
        second.cni('ADD', routed, {
          runtime: { portMappings: [{ protocol: 'tcp', containerPort: 80, ...mapping }] },
        });
      const refused = await add({ hostPort: 8080 });
      assert.equal(refused.code, 1);
      assert.match(refused.stdout, new RegExp(`port 8080/tcp of node pub is taken by container ${first.id}`));
      assert.equal((await add({ hostPort: 8080, hostIP: near.address6 })).code, 0);
      await serve(second);
      assert.equal(await ask(peer, 'tcp', near.address4, 8080), client.address4);
      assert.equal(await ask(peer, 'tcp', near.address6, 8080), client.address6);
      assert.match(await host.mustNetctl(['endpoint', 'show', '--detailed']), /192\.0\.2\.1:8080:80\/tcp/);
      // It is free as soon as its container is gone.
      await second.cniDel(routed);
      await first.cniDel(routed);
      assert.equal((await add({ hostPort: 8080 })).code, 0);
    });

    test('what cannot be published is refused with the reason', async () => {
      const alone = macvlan({ hostAccess: 'none' });
      const container = await create(alone);
      const add = (network: Conflist, mapping: object): Promise<Result> =>
        container.cni('ADD', network, { runtime: { portMappings: [mapping] } });
      const mapping = { hostPort: 8080, containerPort: 80 };
      assert.match((await add(alone, mapping)).stdout, /set hostAccess to veth/);
      assert.match((await add(routed, { ...mapping, hostIP: '::1' })).stdout, /loopback cannot be led/);
      assert.match((await add(routed, { ...mapping, hostPort: 70000 })).stdout, /a port from 1 to 65535/);
      assert.match((await add(routed, { ...mapping, protocol: 'icmp' })).stdout, /tcp, udp or sctp/);
    });

    test('it outlives a restart of the agent, is repaired when others remove it, and DEL takes it away', async () => {
      const container = await publish(routed);
      await host.restart();
      assert.equal(await ask(peer, 'tcp', near.address4, 8080), client.address4);
      const flush =
        dataplane === 'nftables'
          ? [['nft', 'delete', 'table', 'ip', 'netctl']]
          : [
              ['iptables', '-t', 'nat', '-F', 'PREROUTING'],
              ['iptables', '-t', 'nat', '-F', 'nctl-published'],
            ];
      for (const command of flush) await host.mustExec(command);
      await eventually(
        'the port is published again',
        20_000,
        async () => (await ask(peer, 'tcp', near.address4, 8080, { ms: 500 })) === client.address4,
      );
      await host.mustExec(flush[0]!);
      const { code, stdout } = await container.cni('CHECK', routed);
      if (code !== 0) assert.match(stdout, /it is repaired now/);
      assert.equal((await container.cni('CHECK', routed)).code, 0);
      assert.equal(await ask(peer, 'tcp', near.address4, 8080), client.address4);
      await container.cniDel(routed);
      const left =
        dataplane === 'nftables'
          ? await host.mustExec(['nft', 'list', 'ruleset'])
          : (await host.mustExec(['iptables-save'])) + (await host.mustExec(['ip6tables-save']));
      assert.doesNotMatch(left, /published|8080/);
      assert.notEqual(await ask(peer, 'tcp', near.address4, 8080, { ms: 700 }), client.address4);
    });

    test('SCTP is led as well', async () => {
      const container = await publish(routed);
      const linux = await createLinux({ iptablesBackend: 'auto' });
      const inside = linux.openNetns(`/run/netns/${container.netns}`);
      const outside = linux.openNetns('/run/netns/nct-far');
      const routing = linux.openRouting(inside);
      const { promise: heard, resolve } = Promise.withResolvers<Buffer>();
      const { index } = routing.link({ name: 'eth0' })!;
      const ipv4 = 0x0800;
      const isSctp = (frame: Buffer): boolean => frame[23] === 132;
      const packets = linux.openPackets(
        index,
        ipv4,
        (frame) => void (isSctp(frame) && resolve(frame)),
        inside,
      );
      try {
        const init = probePacket({
          source: client.address4 as Address,
          destination: near.address4 as Address,
          protocol: 132,
          sourcePort: 1000,
          destinationPort: 9899,
          icmp: null,
          id: 7,
        });
        await linux.tracePacket(init, outside);
        const frame = await Promise.race([heard, sleep(5000, null)]);
        assert.ok(frame !== null, 'it did not arrive');
        assert.equal(addressFromBytes(frame.subarray(26, 30)), client.address4);
        assert.equal(addressFromBytes(frame.subarray(30, 34)), await addressOf(container, 4));
        assert.equal(frame.readUInt16BE(36), 9898);
      } finally {
        for (const open of [packets, routing, inside, outside, linux]) open.close();
      }
    });

    test('a container that runs gets ports, and loses them again', async () => {
      const container = await create(routed);
      await container.cniAdd(routed);
      await serve(container);
      const set = (what: string): Promise<string> =>
        host.mustNetctl(['endpoint', 'set', container.id, '--publish', what]);
      await set('8080:80');
      assert.equal(await ask(peer, 'tcp', near.address4, 8080), client.address4);
      assert.match(await host.mustNetctl(['endpoint', 'show', '-o', 'wide']), /8080:80\/tcp/);
      await set('none');
      assert.notEqual(await ask(peer, 'tcp', near.address4, 8080, { ms: 700 }), client.address4);
    });
  });
