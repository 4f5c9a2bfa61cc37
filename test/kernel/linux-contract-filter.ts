/**
 * The part of the Linux contract that is about netfilter: sets, rules, tracked connections.
 *
 * In: an adapter, once it is there. Out: registered tests. Never: a set or rule left for the next test.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KernelError, type Linux } from '../../src/linux/ports.ts';
import type { Address } from '../../src/model/ip.ts';
import { refused, rejected } from './linux-contract-refusal.ts';

export function filterContract(adapter: () => Linux): void {
  test('sets: create, add, delete, flush and destroy; what is done already succeeds', async () => {
    const create = { kind: 'create', name: 'ct-a4', type: 'net', family: 4 } as const;
    adapter().ipsets.batch([create, create, { kind: 'create', name: 'ct-b6', type: 'net,iface', family: 6 }]);
    adapter().ipsets.batch([
      { kind: 'add', name: 'ct-a4', members: ['10.0.0.1/32', '10.1.0.0/16', '10.0.0.1/32'] },
      { kind: 'add', name: 'ct-b6', members: ['fd00::1/128,eth0'] },
      { kind: 'delete', name: 'ct-a4', members: ['10.9.9.9/32', '10.1.0.0/16'] },
    ]);
    assert.deepEqual(
      (await adapter().ipsets.list('ct-')).toSorted((a, b) => a.name.localeCompare(b.name)),
      [
        { name: 'ct-a4', type: 'net', family: 4, members: ['10.0.0.1/32'] },
        { name: 'ct-b6', type: 'net,iface', family: 6, members: ['fd00::1/128,eth0'] },
      ],
    );
    adapter().ipsets.batch([{ kind: 'flush', name: 'ct-a4' }]);
    assert.deepEqual((await adapter().ipsets.list('ct-a4'))[0]?.members, []);
    const destroy = ['ct-a4', 'ct-b6', 'ct-a4'].map((name) => ({ kind: 'destroy', name }) as const);
    adapter().ipsets.batch(destroy);
    assert.deepEqual(await adapter().ipsets.list('ct-'), []);
  });

  test('sets: unknown set, wrong family, wrong kind of member and another type are refused by name', () => {
    adapter().ipsets.batch([
      { kind: 'create', name: 'ct-c', type: 'net', family: 4 },
      { kind: 'create', name: 'ct-d', type: 'net,iface', family: 4 },
    ]);
    const error = refused('ENOENT', () =>
      adapter().ipsets.batch([
        { kind: 'flush', name: 'ct-c' },
        { kind: 'add', name: 'ct-none', members: ['10.0.0.1/32'] },
      ]),
    );
    assert.equal(error.position, 1);
    refused('IPSET_ERR_PROTOCOL', () =>
      adapter().ipsets.batch([{ kind: 'add', name: 'ct-c', members: ['fd00::1/128'] }]),
    );
    refused('IPSET_ERR_PROTOCOL', () =>
      adapter().ipsets.batch([{ kind: 'add', name: 'ct-d', members: ['10.0.0.1/32'] }]),
    );
    refused('EEXIST', () =>
      adapter().ipsets.batch([{ kind: 'create', name: 'ct-c', type: 'net,iface', family: 4 }]),
    );
    for (const member of ['0.0.0.0/0', '10.0.0.1', '10.0.0.1/24', '10.0.0.1/32,', '10.0.0.1/32,a/b']) {
      assert.throws(
        () => adapter().ipsets.batch([{ kind: 'add', name: 'ct-c', members: [member] }]),
        { code: 'INVALID' },
        member,
      );
    }
    adapter().ipsets.batch([
      { kind: 'destroy', name: 'ct-c' },
      { kind: 'destroy', name: 'ct-d' },
    ]);
  });

  test('sets: 10,000 members are added and listed', async () => {
    const members = Array.from({ length: 10_000 }, (_, i) => `10.${i >> 8}.${i & 255}.0/24`);
    adapter().ipsets.batch([
      { kind: 'create', name: 'ct-many', type: 'net', family: 4 },
      { kind: 'add', name: 'ct-many', members },
    ]);
    const [set] = await adapter().ipsets.list('ct-many');
    assert.deepEqual([...set!.members].sort(), [...members].sort());
    adapter().ipsets.batch([
      { kind: 'delete', name: 'ct-many', members },
      { kind: 'destroy', name: 'ct-many' },
    ]);
  });

  test('rules: all of a text or nothing, and a set that a rule names stays', async () => {
    adapter().ipsets.batch([{ kind: 'create', name: 'ct-used', type: 'net', family: 4 }]);
    const chain = ':ct-chain - [0:0]';
    const rule = '-A ct-chain -m set --match-set ct-used src -j DROP';
    await adapter().iptables.restore(4, `*filter\n${chain}\n${rule}\n-A FORWARD -j ct-chain\nCOMMIT\n`);
    assert.ok((await adapter().iptables.save(4)).split('\n').includes(rule));
    refused('IPSET_ERR_BUSY', () => adapter().ipsets.batch([{ kind: 'destroy', name: 'ct-used' }]));

    const before = withoutComments(await adapter().iptables.save(4));
    for (const bad of [
      '-A ct-chain -j ct-none',
      '-A ct-none -j DROP',
      '-A ct-chain -m set --match-set ct-no src -j DROP',
    ]) {
      await assert.rejects(
        adapter().iptables.restore(4, `*filter\n-A FORWARD -j DROP\n${bad}\nCOMMIT\n`),
        rejected('EINVAL'),
      );
      assert.equal(withoutComments(await adapter().iptables.save(4)), before, bad);
    }
    await assert.rejects(
      adapter().iptables.restore(4, '*filter\n-F ct-chain\n-X ct-chain\nCOMMIT\n'),
      KernelError,
    );
    assert.equal(withoutComments(await adapter().iptables.save(4)), before);
    await assert.rejects(adapter().iptables.restore(4, '*filter\n-A FORWARD -j DROP\n'), KernelError);
    assert.equal(withoutComments(await adapter().iptables.save(4)), before);

    // Declared again, a chain starts empty; --noflush leaves the others alone.
    await adapter().iptables.restore(4, `*filter\n${chain}\nCOMMIT\n`);
    const after = (await adapter().iptables.save(4)).split('\n');
    assert.ok(after.includes('-A FORWARD -j ct-chain') && !after.includes(rule));
    adapter().ipsets.batch([{ kind: 'destroy', name: 'ct-used' }]);
    await adapter().iptables.restore(4, '*filter\n-D FORWARD -j ct-chain\nCOMMIT\n');
    await adapter().iptables.restore(4, '*filter\n-X ct-chain\nCOMMIT\n');
    assert.doesNotMatch(await adapter().iptables.save(4), /ct-chain/);
  });

  test('flushing connections of an address that has none succeeds, both families', async () => {
    await adapter().conntrack.flushAddresses([address('10.65.0.2'), address('fd00:65::2')]);
    await adapter().conntrack.flushAddresses([]);
  });
}

function address(text: string): Address {
  return text as Address;
}

function withoutComments(saved: string): string {
  return saved
    .split('\n')
    .filter((line) => !line.startsWith('#'))
    .join('\n')
    .replaceAll(/\[\d+:\d+\]/g, '[0:0]');
}
