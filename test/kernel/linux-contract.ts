/**
 * What every Linux adapter must do, as one table of cases.
 *
 * In: an adapter, and the way to make and remove namespaces. Out: registered tests. Never: a case that only one of the two
 * could pass (those are in linux-contract.test.ts).
 */
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LinkEvent, Linux, Netns, Routing, RoutingRequest } from '../../src/linux/ports.ts';
import { routeProtocol } from '../../src/linux/route-protocols.ts';
import type { Address, Cidr } from '../../src/model/ip.ts';
import type { Mac } from '../../src/model/mac.ts';
import { planContainer, planHost, type VethSpec } from '../../src/veth/plan.ts';
import { filterContract } from './linux-contract-filter.ts';
import { linkContract } from './linux-contract-links.ts';
import { nftContract } from './linux-contract-nft.ts';
import { refused } from './linux-contract-refusal.ts';

export interface Adapter {
  readonly linux: Linux;
  addNetns(name: string): string;
  removeNetns(name: string): void;
  close(): void;
}

export function address(text: string): Address {
  return text as Address;
}

export function cidr(text: string): Cidr {
  return text as Cidr;
}

/** A routed endpoint with numbers and names derived from `number`. */
export function endpoint(number: number, netnsFd: number): VethSpec {
  return {
    hostInterface: `nctl${number}`,
    hostIndex: 10_000 + 2 * number,
    containerInterface: 'eth0',
    containerIndex: 10_001 + 2 * number,
    netnsFd,
    mac: '02:42:0a:00:00:01' as Mac,
    mtuBytes: 1400,
    addresses: [address('10.65.0.2'), address('fd00:65::2')],
    announced: new Set(),
  };
}

export function linuxContract(name: string, createAdapter: () => Promise<Adapter>): void {
  describe(`Linux contract: ${name}`, () => {
    let adapter: Adapter;
    let linux: Linux;
    let host: Routing;
    let netns: Netns;
    let path: string;
    let count = 0;

    before(async () => {
      adapter = await createAdapter();
      linux = adapter.linux;
      host = linux.openRouting();
    });
    beforeEach(() => {
      path = adapter.addNetns(`nct-${++count}`);
      netns = linux.openNetns(path);
    });
    afterEach(async () => {
      netns.close();
      await linux.deleteLink(endpoint(count, -1).hostIndex);
    });
    after(() => {
      host.close();
      adapter.close();
    });

    /** Both batches of an ADD; the container's routing socket stays open. */
    function addEndpoint(hostIndex?: number): { spec: VethSpec; container: Routing } {
      const usual = endpoint(count, netns.fd);
      const spec = { ...usual, hostIndex: hostIndex ?? usual.hostIndex };
      host.batch(planHost(spec));
      const container = linux.openRouting(netns);
      container.batch(planContainer(spec));
      return { spec, container };
    }

    function vethOnly(number: number): RoutingRequest[] {
      return planHost(endpoint(number, netns.fd)).slice(0, 1);
    }

    test('a veth is born with its peer in the container, under final name, MAC and MTU, neither end up', async () => {
      const spec = endpoint(count, netns.fd);
      host.batch(vethOnly(count));
      const container = linux.openRouting(netns);
      const hostEnd = host.link({ name: spec.hostInterface });
      assert.deepEqual(hostEnd, {
        index: spec.hostIndex,
        name: spec.hostInterface,
        type: 'veth',
        mac: 'ee:ee:ee:ee:ee:ee',
        mtuBytes: 1400,
        up: false,
        running: false,
        peerIndex: spec.containerIndex,
        parentIndex: null,
        masterIndex: null,
        macvlanMode: null,
        alias: null,
      });
      const containerEnd = container.link({ index: spec.containerIndex });
      assert.equal(containerEnd?.name, 'eth0');
      assert.equal(containerEnd?.mac, spec.mac);
      assert.equal(containerEnd?.mtuBytes, 1400);
      assert.equal(containerEnd?.peerIndex, spec.hostIndex);
      assert.ok((await host.links()).some((link) => link.name === spec.hostInterface));
    });

    test('a whole ADD leaves addresses usable at once, routes, permanent neighbours and a settled carrier', async () => {
      const { spec, container } = addEndpoint();
      assert.equal(host.link({ index: spec.hostIndex })?.running, true);
      const addresses = await container.addresses(spec.containerIndex);
      assert.deepEqual(
        addresses.map((a) => [a.address, a.prefixLength, a.tentative]),
        [
          ['10.65.0.2', 32, false],
          ['fd00:65::2', 128, false],
        ],
      );
      const routes = (await host.routes({ protocol: routeProtocol })).filter(
        (route) => route.linkIndex === spec.hostIndex,
      );
      assert.deepEqual(routes.map((route) => route.destination).sort(), ['10.65.0.2/32', 'fd00:65::2/128']);
      const inside = await container.routes({ protocol: routeProtocol });
      assert.equal(inside.find((route) => route.destination === '0.0.0.0/0')?.gateway, '169.254.1.1');
      assert.equal(
        inside.find((route) => route.destination === '::/0')?.gateway,
        'fe80::ecee:eeff:feee:eeee',
      );
      const neighbours = await container.neighbours(spec.containerIndex);
      assert.deepEqual(neighbours.map((n) => [n.address, n.mac, n.permanent]).sort(), [
        ['169.254.1.1', 'ee:ee:ee:ee:ee:ee', true],
        ['fe80::ecee:eeff:feee:eeee', 'ee:ee:ee:ee:ee:ee', true],
      ]);
      assert.equal((await host.neighbours(spec.hostIndex)).length, 2);
    });

    test('a routing socket outlives the descriptor of its namespace', async () => {
      const { spec, container } = addEndpoint();
      netns.close();
      assert.equal(
        (await container.addresses()).filter((a) => a.linkIndex === spec.containerIndex).length,
        2,
      );
      container.close();
    });

    test('a duplicate name is EEXIST and leaves the first link as it was', () => {
      const spec = endpoint(count, netns.fd);
      host.batch(vethOnly(count));
      const again = { ...spec, hostIndex: spec.hostIndex + 5000, containerIndex: spec.containerIndex + 5000 };
      refused('EEXIST', () => host.batch(planHost(again).slice(0, 1)));
      refused('EEXIST', () => host.batch(planHost({ ...again, hostInterface: `other${count}` }).slice(0, 1)));
      assert.equal(host.link({ name: spec.hostInterface })?.index, spec.hostIndex);
      assert.equal(host.link({ name: `other${count}` }), null);
    });

    test('bad MTUs, names, indexes and descriptors are refused and leave nothing', () => {
      const spec = endpoint(count, netns.fd);
      const one = (change: Partial<VethSpec>) => () =>
        host.batch(planHost({ ...spec, ...change }).slice(0, 1));
      refused('EINVAL', one({ mtuBytes: 60 }));
      refused('EINVAL', one({ mtuBytes: 70000 }));
      refused('EBADF', one({ netnsFd: 987_654 }));
      assert.throws(one({ hostInterface: 'a/b' }), { code: 'INVALID' });
      assert.throws(one({ containerInterface: 'sixteen-letters-' }), { code: 'INVALID' });
      assert.throws(one({ hostIndex: 0 }), { code: 'INVALID' });
      assert.throws(one({ containerIndex: spec.hostIndex }), { code: 'INVALID' });
      assert.equal(host.link({ name: spec.hostInterface }), null);
      assert.equal(linux.openRouting(netns).link({ name: 'eth0' }), null);
    });

    test('a half-failed batch names its position, carries out the rest, and rolls back with one deletion', async () => {
      const spec = endpoint(count, netns.fd);
      const bad: RoutingRequest = {
        kind: 'route-add',
        route: {
          destination: cidr('10.99.0.0/24'),
          type: 'unicast',
          gateway: address('10.98.0.1'),
          protocol: routeProtocol,
        },
      };
      const [veth, up, ...rest] = planHost(spec);
      const error = refused('ENETUNREACH', () => host.batch([veth!, up!, bad, ...rest]));
      assert.equal(error.position, 2);
      assert.match(error.message, /Nexthop has invalid gateway/);
      assert.match(error.message, /10\.99\.0\.0\/24/);
      assert.equal(host.link({ index: spec.hostIndex })?.up, true);
      await linux.deleteLink(spec.hostIndex);
      assert.equal(host.link({ index: spec.hostIndex }), null);
      assert.equal(linux.openRouting(netns).link({ name: 'eth0' }), null);
      const routes = await host.routes({ protocol: routeProtocol });
      assert.deepEqual(
        routes.filter((route) => route.linkIndex === spec.hostIndex),
        [],
      );
    });

    test('routes: up link needed, duplicates refused, replaced, deleted; blackholes; what is not there is ESRCH', async () => {
      const spec = endpoint(count, netns.fd);
      host.batch(vethOnly(count));
      const route = {
        destination: cidr('10.70.0.0/24'),
        type: 'unicast',
        linkIndex: spec.hostIndex,
        scope: 'link',
        protocol: 111,
      } as const;
      refused('ENETDOWN', () => host.batch([{ kind: 'route-add', route }]));
      host.batch([{ kind: 'link-set', index: spec.hostIndex, up: true }]);
      host.batch([{ kind: 'route-add', route }]);
      refused('EEXIST', () => host.batch([{ kind: 'route-add', route }]));
      host.batch([{ kind: 'route-replace', route }]);
      for (const destination of [cidr('10.71.0.0/26'), cidr('fd00:71::/64')]) {
        host.batch([{ kind: 'route-replace', route: { destination, type: 'blackhole', protocol: 111 } }]);
      }
      const listed = (await host.routes({ protocol: 111 })).map((r) => [r.destination, r.type, r.linkIndex]);
      assert.deepEqual(listed.sort(), [
        ['10.70.0.0/24', 'unicast', spec.hostIndex],
        ['10.71.0.0/26', 'blackhole', null],
        ['fd00:71::/64', 'blackhole', null],
      ]);
      host.batch([{ kind: 'route-delete', route }]);
      refused('ESRCH', () => host.batch([{ kind: 'route-delete', route }]));
      for (const destination of [cidr('10.71.0.0/26'), cidr('fd00:71::/64')]) {
        host.batch([{ kind: 'route-delete', route: { destination, type: 'blackhole', protocol: 111 } }]);
      }
      assert.deepEqual(await host.routes({ protocol: 111 }), []);
    });

    test('a local route stands beside the main table, not in it', async () => {
      const { spec, container } = addEndpoint();
      const before = await container.routes();
      const route = {
        destination: cidr('fd00:65::99/128'),
        type: 'local',
        linkIndex: spec.containerIndex,
        protocol: 111,
      } as const;
      container.batch([{ kind: 'route-add', route }]);
      refused('EEXIST', () => container.batch([{ kind: 'route-add', route }]));
      container.batch([{ kind: 'route-replace', route }]);
      assert.deepEqual(await container.routes(), before);
      container.batch([{ kind: 'route-delete', route }]);
      refused('ESRCH', () => container.batch([{ kind: 'route-delete', route }]));
    });

    test('taking a link down takes its routes, neighbours and IPv6 addresses', async () => {
      const { spec, container } = addEndpoint();
      container.batch([{ kind: 'link-set', index: spec.containerIndex, up: false }]);
      assert.deepEqual(await container.routes({ protocol: routeProtocol }), []);
      assert.deepEqual(await container.neighbours(spec.containerIndex), []);
      const addresses = await container.addresses(spec.containerIndex);
      assert.deepEqual(
        addresses.map((a) => a.address),
        ['10.65.0.2'],
      );
    });

    test('unknown links are ENODEV, or null, or empty', async () => {
      refused('ENODEV', () => host.batch([{ kind: 'link-set', index: 4_000_000, up: true }]));
      refused('ENODEV', () => host.batch([{ kind: 'link-delete', index: 4_000_000 }]));
      refused('ENODEV', () =>
        host.batch([
          { kind: 'address-add', index: 4_000_000, address: address('10.0.0.1'), prefixLength: 32 },
        ]),
      );
      assert.equal(host.link({ index: 4_000_000 }), null);
      assert.equal(host.link({ name: 'none' }), null);
      assert.deepEqual(await host.addresses(4_000_000), []);
      assert.deepEqual(await host.neighbours(4_000_000), []);
    });

    test('an address twice is EEXIST with the kernel’s words', () => {
      const { spec, container } = addEndpoint();
      const again = {
        kind: 'address-add',
        index: spec.containerIndex,
        address: address('10.65.0.2'),
        prefixLength: 32,
      } as const;
      const error = refused('EEXIST', () => container.batch([again]));
      assert.match(error.message, /Address already assigned/);
    });

    test('deleting a link: both ends are gone when it resolves; twice and never-been succeed', async () => {
      const { spec, container } = addEndpoint();
      await Promise.all([linux.deleteLink(spec.hostIndex), linux.deleteLink(spec.hostIndex)]);
      assert.equal(host.link({ index: spec.hostIndex }), null);
      assert.equal(container.link({ name: 'eth0' }), null);
      await linux.deleteLink(spec.hostIndex);
      const again = addEndpoint();
      assert.equal(again.container.link({ name: 'eth0' })?.index, spec.containerIndex);
    });

    test('what is told late of a link that is gone does not answer a later deletion: one made anew stays', async () => {
      const turn = (): Promise<void> => new Promise((resolve) => queueMicrotask(resolve));
      for (let i = 0; i < 5; i++) {
        const { spec } = addEndpoint();
        const absent = linux.deleteLink({ name: 'no-such' });
        for (let j = 0; j < 4; j++) await turn();
        const first = linux.deleteLink(spec.hostIndex);
        for (let j = 0; j < 4; j++) await turn();
        // Both have their answers when the event loop looks, and the word that the link is gone waits, too.
        for (const end = performance.now() + 60; performance.now() < end; );
        await Promise.all([absent, first]);
        await linux.deleteLink(spec.hostIndex);
        addEndpoint();
        await new Promise((resolve) => setTimeout(resolve, 60));
        assert.equal(host.link({ name: spec.hostInterface })?.index, spec.hostIndex);
        await linux.deleteLink(spec.hostIndex);
      }
    });

    test('deleting a link by its name, beside its index, one that never was and one that cannot be', async () => {
      const { spec, container } = addEndpoint();
      const named = { name: spec.hostInterface };
      const [absent, wrong] = [{ name: 'no-such' }, { name: 'not/a/name' }];
      const results = await Promise.allSettled(
        [named, absent, wrong, spec.hostIndex, 0].map((link) => linux.deleteLink(link)),
      );
      assert.deepEqual(
        results.map(({ status }) => status),
        ['fulfilled', 'fulfilled', 'rejected', 'fulfilled', 'rejected'],
      );
      assert.equal(host.link(named), null);
      assert.equal(container.link({ name: 'eth0' }), null);
      await linux.deleteLink(named);
    });

    test('50 deletions at once: each end is gone when its own promise resolves', async () => {
      const specs = Array.from({ length: 50 }, (_, i) => ({
        ...endpoint(1000 + i, netns.fd),
        containerInterface: `c${i}`,
      }));
      for (const spec of specs) host.batch(planHost(spec).slice(0, 1));
      const container = linux.openRouting(netns);
      await Promise.all(
        specs.map(async (spec, i) => {
          await linux.deleteLink(i % 2 === 0 ? spec.hostIndex : { name: spec.hostInterface });
          assert.equal(host.link({ index: spec.hostIndex }), null);
          assert.equal(container.link({ name: spec.containerInterface }), null);
        }),
      );
    });

    test('a container whose namespace went takes the host end along', async () => {
      const { spec, container } = addEndpoint();
      container.close();
      netns.close();
      adapter.removeNetns(`nct-${count}`);
      for (let i = 0; i < 500 && host.link({ index: spec.hostIndex }) !== null; i++) await sleep(10);
      assert.equal(host.link({ index: spec.hostIndex }), null);
      await linux.deleteLink(spec.hostIndex);
      assert.throws(() => linux.openNetns('/run/netns/no-such'), { code: 'NETNS_INVALID' });
    });

    test('namespaces have identities that tell them apart', () => {
      const other = linux.openNetns(adapter.addNetns(`nct-${count}-b`));
      const same = linux.openNetns(path);
      assert.notDeepEqual(other.identity, netns.identity);
      assert.deepEqual(same.identity, netns.identity);
      other.close();
      same.close();
    });

    test('a sysctl inside a namespace changes there and nowhere else', () => {
      linux.writeSysctl('net/ipv4/ip_forward', '0');
      linux.writeSysctl('net/ipv4/ip_forward', '1', netns);
      assert.equal(linux.readSysctl('net/ipv4/ip_forward', netns), '1');
      assert.equal(linux.readSysctl('net/ipv4/ip_forward'), '0');
      refused('ENOENT', () => linux.readSysctl('net/ipv4/conf/no-such/forwarding'));
      refused('ENOENT', () => linux.writeSysctl('net/ipv4/conf/no-such/forwarding', '1', netns));
      host.batch(vethOnly(count));
      linux.writeSysctl('net/ipv4/conf/eth0/rp_filter', '1', netns);
      assert.equal(linux.readSysctl('net/ipv4/conf/eth0/rp_filter', netns), '1');
    });

    test('watching links tells of changes and ends, until stopped', async () => {
      const events: LinkEvent[] = [];
      const stop = linux.watchLinks((event) => events.push(event));
      const { spec } = addEndpoint();
      await linux.deleteLink(spec.hostIndex);
      const ended = () => events.some((event) => event.kind === 'gone' && event.index === spec.hostIndex);
      for (let i = 0; i < 500 && !ended(); i++) await sleep(10);
      assert.ok(events.some((event) => event.kind === 'changed' && event.link.name === spec.hostInterface));
      assert.ok(ended());
      stop();
      const seen = events.length;
      addEndpoint();
      await sleep(50);
      assert.equal(events.length, seen);
    });

    test('what links with high indexes change is not told where nobody asks, their ends and other links are', async () => {
      const events: LinkEvent[] = [];
      const stop = linux.watchLinks((event) => events.push(event), 2 ** 30);
      const { spec: high } = addEndpoint(2 ** 30);
      await linux.deleteLink(high.hostIndex);
      const { spec: low } = addEndpoint(2 ** 30 - 1);
      const changed = (name: string) =>
        events.some((event) => event.kind === 'changed' && event.link.name === name);
      for (let i = 0; i < 500 && !changed(low.hostInterface); i++) await sleep(10);
      stop();
      await linux.deleteLink(low.hostIndex);
      assert.ok(changed(low.hostInterface));
      assert.ok(events.some((event) => event.kind === 'gone' && event.index === high.hostIndex));
      assert.deepEqual(
        events.filter((event) => event.kind === 'changed' && event.link.index >= 2 ** 30),
        [],
      );
    });

    filterContract(() => linux);
    nftContract(
      () => linux,
      () => path,
    );
    linkContract({
      linux: () => linux,
      host: () => host,
      netns: () => netns,
      path: () => path,
      number: () => count,
      endpoint,
    });
  });
}
