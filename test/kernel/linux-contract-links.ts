/**
 * The part of the Linux contract about macvlans, limits and packet sockets.
 *
 * In: an adapter with a namespace, set up by linux-contract.ts. Out: registered tests. Never: a case that only one adapter passes.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Batch, LinkInfo, Linux, Netns, Routing, RoutingRequest } from '../../src/linux/ports.ts';
import type { Address } from '../../src/model/ip.ts';
import type { Mac } from '../../src/model/mac.ts';
import { planContainer, planHost, type VethSpec } from '../../src/veth/plan.ts';
import { refused } from './linux-contract-refusal.ts';

interface Surroundings {
  linux(): Linux;
  host(): Routing;
  netns(): Netns;
  endpoint(number: number, netnsFd: number): VethSpec;
  /** Of that namespace. */
  path(): string;
  /** A number that no other test has. */
  number(): number;
}

const bucket = { rateBitsPerSecond: 100_000_000, burstBytes: 65_536, queueBytes: 500_000 };

export function linkContract({ linux, host, netns, path, number, endpoint }: Surroundings): void {
  /** A link of the host that can be a parent (the host's end of a veth, whose peer is in the container), up, MTU 1400. */
  function addParent(): number {
    const index = 10_000 + 2 * number();
    const mac = '02:00:00:00:00:01' as Mac;
    const end = { mac, mtuBytes: 1400 };
    host().batch([
      {
        kind: 'veth-add',
        host: { ...end, name: `nctl${number()}`, index },
        peer: {
          ...end,
          name: 'wire',
          index: index + 1,
          mac: '02:00:00:00:00:02' as Mac,
          netnsFd: netns().fd,
        },
      },
      { kind: 'link-set', index, up: true },
    ]);
    return index;
  }

  function macvlan(parentIndex: number, change: Partial<MacvlanAdd['link']> = {}): MacvlanAdd {
    const link = { name: 'eth0', index: 900, mac: '02:00:0a:00:00:05' as Mac, mtuBytes: 1400 };
    return {
      kind: 'macvlan-add',
      parentIndex,
      mode: 'bridge',
      link: { ...link, netnsFd: netns().fd, ...change },
    };
  }
  type MacvlanAdd = Extract<RoutingRequest, { kind: 'macvlan-add' }>;

  test('a macvlan is born in the container under final name, MAC, MTU and mode, not up', () => {
    const parentIndex = addParent();
    host().batch([macvlan(parentIndex)]);
    const container = linux().openRouting(netns());
    const made: LinkInfo = {
      index: 900,
      name: 'eth0',
      type: 'macvlan',
      mac: '02:00:0a:00:00:05' as Mac,
      mtuBytes: 1400,
      up: false,
      running: false,
      peerIndex: null,
      parentIndex,
      masterIndex: null,
      macvlanMode: 'bridge',
      alias: null,
    };
    assert.deepEqual(container.link({ name: 'eth0' }), made);
    container.batch([{ kind: 'link-set', index: 900, up: true }]);
    assert.equal(container.link({ name: 'eth0' })?.up, true);
    container.batch([{ kind: 'link-delete', index: 900 }]);
    assert.equal(container.link({ name: 'eth0' }), null);
    container.close();
  });

  test('a macvlan without another namespace is born in this one', () => {
    const parentIndex = addParent();
    const { netnsFd: _, ...own } = macvlan(parentIndex).link;
    host().batch([{ ...macvlan(parentIndex), link: { ...own, name: 'ncts0' } }]);
    const made = host().link({ name: 'ncts0' });
    assert.deepEqual([made?.type, made?.parentIndex, made?.macvlanMode], ['macvlan', parentIndex, 'bridge']);
    host().batch([{ kind: 'link-delete', index: made!.index }]);
  });

  test('rules by mark: added once, read, deleted, in both families', async () => {
    const container = linux().openRouting(netns());
    const rule = { mark: 0x12340000, mask: 0xffff0000, table: 0x1231234 };
    for (const family of [4, 6] as const) {
      container.batch([{ kind: 'mark-rule-add', family, ...rule }]);
      refused('EEXIST', () => container.batch([{ kind: 'mark-rule-add', family, ...rule }]));
    }
    assert.deepEqual(await container.markRules(), [
      { family: 4, ...rule },
      { family: 6, ...rule },
    ]);
    const source = { kind: 'source-rule-add', source: '10.0.0.5' as Address, table: 7 } as const;
    container.batch([source]);
    refused('EEXIST', () => container.batch([source]));
    container.batch([{ ...source, kind: 'source-rule-delete' }]);
    refused('ENOENT', () => container.batch([{ ...source, kind: 'source-rule-delete' }]));
    container.batch([{ kind: 'mark-rule-delete', family: 4, ...rule }]);
    assert.deepEqual(await container.markRules(), [{ family: 6, ...rule }]);
    refused('ENOENT', () => container.batch([{ kind: 'mark-rule-delete', family: 4, ...rule }]));
    container.close();
  });

  test('a link in a container is deleted in the background; twice succeeds', async () => {
    host().batch([macvlan(addParent())]);
    const container = linux().openRouting(netns());
    await linux().deleteLink(900, netns());
    assert.equal(container.link({ name: 'eth0' }), null);
    await linux().deleteLink(900, netns());
    container.close();
  });

  test('a macvlan with a larger MTU, no parent, a taken name or index, or beside a passthru one is refused', () => {
    const parentIndex = addParent();
    const one = (parent: number, change?: Partial<MacvlanAdd['link']>) => () =>
      host().batch([macvlan(parent, change)]);
    refused('EINVAL', one(parentIndex, { mtuBytes: 1401 }));
    refused('ENODEV', one(4_000_000));
    refused('EBADF', one(parentIndex, { netnsFd: 987_654 }));
    one(parentIndex)();
    refused('EEXIST', one(parentIndex, { index: 901 }));
    refused('EEXIST', one(parentIndex, { name: 'eth1' }));
    refused('EINVAL', () =>
      host().batch([{ ...macvlan(parentIndex, { name: 'eth1', index: 901 }), mode: 'passthru' }]),
    );
    assert.throws(one(parentIndex, { name: 'a/b' }), { code: 'INVALID' });
  });

  test('two macvlans of one MAC: the second cannot go up', () => {
    const parentIndex = addParent();
    const second = { name: 'eth1', index: 901 };
    host().batch([macvlan(parentIndex), macvlan(parentIndex, second)]);
    const container = linux().openRouting(netns());
    container.batch([{ kind: 'link-set', index: 900, up: true }]);
    refused('EADDRINUSE', () => container.batch([{ kind: 'link-set', index: 901, up: true }]));
    container.close();
  });

  test('a macvlan goes with its parent', async () => {
    const parentIndex = addParent();
    host().batch([macvlan(parentIndex)]);
    await linux().deleteLink(parentIndex);
    const container = linux().openRouting(netns());
    assert.equal(container.link({ name: 'eth0' }), null);
    container.close();
  });

  test('limits: made, changed, read back, taken away; what arrives is led through an ifb', async () => {
    const parentIndex = addParent();
    host().batch([macvlan(parentIndex)]);
    const container = linux().openRouting(netns());
    container.batch([
      { kind: 'shape', index: 900, bucket },
      { kind: 'ifb-add', link: { name: 'nctl-in', index: 902, mtuBytes: 1400 } },
      { kind: 'link-set', index: 902, up: true },
      { kind: 'shape', index: 902, bucket },
      { kind: 'redirect-ingress', index: 900, toIndex: 902 },
      { kind: 'shape', index: 900, bucket: { ...bucket, rateBitsPerSecond: 40_000_000_000 } },
    ]);
    assert.deepEqual(
      (await container.qdiscs(900)).map(({ kind, place, rateBitsPerSecond }) => [
        kind,
        place,
        rateBitsPerSecond,
      ]),
      [
        ['tbf', 'root', 40_000_000_000],
        ['ingress', 'ingress', null],
      ],
    );
    assert.equal((await container.qdiscs(902))[0]?.rateBitsPerSecond, bucket.rateBitsPerSecond);
    assert.equal(container.link({ name: 'nctl-in' })?.type, 'ifb');
    refused('EEXIST', () => container.batch([{ kind: 'redirect-ingress', index: 900, toIndex: 902 }]));
    container.batch([
      { kind: 'unredirect-ingress', index: 900 },
      { kind: 'unshape', index: 900 },
      { kind: 'link-delete', index: 902 },
    ]);
    refused('EINVAL', () => container.batch([{ kind: 'unredirect-ingress', index: 900 }]));
    refused('ENOENT', () => container.batch([{ kind: 'unshape', index: 900 }]));
    assert.deepEqual(await container.qdiscs(900), []);
    refused('ENODEV', () => container.batch([{ kind: 'shape', index: 4_000, bucket }]));
    assert.throws(
      () => container.batch([{ kind: 'shape', index: 900, bucket: { ...bucket, burstBytes: 9 } }]),
      {
        code: 'INVALID',
      },
    );
    container.close();
  });

  /** The chain of an endpoint with the number; `name` is that of its end in the container. */
  function chainOf(i: number, name: string): Batch[] {
    const usual = endpoint(1000 * number() + i, netns().fd);
    const spec = { ...usual, containerInterface: name, addresses: usual.addresses.slice(0, 1) };
    return [
      { requests: planHost(spec) },
      { netns: netns(), requests: planContainer(spec).filter(({ kind }) => !kind.startsWith('route')) },
      { requests: [{ kind: 'link-settle', index: spec.hostIndex }] },
    ];
  }

  const hostIndexOf = (i: number): number => endpoint(1000 * number() + i, -1).hostIndex;

  test('batches: a refused one ends its own chain, and no other of those that come at the same time', async () => {
    const container = linux().openRouting(netns());
    const chains = ['a0', 'a1', 'a0', 'a3'].map((name, i) => chainOf(i, name));
    const [first, second, third, fourth] = await Promise.all([
      linux().batches(chains[0]!),
      linux().batches([
        ...chains[1]!.slice(0, 1),
        { netns: netns(), requests: [{ kind: 'link-settle', index: 7 }] },
      ]),
      linux().batches(chains[2]!),
      linux().batches(chains[3]!),
    ]);
    assert.deepEqual([first, fourth], [null, null]);
    assert.deepEqual([second?.batch, second?.error.errno, second?.error.position], [1, 'ENODEV', 0]);
    // The name is taken in the container: the kernel refuses the pair, and what follows it in its batch.
    assert.deepEqual([third?.batch, third?.error.errno, third?.error.position], [0, 'EEXIST', 0]);
    assert.match(third!.error.message, /add veth/);
    for (const name of ['a0', 'a3']) {
      const link = container.link({ name });
      assert.equal(link?.up, true, name);
      assert.equal((await container.addresses(link.index)).length, 1, name);
    }
    assert.equal(container.link({ name: 'a1' })?.up, false);
    assert.equal(host().link({ index: hostIndexOf(2) }), null);
    container.close();
    await Promise.all([0, 1, 3].map((i) => linux().deleteLink(hostIndexOf(i))));
  });

  test('batches: one chain alone, and one in a namespace that is closed', async () => {
    assert.equal(await linux().batches(chainOf(1, 'b1')), null);
    const again = await linux().batches(chainOf(1, 'b2'));
    assert.deepEqual([again?.batch, again?.error.position], [0, 0]);
    const closed = linux().openNetns(path());
    closed.close();
    const chain = [{ netns: closed, requests: [{ kind: 'link-settle', index: 1 }] }] as const;
    const results = await Promise.allSettled([
      linux().batches(chainOf(2, 'b2')),
      linux().batches(chain),
      linux().batches(chainOf(3, 'b3')),
    ]);
    assert.deepEqual(
      results.map(({ status }) => status),
      ['fulfilled', 'rejected', 'fulfilled'],
    );
    await Promise.all([1, 2, 3].map((i) => linux().deleteLink(hostIndexOf(i))));
  });

  test('ahead: a batch begins, what is refused of it is told at its end', async () => {
    const [chain, taken, more] = ['h0', 'h0', 'h2'].map((name, i) => chainOf(i, name)[0]!.requests);
    const first = linux().ahead(chain!);
    assert.equal(first?.(), null);
    assert.equal(host().link({ index: hostIndexOf(0) })?.up, true);
    const refusal = linux().ahead(taken!)?.();
    assert.deepEqual([refusal?.errno, refusal?.position], ['EEXIST', 0]);
    assert.match(refusal!.message, /add veth/);
    assert.equal(linux().ahead(more!)?.(), null);
    await Promise.all([0, 2].map((i) => linux().deleteLink(hostIndexOf(i))));
  });

  test('an address is taken away once', async () => {
    const index = addParent();
    const where = { index, address: '10.66.0.9', prefixLength: 24 } as Extract<
      RoutingRequest,
      { kind: 'address-add' }
    >;
    host().batch([
      { ...where, kind: 'address-add' },
      { ...where, kind: 'address-delete' },
    ]);
    refused('EADDRNOTAVAIL', () => host().batch([{ ...where, kind: 'address-delete' }]));
    assert.ok(!(await host().addresses(index)).some(({ address }) => address === where.address));
  });

  test('counters of every link, by index', async () => {
    const index = addParent();
    assert.deepEqual(Object.keys((await host().counters()).get(index) ?? {}).sort(), [
      'inBytes',
      'inDropped',
      'inPackets',
      'outBytes',
      'outDropped',
      'outPackets',
    ]);
  });

  test('frames are sent on a link that is up, and refused on one that is down or not there', () => {
    const linkIndex = addParent();
    const frame = Buffer.from(`ffffffffffff0200000000010806${'00'.repeat(46)}`, 'hex');
    const packets = linux().openPackets(linkIndex, 0x0806, null);
    packets.send(frame);
    host().batch([{ kind: 'link-set', index: linkIndex, up: false }]);
    refused('ENETDOWN', () => packets.send(frame));
    packets.close();
    refused('ENODEV', () => linux().openPackets(4_000_000, 0x0806, null));
  });
}
