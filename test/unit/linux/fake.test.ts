/**
 * What the fake Linux has beyond the contract (test/kernel/linux-contract.ts): ordered failures, printing, lost notifications.
 *
 * In: nothing. Out: tests. Never: a kernel.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { FakeLinux } from '../../../src/linux/fake/linux.ts';
import type { LinkEvent } from '../../../src/linux/ports.ts';
import type { Address, Cidr } from '../../../src/model/ip.ts';
import type { Mac } from '../../../src/model/mac.ts';
import { planContainer, planHost } from '../../../src/veth/plan.ts';

function attached() {
  const linux = new FakeLinux();
  linux.addNetns('/run/netns/c1');
  const netns = linux.openNetns('/run/netns/c1');
  const spec = {
    hostInterface: 'nctl1',
    hostIndex: 101,
    containerInterface: 'eth0',
    containerIndex: 102,
    netnsFd: netns.fd,
    mac: '02:42:0a:00:00:01' as Mac,
    mtuBytes: 1500,
    addresses: ['10.65.0.2' as Address],
    announced: new Set<Address>(),
  };
  return { linux, netns, spec, host: linux.openRouting(), container: linux.openRouting(netns) };
}

describe('fake Linux', () => {
  test('prints its state as an operator would type it', async () => {
    const { linux, netns, spec, host, container } = attached();
    host.batch(planHost(spec));
    container.batch(planContainer(spec));
    host.batch([
      { kind: 'route-add', route: { destination: '10.65.0.0/26' as Cidr, type: 'blackhole', protocol: 110 } },
    ]);
    linux.writeSysctl('net/ipv4/ip_forward', '1');
    linux.writeSysctl('net/ipv4/conf/eth0/rp_filter', '1', netns);
    linux.ipsets.batch([
      { kind: 'create', name: 'web', type: 'net,iface', family: 4 },
      { kind: 'add', name: 'web', members: ['10.65.0.2/32,nctl1'] },
    ]);
    await linux.iptables.restore(
      4,
      '*filter\n:FORWARD DROP [0:0]\n:web - [0:0]\n-A web -m set --match-set web src,src -j ACCEPT\n-A FORWARD -j web\nCOMMIT\n',
    );
    await linux.conntrack.flushAddresses(['10.65.0.9' as Address]);
    assert.deepEqual(linux.toString().split('\n'), [
      'ip link add nctl1 index 101 address ee:ee:ee:ee:ee:ee mtu 1500 type veth peer eth0',
      'ip link set nctl1 up',
      'ip neigh replace 10.65.0.2 lladdr 02:42:0a:00:00:01 dev nctl1 nud permanent',
      'ip route add 10.65.0.2/32 dev nctl1 proto 110 scope link',
      'ip route add blackhole 10.65.0.0/26 proto 110',
      'sysctl -w net.ipv4.ip_forward=1',
      'ip netns add c1',
      'ip -n c1 link set eth0 index 102 address 02:42:0a:00:00:01 mtu 1500',
      'ip -n c1 link set eth0 up',
      'ip -n c1 addr add 10.65.0.2/32 dev eth0',
      'ip -n c1 neigh replace 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent',
      'ip -n c1 route add 169.254.1.1/32 dev eth0 proto 110 scope link',
      'ip -n c1 route add default via 169.254.1.1 dev eth0 proto 110',
      'ip netns exec c1 sysctl -w net.ipv4.conf.eth0.rp_filter=1',
      'ipset create web hash:net,iface family inet',
      'ipset add web 10.65.0.2/32,nctl1',
      'iptables -P FORWARD DROP',
      'iptables -N web',
      'iptables -A FORWARD -j web',
      'iptables -A web -m set --match-set web src,src -j ACCEPT',
      'conntrack -D -s 10.65.0.9',
    ]);
    assert.equal(new FakeLinux().toString(), '');
  });

  test('an ordered failure comes once, at its position, and the rest of the batch is carried out', () => {
    const { linux, spec, host } = attached();
    const position = planHost(spec).findIndex((request) => request.kind === 'link-set' && request.up);
    linux.failNext('batch', 'ENOBUFS', position);
    assert.deepEqual(linux.pendingFailures, [{ operation: 'batch', errno: 'ENOBUFS', position }]);
    assert.throws(() => host.batch(planHost(spec)), { errno: 'ENOBUFS', position });
    assert.deepEqual(linux.pendingFailures, []);
    // The link is there but did not come up, so that its route was refused as well; the neighbour was set.
    assert.equal(host.link({ index: 101 })?.up, false);
    host.batch([{ kind: 'link-delete', index: 101 }]);
    host.batch(planHost(spec));
  });

  test('every operation can be made to fail', async () => {
    const { linux, netns } = attached();
    const calls = {
      openNetns: () => linux.openNetns('/run/netns/c1'),
      batch: () => linux.openRouting().batch([{ kind: 'link-set', index: 1 }]),
      ipsets: () => linux.ipsets.batch([{ kind: 'destroy', name: 'x' }]),
      'ipsets.list': () => linux.ipsets.list(''),
      save: () => linux.iptables.save(4),
      restore: () => linux.iptables.restore(4, ''),
      flushAddresses: () => linux.conntrack.flushAddresses(['10.0.0.1' as Address]),
      deleteLink: () => linux.deleteLink(7),
      readSysctl: () => linux.readSysctl('net/ipv4/ip_forward', netns),
      writeSysctl: () => linux.writeSysctl('net/ipv4/ip_forward', '1', netns),
    };
    for (const [operation, call] of Object.entries(calls)) {
      linux.failNext(operation as keyof typeof calls, 'EIO');
      await assert.rejects(async () => await call(), { errno: 'EIO' }, operation);
    }
    assert.deepEqual(linux.pendingFailures, []);
  });

  test('lost notifications are told; a stopped watcher hears nothing', async () => {
    const { linux, spec, host } = attached();
    const events: LinkEvent[] = [];
    const stop = linux.watchLinks((event) => events.push(event));
    linux.loseLinkEvents();
    host.batch(planHost(spec));
    linux.removeNetns('/run/netns/c1');
    await setImmediate();
    const kinds = events.map((event) => event.kind);
    assert.deepEqual([...new Set(kinds)], ['lost', 'changed', 'gone']);
    assert.equal(kinds.at(-1), 'gone');
    stop();
    linux.loseLinkEvents();
    await setImmediate();
    assert.equal(events.length, kinds.length);
  });

  test('descriptors that were not closed are counted, and closed ones no longer work', () => {
    const { linux, netns, spec, host } = attached();
    assert.equal(linux.openNetnsCount, 1);
    netns.close();
    assert.equal(linux.openNetnsCount, 0);
    assert.throws(() => linux.openRouting(netns), { errno: 'EBADF' });
    assert.throws(() => host.batch(planHost(spec)), { errno: 'EBADF' });
  });

  test('iptables: commands of a restore text, each refused where the program would', async () => {
    const linux = new FakeLinux();
    linux.ipsets.batch([{ kind: 'create', name: 's6', type: 'net', family: 6 }]);
    const restore = (...lines: string[]) =>
      linux.iptables.restore(4, `*filter\n${lines.join('\n')}\nCOMMIT\n`);
    await restore(
      ':c - [0:0]',
      '-A c -m comment --comment "a -j b" -j DROP',
      '-I c -j RETURN',
      '-I c 2 -j LOG',
      '-R c 1 -j ACCEPT',
    );
    await restore('-D c -j LOG', '-N d', '-A d -g c', '-P INPUT DROP');
    const saved = await linux.iptables.save(4);
    assert.deepEqual(
      saved.split('\n').filter((line) => line.startsWith(':') || line.startsWith('-')),
      [
        ':INPUT DROP [0:0]',
        ':FORWARD ACCEPT [0:0]',
        ':OUTPUT ACCEPT [0:0]',
        ':c - [0:0]',
        ':d - [0:0]',
        '-A c -j ACCEPT',
        '-A c -m comment --comment "a -j b" -j DROP',
        '-A d -g c',
      ],
    );
    for (const bad of [
      '-X c',
      '-X INPUT',
      '-N c',
      '-D c 9',
      '-D c -j LOG',
      '-R c 9 -j DROP',
      '-I c 9 -j DROP',
      '-A c -j INPUT',
      '-P c DROP',
      '-P INPUT none',
      '-A c -m set --match-set s6 src -j DROP',
      '-A c -m comment --comment "open -j DROP',
      '-Z',
      'x',
      ':c ACCEPT',
      `:${'x'.repeat(29)} -`,
      ':INPUT -',
    ]) {
      await assert.rejects(restore('-A INPUT -j DROP', bad), { errno: 'EINVAL' }, bad);
      assert.equal(await linux.iptables.save(4), saved, bad);
    }
    await assert.rejects(linux.iptables.restore(4, '-A INPUT -j DROP\n'), { errno: 'EINVAL' });
    assert.doesNotMatch(await linux.iptables.save(6), /DROP/);
  });
});
