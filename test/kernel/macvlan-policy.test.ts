/**
 * Policy of macvlan endpoints by real agents in real namespaces: who reaches whom between siblings, hosts and routed endpoints; what lies
 * about its MAC or address; what happens to the rules when others touch them.
 */

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { eventually, mustRun, run } from '../../lab/run.ts';
import { KernelError } from '../../src/linux/ports.ts';
import { createLinux } from '../../src/linux/real/linux.ts';
import { type Address, addressBytes } from '../../src/model/ip.ts';
import { type Mac, macBytes, macOf } from '../../src/model/mac.ts';
import { EtcdHosts } from './etcd-hosts.ts';
import { framesOf, udp } from './frames.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';

// The addresses of the hosts are the same in every file that has some.
enterSandbox(import.meta.url);

const ports = [22, 80, 443, 3306, 8080];
const roles = ['web', 'app', 'db'] as const;
type Role = (typeof roles)[number];
/** As `make demo` shows of routed endpoints. */
const open: Readonly<Record<string, readonly number[]>> = {
  'web app': ports,
  'web db': [],
  'app web': [80, 443],
  'app db': [3306],
  'db web': [80, 443],
  'db app': [],
};
const pool4 = '10.66.0.0/24';
/** The first host's own on the wire, by which routed endpoints are reached. */
const gateway = '10.66.0.254';

const wire = (profile: string, words: object = {}): Conflist => ({
  cniVersion: '1.0.0',
  name: 'wire',
  plugins: [
    { type: 'netctl', mode: 'macvlan', parent: 'eth1', profiles: [profile], pools: ['wire'], ...words },
  ],
});
const routed = (profile: string): Conflist => ({
  cniVersion: '1.0.0',
  name: 'edge',
  plugins: [{ type: 'netctl', profiles: [profile], pools: ['routed'] }],
});

interface Member {
  readonly name: string;
  readonly role: Role;
  readonly container: Container;
  readonly address: string;
  readonly place: 'first' | 'second' | 'routed';
}

async function addExamples(host: Host): Promise<void> {
  for (const role of roles) {
    await host.mustNetctl(['profile', 'add', role]);
    await host
      .mustNetctl(['profile', role, 'rule', 'update', `conf/examples/${role}-rule.json`])
      .catch(async () => {
        const json = await mustRun(['cat', `conf/examples/${role}-rule.json`]);
        await host.mustNetctl(['profile', role, 'rule', 'update'], { stdin: json });
      });
  }
}

test('web → app → db between siblings, between hosts, and between macvlan and routed: the same answers', async () => {
  const bridge = `brp${process.pid}`;
  const all = await EtcdHosts.create('mp', 2);
  const containers: Container[] = [];
  try {
    const [first, second] = all.hosts as [Host, Host];
    await mustRun(['ip', 'link', 'add', bridge, 'up', 'type', 'bridge', 'mcast_snooping', '0']);
    for (const host of all.hosts) {
      const port = `w${host.name}`.slice(0, 15);
      await mustRun([
        'ip',
        'link',
        'add',
        port,
        'up',
        'master',
        bridge,
        'type',
        'veth',
        'peer',
        'name',
        'eth1',
        'netns',
        `nct-${host.name}`,
      ]);
      await host.mustExec(['ip', 'link', 'set', 'eth1', 'up']);
    }
    await first.mustExec(['ip', 'address', 'add', `${gateway}/24`, 'dev', 'eth1']);
    await first.mustNetctl([
      'pool',
      'add',
      pool4,
      '--name',
      'wire',
      '--kind',
      'macvlan',
      '--gateway',
      gateway,
      '--cooldown',
      '0',
    ]);
    await first.mustNetctl(['pool', 'add', '10.65.0.0/16', '--name', 'routed', '--cooldown', '0']);
    await addExamples(first);
    await eventually(
      'the second host knows the profiles',
      10_000,
      async () =>
        (await second.netctl(['profile', 'show'])).stdout.includes('web') &&
        (await second.netctl(['pool', 'show'])).stdout.includes('wire'),
    );
    const members: Member[] = [];
    for (const [place, host] of [
      ['first', first],
      ['second', second],
      ['routed', first],
    ] as const)
      for (const role of roles) {
        const name = `${place}-${role}`;
        const container = await Container.create(host, name);
        containers.push(container);
        const { ips } = await container.cniAdd(place === 'routed' ? routed(role) : wire(role));
        members.push({ name, role, container, place, address: ips[0]!.address.split('/')[0]! });
      }
    await Promise.all(members.map(({ container }) => container.serve(ports)));
    await eventually(
      'the first host has the addresses of all',
      10_000,
      async () => (await first.netctl(['endpoint', 'show'])).stdout.split('\n').length > members.length,
    );
    await sleep(500);
    // To its own host a macvlan has no way over the wire.
    const isAsked = (from: Member, to: Member): boolean =>
      from.role !== to.role &&
      !(
        [from, to].some(({ place }) => place === 'routed') &&
        [from, to].some(({ place }) => place === 'first')
      );
    const expected: string[] = [];
    const seen: string[] = [];
    let cells = 0;
    for (const from of members) {
      const targets = members
        .filter((to) => isAsked(from, to))
        .flatMap((to) => ports.map((port) => ({ to, port })));
      const answers = await from.container.connect(
        targets.map(({ to, port }) => ({ address: to.address, port })),
        1500,
      );
      cells += targets.length;
      targets.forEach(({ to, port }, at) => {
        const key = `${from.name} → ${to.name} ${port}`;
        if (open[`${from.role} ${to.role}`]!.includes(port)) expected.push(key);
        if (answers[at]) seen.push(key);
      });
    }
    assert.equal(cells, 42 * ports.length);
    assert.deepEqual(seen, expected);
  } finally {
    for (const container of containers) await container.close();
    await all.close();
    await run(['ip', 'link', 'delete', bridge]);
  }
});

describe('one host', () => {
  let host: Host;
  const containers: Container[] = [];
  const linuxes: Awaited<ReturnType<typeof createLinux>>[] = [];

  before(async () => {
    host = await Host.create({ name: `mq${process.pid}`, address: '192.0.2.1' });
    await host.start(['--resync-seconds', '2']);
    await host.mustNetctl(['pool', 'add', pool4, '--name', 'wire', '--kind', 'macvlan', '--cooldown', '0']);
    await addExamples(host);
    linuxes.push(await createLinux({ iptablesBackend: 'nft' }));
  });
  after(async () => {
    for (const container of containers) await container.close();
    for (const linux of linuxes) linux.close();
    await host?.close();
  });

  async function join(name: string, profile: string, words: object = {}) {
    const container = await Container.create(host, name);
    containers.push(container);
    const network = wire(profile, { parent: 'eth0', ...words });
    const { ips } = await container.cniAdd(network);
    const address = ips[0]!.address.split('/')[0]! as Address;
    return { container, address, mac: macOf(address), network };
  }

  const reaches = async (
    from: Container,
    address: string,
    port: number,
    patienceMs = 700,
  ): Promise<boolean> => (await from.connect([{ address, port }], patienceMs))[0]!;

  /** The kernel's own words for all rules in a container, without counters. */
  const rulesOf = async (container: Container): Promise<string> =>
    (await container.mustExec(['nft', 'list', 'ruleset'])).replace(/packets \d+ bytes \d+/g, '');

  test('a changed profile holds at once, and cuts nothing', async () => {
    const web = await join('web', 'web');
    const db = await join('db', 'db');
    await db.container.serve([3306, 22]);
    assert.equal(await reaches(web.container, db.address, 3306), false);
    await host.mustNetctl(
      'profile db rule add inbound --at 1 allow tcp from tag web to ports 3306'.split(' '),
    );
    assert.equal(await reaches(web.container, db.address, 3306, 3000), true);
    const report = await web.container.hold({ address: db.address, port: 3306 });
    await host.mustNetctl('profile db rule remove inbound --at 1'.split(' '));
    assert.equal(await reaches(web.container, db.address, 3306), false);
    await host.restart();
    await sleep(500);
    const { echoes, longestGapMs } = await report();
    assert.ok(echoes > 10, `${echoes} echoes`);
    assert.ok(longestGapMs < 1000, `${longestGapMs} ms without an echo`);
  });

  test('an agent that starts again writes nothing anew', async () => {
    const { container, address } = await join('steady', 'web');
    const handles = async (): Promise<string> =>
      (await container.mustExec(['nft', '-a', 'list', 'ruleset'])).replace(/packets \d+ bytes \d+/g, '') +
      (await host.mustExec(['nft', '-a', 'list', 'ruleset'])).replace(/packets \d+ bytes \d+/g, '');
    const seen = await handles();
    assert.match(seen, new RegExp(address));
    await host.restart();
    await sleep(3000);
    assert.equal(await handles(), seen);
  });

  test('the host reaches it by the pair; what it sends to the host, endpointToHost decides', async () => {
    const near = await join('near', 'db', { hostAccess: 'veth' });
    await near.container.serve([9000]);
    const [reached] = JSON.parse(
      await host.mustExec([
        process.execPath,
        'lab/tcp.ts',
        'connect',
        JSON.stringify([{ address: near.address, port: 9000 }]),
        '2000',
      ]),
    ) as boolean[];
    assert.equal(reached, true);
    const refused = await near.container.exec(['ping', '-c', '1', '-W', '1', host.address]);
    assert.notEqual(refused.code, 0);
  });

  test('DEL leaves no table of ours in a namespace that lives, and none on the host without endpoints', async () => {
    const { container, network } = await join('leaving', 'web');
    assert.match(await rulesOf(container), /table ip netctl-eth0/);
    await container.cniDel(network);
    assert.equal(await rulesOf(container), '');
  });

  test('rules that the container takes away are put back, and it is said', async () => {
    const victim = await join('flushed', 'web');
    const before = await rulesOf(victim.container);
    await victim.container.mustExec(['nft', 'flush', 'ruleset']);
    await eventually('the rules are back', 15_000, async () => (await rulesOf(victim.container)) === before);
    assert.match(host.log(), /was changed by others and is repaired/);
  });

  describe('lies', () => {
    let liar: Awaited<ReturnType<typeof join>>;
    let sibling: Awaited<ReturnType<typeof join>>;
    const foreign = '02:00:00:00:00:99' as Mac;

    before(async () => {
      liar = await join('liar', 'web');
      sibling = await join('sibling', 'web');
    });

    /** Sends a frame from the liar; whether it came to the sibling. */
    async function arrives(protocol: number, frame: Buffer): Promise<boolean> {
      const [linux] = linuxes;
      const there = linux!.openNetns(`/run/netns/${sibling.container.netns}`);
      const here = linux!.openNetns(`/run/netns/${liar.container.netns}`);
      const indexIn = (netns: typeof here): number => {
        const routing = linux!.openRouting(netns);
        const index = routing.link({ name: 'eth0' })!.index;
        routing.close();
        return index;
      };
      let came = false;
      const ear = linux!.openPackets(
        indexIn(there),
        protocol,
        (each) => {
          came ||= each.subarray(0, frame.length).equals(frame);
        },
        there,
      );
      const mouth = linux!.openPackets(indexIn(here), protocol, null, here);
      try {
        for (let i = 0; i < 5 && !came; i++) {
          try {
            mouth.send(frame);
          } catch (error) {
            if (!(error instanceof KernelError)) throw error;
          }
          await sleep(60);
        }
        return came;
      } finally {
        for (const each of [ear, mouth, there, here]) each.close();
      }
    }

    const packet = (sourceMac: Mac, source: Address): Buffer =>
      framesOf(
        { source, destination: sibling.address, sourceMac, destinationMac: sibling.mac, id: 7, isCut: false },
        udp([5000, 5001], Buffer.from('a packet that is long enough')),
      )[0]!;

    /** An answer, to the sibling alone: `address` is at `senderMac`. */
    function arp(sourceMac: Mac, senderMac: Mac, address: Address): Buffer {
      const header = Buffer.from([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2]);
      return Buffer.concat([
        macBytes(sibling.mac),
        macBytes(sourceMac),
        header,
        macBytes(senderMac),
        addressBytes(address),
        macBytes(sibling.mac),
        addressBytes(sibling.address),
      ]);
    }

    const lies = (): readonly [what: string, protocol: number, frame: Buffer, isGuarded: boolean][] => {
      const neighbour = '10.66.0.250' as Address;
      return [
        ['a foreign MAC', 0x0800, packet(foreign, liar.address), false],
        ['a foreign address', 0x0800, packet(liar.mac, neighbour), true],
        ['ARP that claims a neighbour’s address', 0x0806, arp(liar.mac, liar.mac, neighbour), true],
        ['ARP that claims the sibling’s own address', 0x0806, arp(liar.mac, liar.mac, sibling.address), true],
        ['ARP for a foreign MAC', 0x0806, arp(liar.mac, foreign, liar.address), true],
        ['ARP from a foreign MAC', 0x0806, arp(foreign, foreign, sibling.address), true],
      ];
    };

    test('the truth arrives', async () => {
      assert.equal(await arrives(0x0800, packet(liar.mac, liar.address)), true);
      assert.equal(await arrives(0x0806, arp(liar.mac, liar.mac, liar.address)), true);
    });

    test('a foreign MAC, a foreign address and forged ARP do not', async () => {
      for (const [what, protocol, frame] of lies()) assert.equal(await arrives(protocol, frame), false, what);
    });

    test('nor do they, but for a MAC that nobody here has, from a container that takes its rules away', async () => {
      const { container } = liar;
      for (const [what, protocol, frame, isGuarded] of lies()) {
        if (!isGuarded) continue;
        await container.mustExec(['nft', 'flush', 'ruleset']);
        const came = await arrives(protocol, frame);
        assert.equal(came, false, what);
      }
    });
  });

  test('a process that could change the rules is named, and the enforcement is shown', async () => {
    const { container } = await join('root', 'web');
    await container.serve([80]);
    await eventually('it is said', 15_000, async () =>
      /container and guard, advisory/.test((await host.netctl(['endpoint', 'show', '--detailed'])).stdout),
    );
  });
});
