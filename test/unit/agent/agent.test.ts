/** The agent on the strict fakes: order of work, and a failure at every step, which no real kernel fails on command. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Agent } from '../../../src/agent/agent.ts';
import { PolicyQuestions } from '../../../src/agent/policy-questions.ts';
import { NetctlError } from '../../../src/lib/errors.ts';
import { FakeBird } from '../../../src/linux/fake/bird.ts';
import { FakeLinux } from '../../../src/linux/fake/linux.ts';
import type { Linux } from '../../../src/linux/ports.ts';
import type { Attachment } from '../../../src/model/attachment.ts';
import { hostInterfaceIndex } from '../../../src/model/attachment.ts';
import type { Address, Cidr } from '../../../src/model/ip.ts';
import type { Mac } from '../../../src/model/mac.ts';
import { poolSchema } from '../../../src/model/records.ts';
import type { Json, Store } from '../../../src/store/store.ts';
import { config, MemoryMark, override, Rig, request, silent } from './rig.ts';

/** What stays after a DEL by design: blocks until their addresses have cooled down, unused rules for a few seconds. */
const settled = (linux: FakeLinux): string =>
  linux.toString().replace(/^.*(blackhole|forwarding|ip_forward).*\n?/gm, '');

describe('a failure at any step of ADD leaves nothing, and the next ADD works', () => {
  const failures: [string, (rig: Rig) => void][] = [
    ['the namespace cannot be opened', ({ linux }) => linux.failNext('openNetns', 'ENOENT')],
    ['the store refuses', ({ store }) => store.failNext('transact', 'refused')],
    ['the policy cannot be written', ({ linux }) => linux.failNext('restore', 'EBUSY')],
    // Once for the flush that the watch asks for, once for the one that the request waits for.
    [
      'a set cannot be made',
      ({ linux }) => {
        for (const _ of [1, 2]) linux.failNext('ipsets', 'ENOMEM');
      },
    ],
    // host: veth-add, address generation, up, and for each address a neighbour and a route; then the container's batch
    ...[0, 1, 2, 3, 4, 5, 6].map((position): [string, (rig: Rig) => void] => [
      `request ${position} of the host's batch`,
      ({ linux }) => linux.failNext('batch', 'ENOMEM', position),
    ]),
  ];
  for (const [name, fail] of failures) {
    test(name, async () => {
      const rig = new Rig();
      const attachments = await rig.start();
      // The block routes of the first claim are written by movement 2; here only the request's own batches shall fail.
      await attachments.attach(request('before'));
      await attachments.detach(request('before'));
      const before = [
        settled(rig.linux),
        await rig.keys('endpoints/'),
        (await rig.keys('addresses/')).length,
      ];
      const other = { ...request('a'), profiles: ['other'] };
      fail(rig);
      await assert.rejects(attachments.attach(other));
      assert.deepEqual(rig.linux.pendingFailures, []);
      assert.equal(rig.linux.openNetnsCount, 0);
      assert.deepEqual((await rig.keys('addresses/')).length, before[2]);
      assert.deepEqual(await rig.keys('endpoints/'), []);
      assert.doesNotMatch(settled(rig.linux), /nctl[0-9a-f]{11}|eth0/);
      assert.equal((await attachments.attach(other)).addresses.length, 2);
      assert.equal(rig.linux.openNetnsCount, 0);
    });
  }

  test('the container’s batch fails half-way', async () => {
    for (let position = 0; position < 8; position++) {
      let batches = 0;
      const rig = new Rig((linux, store) => ({
        store,
        linux: override(linux, {
          openRouting(netns) {
            if (netns !== undefined && batches++ === 0) rig.linux.failNext('batch', 'ENOMEM', position);
            return linux.openRouting(netns);
          },
        }),
      }));
      const attachments = await rig.start();
      await assert.rejects(attachments.attach(request('a')), { code: 'KERNEL' });
      assert.deepEqual(rig.linux.pendingFailures, []);
      assert.deepEqual(await rig.keys('addresses/'), []);
      assert.doesNotMatch(settled(rig.linux), /nctl[0-9a-f]{11}|eth0/);
      assert.equal((await attachments.attach(request('a'))).addresses.length, 2);
    }
  });

  test('the commit was made but its answer was lost: the runtime’s DEL takes it back', async () => {
    const rig = new Rig();
    const attachments = await rig.start();
    rig.store.failNext('transact', 'ambiguous');
    await assert.rejects(attachments.attach(request('a')), { code: 'STORE_UNAVAILABLE' });
    assert.equal((await rig.keys('endpoints/')).length, 1);
    await attachments.detach(request('a'));
    assert.deepEqual(await rig.keys('endpoints/'), []);
    rig.clock.advance(31_000);
    await attachments.expire();
    assert.deepEqual(await rig.keys('addresses/'), []);
  });
});

describe('order', () => {
  /** Every write to kernel and store, as one word each. */
  function traced() {
    const trace: string[] = [];
    const noted =
      <A extends unknown[], R>(step: string, act: (...args: A) => R) =>
      (...args: A): R => {
        trace.push(step);
        return act(...args);
      };
    const rig = new Rig((linux, store) => ({
      linux: override<Linux>(linux, {
        openRouting(netns) {
          const routing = linux.openRouting(netns);
          return { ...routing, batch: noted(netns ? 'container' : 'host', routing.batch) };
        },
        deleteLink: noted('delete link', (index) => linux.deleteLink(index)),
        conntrack: {
          ...linux.conntrack,
          flushAddresses: noted('conntrack', (addresses) => linux.conntrack.flushAddresses(addresses)),
        },
        iptables: override(linux.iptables, {
          restore: noted('rules', (family, text) => linux.iptables.restore(family, text)),
        }),
        ipsets: override(linux.ipsets, { batch: noted('sets', (requests) => linux.ipsets.batch(requests)) }),
      }),
      store: override<Store>(store, {
        transact: noted('store', (compares, writes) => store.transact(compares, writes)),
      }),
    }));
    return { rig, trace };
  }
  const without = (trace: readonly string[]): string[] => trace.filter((step, i) => step !== trace[i - 1]);

  test('ADD: store, policy, host side, container side; with a known list of profiles no rules are written', async () => {
    const { rig, trace } = traced();
    const attachments = await rig.start();
    await attachments.attach(request('first'));
    rig.linux.addNetns('/ns/b');
    trace.length = 0;
    await attachments.attach(request('second', '/ns/b'));
    assert.deepEqual(without(trace), ['store', 'sets', 'host', 'container']);
  });

  test('DEL: link, the store, connections a moment later; the address is kept back until its cooldown is over', async () => {
    const { rig, trace } = traced();
    const attachments = await rig.start();
    const { addresses } = await attachments.attach(request('a'));
    trace.length = 0;
    await attachments.detach(request('a'));
    assert.deepEqual(without(trace), ['delete link', 'store', 'sets']);
    assert.deepEqual(rig.linux.tracked.flushedAddresses, []);
    rig.clock.advance(100);
    await new Promise((next) => setImmediate(next));
    assert.deepEqual(without(trace).at(-1), 'conntrack');
    assert.deepEqual(rig.linux.tracked.flushedAddresses, addresses);
    await assert.rejects(attachments.attach({ ...request('b'), addresses }), { code: 'ADDRESS_UNAVAILABLE' });
    rig.clock.advance(31_000);
    await attachments.expire();
    assert.deepEqual((await attachments.attach({ ...request('b'), addresses })).addresses, addresses);
  });

  test('nothing is written to the kernel before the store is in sync', async () => {
    const rig = new Rig((linux, store) => {
      store.failNext('list', 'refused');
      return { linux, store };
    });
    const before = rig.linux.toString();
    const starting = rig.start();
    for (let i = 0; i < 20; i++) await new Promise((next) => setImmediate(next));
    assert.equal(rig.linux.toString(), before);
    rig.clock.advance(1000);
    await starting;
    assert.match(rig.linux.toString(), /nctl-FORWARD/);
  });
});

describe('with nftables', () => {
  test('a transaction that fails leaves nothing of the ADD, and the next one works', async () => {
    const rig = new Rig(undefined, 'nftables');
    const attachments = await rig.start();
    assert.equal(rig.agent.status().policy.backend, 'nftables');
    // Once for the flush that the watch asks for, once for the one that the request waits for.
    for (const _ of [1, 2]) rig.linux.failNext('nftables', 'ENOMEM');
    await assert.rejects(attachments.attach(request('a')), { errno: 'ENOMEM' });
    assert.deepEqual(rig.linux.pendingFailures, []);
    assert.deepEqual(await rig.keys('endpoints/'), []);
    assert.equal((await attachments.attach(request('a'))).addresses.length, 2);
    const { backend, inSync } = rig.agent.status().policy;
    assert.deepEqual([backend, inSync], ['nftables', true]);
  });

  test('an ADD is refused only on account of what the cluster has, if the cluster can be asked', async () => {
    let heard = async (): Promise<void> => assert.fail('the cluster was asked without need');
    const rig: Rig = new Rig(
      (linux, store) => ({
        linux,
        store: override<Store>(store, {
          refresh: async () => {
            await heard();
            return (await store.list('')).revision;
          },
        }),
      }),
      'nftables',
    );
    rig.linux.addNetns('/ns/b');
    const attachments = await rig.start();
    const { addresses } = await attachments.attach(request('a'));
    const taken = { ...request('b', '/ns/b'), addresses };
    await assert.rejects(attachments.attach(taken), { code: 'ADDRESS_IN_USE' }, 'it decides there itself');
    const wanted = { ...request('b', '/ns/b'), pools: ['late'] };
    heard = async () => {
      throw new NetctlError('STORE_UNAVAILABLE', 'cut off');
    };
    await assert.rejects(attachments.attach(wanted), { code: 'POOL_NOT_FOUND' });
    heard = async () => undefined;
    await assert.rejects(attachments.attach(wanted), { code: 'POOL_NOT_FOUND' });
    heard = async () => {
      const late = poolSchema.parse({ cidr: '10.9.0.0/24', blockSize: 28 }) as unknown as Json;
      await rig.store.transact([], [{ kind: 'put', key: 'pools/late', value: late }]);
    };
    assert.match((await attachments.attach(wanted)).addresses[0]!, /^10\.9\.0\./);
  });

  test('an ADD that is refused once its addresses are chosen keeps none of them from others', async () => {
    const rig = new Rig(undefined, 'nftables');
    rig.linux.addNetns('/ns/b');
    const attachments = await rig.start();
    const port = { protocol: 'tcp', hostPort: 80, containerPort: 80, hostIP: null } as const;
    const owned = {
      ...request('a', '/ns/b'),
      owner: { tenant: 't', app: 'a', instance: '0' },
      onRelease: 'immutable',
    } as const;
    await attachments.attach({ ...request('other'), portMappings: [port] });
    const { addresses } = await attachments.attach(owned);
    await attachments.detach(owned);
    for (const [wrong, code] of [
      [{ portMappings: [port] }, 'PORT_IN_USE'],
      [{ mtuBytes: 1000 }, 'INVALID'],
    ] as const) {
      await assert.rejects(attachments.attach({ ...owned, ...wrong }), { code });
      assert.deepEqual((await attachments.attach(owned)).addresses, addresses, 'those that are kept');
      await attachments.detach(owned);
    }
  });

  test('what others flush is back a tenth of a second later', async () => {
    const rig = new Rig(undefined, 'nftables');
    await (await rig.start()).attach(request('a'));
    const before = rig.linux.toString();
    rig.linux.nftables.transactAsForeigner([{ family: 4, table: 'netctl', kind: 'table-delete' }]);
    assert.notEqual(rig.linux.toString(), before);
    rig.clock.advance(100);
    for (let i = 0; i < 20; i++) await new Promise((next) => setImmediate(next));
    assert.equal(rig.agent.status().policy.inSync, true);
    const lines = (text: string): string[] => text.split('\n').sort();
    assert.deepEqual(lines(rig.linux.toString()), lines(before));
  });
});

test('a kernel without IPv6: its tables are never touched, and policy is in sync', async () => {
  const families: number[] = [];
  const rig = new Rig((linux, store) => ({
    store,
    linux: override<Linux>(linux, {
      families: [4],
      iptables: override(linux.iptables, {
        save: (family, table) => {
          families.push(family);
          return linux.iptables.save(family, table);
        },
      }),
    }),
  }));
  await rig.start();
  assert.deepEqual([...new Set(families)], [4]);
  assert.equal(rig.agent.status().policy.inSync, true);
  assert.doesNotMatch(rig.linux.toString(), /ip6tables/);
});

describe('routes', () => {
  test('blocks are announced, addresses in them are not; a block of one address is announced by its host route', async () => {
    const rig = new Rig();
    const attachments = await rig.start();
    await rig.store.transact(
      [],
      [
        {
          kind: 'put',
          key: 'pools/singles',
          value: poolSchema.parse({ cidr: '10.9.0.0/24', blockSize: 32 }) as unknown as Json,
        },
      ],
    );
    rig.linux.addNetns('/ns/b');
    const [inBlock = ''] = (await attachments.attach({ ...request('a'), pools: ['four'] })).addresses;
    const [single = ''] = (await attachments.attach({ ...request('b', '/ns/b'), pools: ['singles'] }))
      .addresses;
    const routes = async (): Promise<string> =>
      rig.linux
        .toString()
        .split('\n')
        .filter((line) => /^ip route add (blackhole )?10\.[09]\./.test(line))
        .map((line) => line.replace(/dev \S+/, 'dev veth'))
        .sort()
        .join('\n');
    const wanted = [
      `ip route add ${inBlock}/32 dev veth proto 110 scope link`,
      `ip route add ${single}/32 dev veth proto 111 scope link`,
      `ip route add blackhole ${inBlock.replace(/\d+$/, (last) => String(Number(last) & ~63))}/26 proto 111`,
    ];
    assert.equal(await routes(), wanted.sort().join('\n'));
    const successor = rig.successor();
    await successor.start();
    assert.equal(await routes(), wanted.join('\n'), 'a restart leaves them as they are');
  });
});

test('the host interface has the index that belongs to its name, or any other where that is taken', async () => {
  const rig = new Rig();
  const attachments = await rig.start();
  const hostLink = async () =>
    (await rig.linux.openRouting().links()).find(({ name }) => name.startsWith('nctl'))!;
  await attachments.attach(request('a'));
  const { name, index } = await hostLink();
  assert.equal(index, hostInterfaceIndex(name));
  await attachments.detach(request('a'));
  rig.linux.addDevice({ name: 'other', index, mac: '02:00:00:00:00:09' as Mac, mtuBytes: 1500 });
  await attachments.attach(request('a'));
  assert.equal((await hostLink()).name, name);
  assert.notEqual((await hostLink()).index, index);
});

describe('restart', () => {
  test('a new agent on the same store and kernel changes nothing', async () => {
    const rig = new Rig();
    await (await rig.start()).attach(request('a'));
    const before = rig.linux.toString();
    const successor = rig.successor();
    await successor.start();
    assert.equal(rig.linux.toString(), before);
  });

  test('after a reboot every endpoint of before is released, whatever its kind; fixed addresses are kept', async () => {
    const rig = new Rig();
    const attachments = await rig.start();
    rig.linux.addDevice({ name: 'eth9', index: 9, mac: '02:00:00:00:00:09' as Mac, mtuBytes: 1500 });
    rig.linux.openRouting().batch([{ kind: 'link-set', index: 9, up: true }]);
    for (const id of ['b', 'c', 'd', 'e']) rig.linux.addNetns(`/ns/${id}`);
    const lan = {
      cidr: '10.9.0.0/24',
      kind: 'macvlan',
      blockSize: 26,
      gateway: '10.9.0.1',
      cooldownSeconds: 0,
    };
    const value = poolSchema.parse(lan) as unknown as Json;
    await rig.store.transact([], [{ kind: 'put', key: 'pools/lan', value }]);
    const given = [{ address: '10.77.0.2' as Address, prefixLength: 24, gateway: null }];
    const delegate = { type: 'host-local', path: '/p', args: '', config: '{}' };
    const macvlan = {
      parent: 'eth9',
      vlan: null,
      mode: 'bridge',
      hostAccess: 'none',
      duplicateDetection: 'off',
      gatewayCheck: 'off',
      defaultRoute: true,
    } as const;
    const owner = { tenant: 'shop', app: 'db', instance: '0' };
    await attachments.attach(request('a'));
    await attachments.attach({ ...request('b', '/ns/b'), macvlan });
    await attachments.attach({
      ...request('c', '/ns/c'),
      foreignIpam: { allocate: async () => given, delegate },
    });
    await attachments.attach({ ...request('d', '/ns/d'), foreignLink: { hostInterface: null } });
    const fixed = await attachments.attach({ ...request('e', '/ns/e'), owner, onRelease: 'immutable' });
    assert.equal((await rig.keys('endpoints/')).length, 5);
    const linux = new FakeLinux();
    const released: string[] = [];
    const successor = new Agent({
      config,
      version: '0',
      bootId: 'next boot',
      clock: rig.clock,
      logger: silent,
      releaseDelegate: async ({ containerId }, { type }) => void released.push(`${containerId} ${type}`),
      clusterTrouble: () => null,
      diskRefusal: () => null,
      flushMark: new MemoryMark(),
      linux,
      bird: new FakeBird(),
      store: rig.store,
    });
    await successor.start();
    assert.deepEqual(await rig.keys('endpoints/'), []);
    assert.deepEqual(released, ['c host-local']);
    const states = (await rig.store.list('addresses/')).entries.map(({ key, value: record }) => {
      const { state } = record as { state: string };
      return `${key.split('/').at(-1)} ${state}`;
    });
    const held = states.filter((each) => !each.endsWith(' cooldown')).map((each) => each.split(' ')[0]);
    assert.deepEqual(held.sort(), [...fixed.addresses].sort(), 'nothing but the addresses of the owner');
  });

  test('an endpoint whose record others removed is torn down; its policy goes with it', async () => {
    const rig = new Rig();
    const attachments = await rig.start();
    await attachments.attach(request('a'));
    const [key = ''] = await rig.keys('endpoints/');
    await rig.store.transact([], [{ kind: 'delete', key }]);
    for (let i = 0; i < 20; i++) await new Promise((next) => setImmediate(next));
    assert.doesNotMatch(settled(rig.linux), /nctl[0-9a-f]{11}/);
    assert.equal(rig.linux.tracked.flushedAddresses.length, 2);
  });

  test('an endpoint that came by the store alone, its answer lost, is wired', async () => {
    const rig = new Rig();
    const attachments = await rig.start();
    rig.store.failNext('transact', 'ambiguous');
    await assert.rejects(attachments.attach(request('a')));
    for (let i = 0; i < 20; i++) await new Promise((next) => setImmediate(next));
    rig.clock.advance(2500);
    for (let i = 0; i < 50; i++) await new Promise((next) => setImmediate(next));
    assert.match(settled(rig.linux), /nctl[0-9a-f]{11}/);
  });

  test('extra sources loosen a strict reverse path filter, on their interface only', async () => {
    const rig = new Rig();
    const attachments = await rig.start();
    rig.linux.addNetns('/ns/b');
    rig.linux.writeSysctl('net/ipv4/conf/all/rp_filter', '1');
    const filterOf = ({ host }: Attachment): string =>
      rig.linux.readSysctl(`net/ipv4/conf/${host?.interface}/rp_filter`);
    const extraSources = ['192.0.2.1/32' as Cidr];
    const virtual = await attachments.attach({ ...request('a'), extraSources });
    const other = await attachments.attach(request('b', '/ns/b'));
    assert.deepEqual([filterOf(virtual), filterOf(other)], ['2', '0']);
  });

  test('a broken record stops nobody: it denies its own, and is said in the status', async () => {
    const rig = new Rig();
    const broken = {
      'profiles/bad': { tags: 'no' },
      'policies/bad': { selector: 'app == "x"', inbound_rules: [{ action: 'no' }] },
      'policies/worse': { selector: '?' },
      'address-sets/bad': { nets: 'no' },
      'host-endpoints/node1/bad': { interface: 'lo' },
      'endpoints/node1/bad': {},
    };
    const profile = { tags: [], inbound_rules: [{ action: 'allow', src_set: 'bad' }], outbound_rules: [] };
    for (const [key, value] of Object.entries({ ...broken, 'profiles/web': profile }))
      await rig.store.transact([], [{ kind: 'put', key, value }]);
    const attachments = await rig.start();
    rig.linux.addNetns('/ns/b');
    const a = await attachments.attach(request('a'));
    const b = await attachments.attach({ ...request('b', '/ns/b'), labels: { app: 'x' } });
    assert.deepEqual(
      rig.agent
        .status()
        .records.broken.map(({ key }) => key)
        .sort(),
      Object.keys(broken).sort(),
    );
    const decides = async (destination: string): Promise<string | undefined> => {
      const questions = new PolicyQuestions(rig.store, config, {
        linux: rig.linux,
        bootId: 'boot',
        backend: () => 'iptables-nft',
      });
      const answer = await questions.why({ source: '203.0.113.9', destination, protocol: 'icmp' });
      assert.equal(answer.allowed, false);
      return answer.hosts.at(-1)?.rules.at(-1)?.text;
    };
    assert.equal(
      await decides(a.addresses[0]!),
      'web: allow from set bad (address set bad is missing or invalid)',
    );
    assert.equal(await decides(b.addresses[0]!), 'policy bad is invalid');
  });
});
