/** Interfaces that macvlans sit on, on the strict fake: VLANs that are made, kept and removed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MacvlanParents } from '../../../src/dataplane/macvlan-parents.ts';
import { FakeLinux } from '../../../src/linux/fake/linux.ts';
import type { Mac } from '../../../src/model/mac.ts';

function parents() {
  const linux = new FakeLinux();
  linux.addDevice({ name: 'eth1', index: 7, mac: '02:00:00:00:00:07' as Mac, mtuBytes: 1450 });
  const host = linux.openRouting();
  host.batch([{ kind: 'link-set', index: 7, up: true }]);
  return { linux, host, parents: new MacvlanParents(host) };
}

const names = async (host: ReturnType<typeof parents>['host']): Promise<string[]> =>
  (await host.links()).map(({ name }) => name).sort();

test('a VLAN that is missing is made, up, with the MTU of what it is on; both spellings mean the same', async () => {
  const { host, parents: wires } = parents();
  assert.equal(wires.mtuOf({ parent: 'eth1', vlan: 100 }, 0), 1450);
  assert.deepEqual(await names(host), ['eth1']);
  const made = wires.ready({ parent: 'eth1', vlan: 100 });
  assert.deepEqual([made.name, made.type, made.up, made.mtuBytes], ['eth1.100', 'vlan', true, 1450]);
  assert.equal(wires.ready({ parent: 'eth1.100', vlan: null }).index, made.index);
  assert.deepEqual(await names(host), ['eth1', 'eth1.100']);
});

test('it goes when no wire needs it; what others have made stays', async () => {
  const { host, parents: wires } = parents();
  const theirs = { name: 'eth1.5', index: 8, mtuBytes: 1450 };
  host.batch([{ kind: 'vlan-add', parentIndex: 7, id: 5, link: theirs, alias: 'of the operator' }]);
  wires.ready({ parent: 'eth1', vlan: 100 });
  assert.deepEqual(await wires.tidy([{ parent: 'eth1', vlan: 100 }]), []);
  assert.deepEqual(await wires.tidy([{ parent: 'eth1', vlan: null }]), ['eth1.100']);
  assert.deepEqual(await names(host), ['eth1', 'eth1.5']);
});

test('what cannot be made is refused with the reason', () => {
  const { linux, parents: wires } = parents();
  linux.failNext('batch', 'EOPNOTSUPP');
  assert.throws(() => wires.ready({ parent: 'eth1', vlan: 100 }), {
    code: 'LINK',
    message:
      'cannot make VLAN 100 on eth1: this kernel has no VLANs (module 8021q): load it, or name an interface that is there',
  });
  assert.throws(() => wires.ready({ parent: 'eth9', vlan: 100 }), {
    message: 'parent eth9.100 does not exist on this host',
  });
  assert.throws(() => wires.ready({ parent: 'eth1.5000', vlan: null }), {
    message: 'parent eth1.5000 does not exist on this host',
  });
  linux.addDevice({ name: 'averylongname', index: 9, mac: '02:00:00:00:00:09' as Mac, mtuBytes: 1500 });
  assert.throws(() => wires.ready({ parent: 'averylongname', vlan: 100 }), /which is too long/);
});
