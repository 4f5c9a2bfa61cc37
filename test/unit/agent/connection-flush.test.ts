/** A change of policy that asks for it cuts, on every host, the connections that it denies; on the fakes. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { Agent } from '../../../src/agent/agent.ts';
import { loadConfig } from '../../../src/agent/config.ts';
import { FakeBird } from '../../../src/linux/fake/bird.ts';
import { FakeLinux } from '../../../src/linux/fake/linux.ts';
import type { Netns, TrackedConnection } from '../../../src/linux/ports.ts';
import type { Address } from '../../../src/model/ip.ts';
import { connectionFlushKey, profileKey } from '../../../src/model/keys.ts';
import type { Mac } from '../../../src/model/mac.ts';
import { profileFromJson, profileRecord } from '../../../src/model/profile.ts';
import { MemoryStore } from '../../../src/store/memory.ts';
import type { Json } from '../../../src/store/store.ts';
import { bootId, macvlanEndpoint } from '../dataplane/macvlan-endpoint.ts';
import { ManualClock } from '../store/manual-clock.ts';
import { MemoryMark, override, Rig, request } from './rig.ts';

const silent = { debug() {}, info() {}, warn() {}, error() {} };
const ADDRESSES = { n1: '10.0.0.1', n2: '10.0.0.2' } as const;

function connection(source: string, destination: string, destinationPort: number): TrackedConnection {
  const ends = { source: source as Address, destination: destination as Address };
  return { ...ends, protocol: 6, sourcePort: 40_000, destinationPort, icmp: null };
}

const db = (...ports: number[]): Json =>
  profileRecord(
    profileFromJson(
      {
        id: 'db',
        tags: ['db'],
        inbound_rules: ports.map((port) => ({ action: 'allow', protocol: 'tcp', dst_ports: [port] })),
        outbound_rules: [{ action: 'allow' }],
      },
      'db',
    ),
  ) as unknown as Json;

for (const kind of ['routed', 'macvlan'] as const)
  test(`${kind}: each host cuts its own, once it has the change, and only what the change denies`, () =>
    cutsItsOwn(kind));

/** Connections of macvlan endpoints are in their containers. */
async function cutsItsOwn(kind: 'routed' | 'macvlan'): Promise<void> {
  const store = new MemoryStore();
  await store.transact([], [{ kind: 'put', key: profileKey('db'), value: db(80, 3306) }]);
  const hosts: { agent: Agent; linux: FakeLinux; inode: number }[] = [];
  for (const [node, address] of Object.entries(ADDRESSES)) {
    const linux = new FakeLinux();
    linux.addNetns(`/ns/${node}`);
    const netns = linux.openNetns(`/ns/${node}`);
    const { inode } = netns.identity;
    const words = {
      hostInterface: `nctl${node}`,
      mac: '02:42:0a:00:00:01',
      parent: 'eth1',
      addresses: [address as Address],
    };
    const onWire = { ...macvlanEndpoint(`/ns/${node}`, netns, words), profiles: ['db'] };
    const record = kind === 'macvlan' ? onWire : { ...onWire, kind, macvlan: null };
    if (kind === 'macvlan') addMacvlan(linux, netns);
    netns.close();
    await store.transact(
      [],
      [{ kind: 'put', key: `endpoints/${node}/${node}`, value: record as unknown as Json }],
    );
    const config = loadConfig({ argv: ['--node', node], env: {}, readFile: () => null }).config;
    const agent = new Agent({
      config,
      version: '0',
      bootId,
      store,
      linux,
      clock: new ManualClock(),
      logger: silent,
      bird: new FakeBird(),
      releaseDelegate: async () => undefined,
      clusterTrouble: () => null,
      diskRefusal: () => null,
      flushMark: new MemoryMark(),
    });
    hosts.push({ agent, linux, inode });
  }
  for (const { agent } of hosts) await agent.start();
  const outside = '192.0.2.9';
  const all = [
    connection(ADDRESSES.n1, ADDRESSES.n2, 3306),
    connection(ADDRESSES.n1, ADDRESSES.n2, 80),
    connection(outside, ADDRESSES.n2, 3306),
    connection(ADDRESSES.n2, outside, 3306),
    // Never was allowed: it came about in another way, and stays.
    connection(outside, ADDRESSES.n2, 22),
    connection(outside, '192.0.2.10', 3306),
  ];
  for (const { linux, inode } of hosts) {
    if (kind === 'routed') linux.tracked.connections = all;
    else linux.tracked.connectionsIn.set(inode, all);
  }
  const change = async (value: Json, asks: boolean): Promise<void> => {
    await store.transact(
      [],
      [
        { kind: 'put', key: profileKey('db'), value },
        ...(asks
          ? [{ kind: 'put', key: connectionFlushKey, value: { id: `${Math.random()}` } } as const]
          : []),
      ],
    );
    const { revision } = await store.list('');
    for (const { agent } of hosts) await agent.applied(revision);
    await setImmediate();
  };
  const left = (): string[][] =>
    hosts.map(({ linux, inode }) =>
      (kind === 'routed' ? linux.tracked.connections : linux.tracked.connectionsIn.get(inode)!).map(
        ({ source, destination, destinationPort }) => `${source} ${destination} ${destinationPort}`,
      ),
    );

  await change(db(80), false);
  assert.deepEqual(
    left().map(({ length }) => length),
    [6, 6],
  );
  await change(db(80, 3306), true);
  assert.deepEqual(
    left().map(({ length }) => length),
    [6, 6],
  );
  await change(db(80), true);
  // The host of the source allows what it sends; the one of the destination does not let it in.
  assert.deepEqual(left(), [
    all.map(({ source, destination, destinationPort }) => `${source} ${destination} ${destinationPort}`),
    ['10.0.0.1 10.0.0.2 80', '10.0.0.2 192.0.2.9 3306', '192.0.2.9 10.0.0.2 22', '192.0.2.9 192.0.2.10 3306'],
  ]);
  for (const { agent } of hosts) await agent.stop();
}

function addMacvlan(linux: FakeLinux, { fd: netnsFd }: Netns): void {
  const mac = '02:42:0a:00:00:01' as Mac;
  linux.addDevice({ name: 'eth1', index: 9, mac: '02:00:00:00:00:09' as Mac, mtuBytes: 1500 });
  const link = { name: 'eth0', index: 5, mac, mtuBytes: 1500, netnsFd };
  linux.openRouting().batch([
    { kind: 'link-set', index: 9, up: true },
    { kind: 'macvlan-add', parentIndex: 9, mode: 'bridge', link },
  ]);
}

test('what was asked for while no agent ran is done at the next start, once', async () => {
  const rig = new Rig((linux, store) => ({
    linux,
    store: override(store, { close: async () => undefined }),
  }));
  const attachments = await rig.start();
  const { addresses } = await attachments.attach({ ...request('a'), profiles: ['db'] });
  const [address] = addresses;
  const other = connection('192.0.2.9', '192.0.2.10', 3306);
  const cut = connection('192.0.2.9', address!, 3306);
  const kept = connection('192.0.2.9', address!, 80);
  const change = (value: Json, id: string) =>
    rig.store.transact(
      [],
      [
        { kind: 'put', key: profileKey('db'), value },
        { kind: 'put', key: connectionFlushKey, value: { id } },
      ],
    );
  const restarted = async (): Promise<TrackedConnection[]> => {
    rig.linux.tracked.connections = [other, cut, kept];
    const agent = rig.successor();
    await agent.start();
    await agent.stop();
    return [...rig.linux.tracked.connections];
  };
  await change(db(80, 3306), 'first');
  await rig.agent.applied((await rig.store.list('')).revision);
  await setImmediate();
  await rig.agent.stop();
  assert.deepEqual(await restarted(), [other, cut, kept], 'nothing was asked for since');
  await change(db(80), 'second');
  assert.deepEqual(await restarted(), [other, kept]);
  assert.deepEqual(await restarted(), [other, cut, kept], 'it is done');
});
