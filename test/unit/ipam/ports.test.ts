/**
 * Ports of nodes: reserved, published, released by several nodes at once on one store that refuses and loses answers. No port is given
 * twice, none leaks.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { endpointRecord } from '../../../lab/ipam-node.ts';
import { planPublish } from '../../../src/ipam/ports.ts';
import { removeNode } from '../../../src/ipam/remove-node.ts';
import { asNetctlError, type ErrorCode } from '../../../src/lib/errors.ts';
import { type Address, parseAddress } from '../../../src/model/ip.ts';
import { endpointKey, parseKey, portReservationKey } from '../../../src/model/keys.ts';
import { macOf } from '../../../src/model/mac.ts';
import { addressesMeet, type PortMapping, portName } from '../../../src/model/port-mapping.ts';
import { type PortReservation, portReservationSchema, portSchema } from '../../../src/model/port-records.ts';
import { type Endpoint, endpointSchema } from '../../../src/model/records.ts';
import type { MemoryStore } from '../../../src/store/memory.ts';
import type { Json } from '../../../src/store/store.ts';
import { cluster, TestNode } from './cluster.ts';

const names = ['n1', 'n2', 'n3'];
const ownerOf = (instance: number) => ({ tenant: 't', app: 'a', instance: String(instance) });
const all = (from: number, to = from) => ({ protocol: 'tcp', from, to, count: null }) as const;
const mapping = (hostPort: number, hostIP: string | null = null): PortMapping => ({
  protocol: 'tcp',
  hostPort,
  containerPort: 80,
  hostIP: hostIP as Address | null,
});

/** As an ADD does, without the addresses. */
async function publish(
  node: TestNode,
  id: string,
  owner: number,
  mappings: readonly PortMapping[],
): Promise<void> {
  const key = endpointKey(node.name, id);
  const address = parseAddress('10.0.0.9');
  const record = endpointRecord(id, [address], macOf(address), node.now()) as object;
  await node.ipam.commit(() => {
    const step = planPublish(node.book.ports, { node: node.name, id, owner: ownerOf(owner) }, mappings);
    const value = { ...record, portMappings: mappings } as unknown as Json;
    return {
      compares: [...step.compares, { kind: 'absent', key }],
      writes: [...step.writes, { kind: 'put', key, value }],
    };
  });
}

/** As a DEL does: nothing but the endpoint, and nobody is asked. */
async function unpublish(node: TestNode, id: string): Promise<void> {
  const key = endpointKey(node.name, id);
  await node.ipam.commit(() => {
    const known = node.endpoints.get(id);
    if (known === undefined) return { compares: [], writes: [] };
    return {
      compares: [{ kind: 'modified', key, revision: known.modified }],
      writes: [{ kind: 'delete', key }],
    };
  });
}

interface Held {
  readonly who: string;
  readonly owner: string | null;
  readonly hostIP: Address | null;
}

/** By node and port, who has it: told by reservations and endpoints alone. */
async function heldPorts(
  store: MemoryStore,
  owners: ReadonlyMap<string, number>,
): Promise<Map<string, Held[]>> {
  const held = new Map<string, Held[]>();
  const note = (port: string, holder: Held): void => void held.set(port, [...(held.get(port) ?? []), holder]);
  for (const { key: path, value } of (await store.list('')).entries) {
    const key = parseKey(path);
    if (key?.kind === 'port-reservation') {
      const { ports, instance }: PortReservation = portReservationSchema.parse(value);
      for (const { protocol, from, to } of ports)
        for (let port = from; port <= to; port++)
          note(`${key.node} ${portName(protocol, port)}`, {
            who: key.reservation,
            owner: instance,
            hostIP: null,
          });
    } else if (key?.kind === 'endpoint') {
      const endpoint: Endpoint = endpointSchema.parse(value);
      for (const { protocol, hostPort, hostIP } of endpoint.portMappings)
        note(`${key.node} ${portName(protocol, hostPort)}`, {
          who: key.endpoint,
          owner: String(owners.get(`${key.node} ${key.endpoint}`)),
          hostIP,
        });
    }
  }
  return held;
}

function refuseDoubles(held: ReadonlyMap<string, readonly Held[]>): void {
  for (const [port, holders] of held)
    holders.forEach((a, at) => {
      for (const b of holders.slice(at + 1)) {
        // What its owner has reserved, an endpoint may publish.
        const isOwn = a.owner === b.owner && /^r/.test(a.who) !== /^r/.test(b.who);
        assert.ok(isOwn || !addressesMeet(a.hostIP, b.hostIP), `${port} is both ${a.who}'s and ${b.who}'s`);
      }
    });
}

/** Whoever a record of a port names, and is there, has that port: it would be taken for nothing otherwise. */
async function refusePhantoms(store: MemoryStore, held: ReadonlyMap<string, readonly Held[]>): Promise<void> {
  const { entries } = await store.list('');
  const there = new Set(entries.map(({ key }) => key));
  for (const { key: path, value } of entries) {
    const key = parseKey(path);
    if (key?.kind !== 'port') continue;
    for (const { kind, id } of portSchema.parse(value).holders) {
      const holder = kind === 'endpoint' ? endpointKey(key.node, id) : portReservationKey(key.node, id);
      const has = held.get(`${key.node} ${key.port}`)?.some(({ who }) => who === id) ?? false;
      assert.ok(has || !there.has(holder), `${path} names ${holder}, which does not have it`);
    }
  }
}

describe('ports of nodes', () => {
  test('a range, single ports and any of a range; taken ones are refused by name', async () => {
    const [node] = (await cluster({}, names)) as [TestNode];
    const { ipam } = node;
    const made = await ipam.reservePorts({
      id: 'r1',
      node: 'n2',
      owner: ownerOf(1),
      ports: [all(8080), all(9000, 9009), { protocol: 'udp', from: 5000, to: 5009, count: 3 }],
      ttlSeconds: 60,
    });
    assert.deepEqual(made.ports, [
      { protocol: 'tcp', from: 8080, to: 8080 },
      { protocol: 'tcp', from: 9000, to: 9009 },
      { protocol: 'udp', from: 5000, to: 5002 },
    ]);
    const reserve = (ports: Parameters<typeof ipam.reservePorts>[0]['ports'], node = 'n2') =>
      ipam.reservePorts({ id: 'r2', node, owner: ownerOf(2), ports, ttlSeconds: null });
    await assert.rejects(reserve([all(9005)]), {
      code: 'PORT_IN_USE',
      message: 'port 9005/tcp of node n2 is taken by reservation r1 of t/a/1',
    });
    await assert.rejects(reserve([{ protocol: 'udp', from: 5000, to: 5009, count: 8 }]), {
      code: 'PORTS_EXHAUSTED',
    });
    await assert.rejects(reserve([all(1), all(1)]), { code: 'INVALID' });
    await assert.rejects(reserve([all(1, 101)]), { code: 'INVALID' });
    await assert.rejects(reserve([all(1)], 'n9'), { code: 'NOT_FOUND' });
    // The same ports of another node, and another protocol, are others.
    await reserve([all(9005)], 'n1');
    assert.deepEqual((await reserve([{ protocol: 'udp', from: 5000, to: 5009, count: 2 }])).ports, [
      { protocol: 'udp', from: 5003, to: 5004 },
    ]);
  });

  test('a change names the generation that it means, and the tenant whose it is', async () => {
    const [node] = (await cluster({}, names)) as [TestNode];
    const { ipam } = node;
    await ipam.reservePorts({ id: 'r1', node: 'n1', owner: ownerOf(1), ports: [all(80)], ttlSeconds: 60 });
    const call = { node: 'n1', id: 'r1', tenant: null, generation: 1 };
    assert.equal((await ipam.extendPorts({ ...call, ttlSeconds: null })).expiresAt, null);
    await assert.rejects(ipam.extendPorts({ ...call, ttlSeconds: 5 }), { code: 'STALE_GENERATION' });
    await assert.rejects(ipam.releasePorts(call), { code: 'STALE_GENERATION' });
    await assert.rejects(ipam.releasePorts({ ...call, tenant: 'other' }), { code: 'NOT_OWNER' });
    assert.deepEqual(await ipam.releasePorts({ ...call, generation: 2 }), [
      { protocol: 'tcp', from: 80, to: 80 },
    ]);
    assert.equal(await ipam.releasePorts({ ...call, generation: 2 }), null);
    assert.deepEqual((await node.store.list('port')).entries, []);
  });

  test('what an owner has reserved, its own endpoint may publish, and nobody else', async () => {
    const [node] = (await cluster({}, names)) as [TestNode];
    await node.ipam.reservePorts({
      id: 'r1',
      node: 'n1',
      owner: ownerOf(1),
      ports: [all(80)],
      ttlSeconds: 60,
    });
    await assert.rejects(publish(node, 'e2', 2, [mapping(80)]), { code: 'PORT_IN_USE' });
    await publish(node, 'e1', 1, [mapping(80)]);
    await node.ipam.releasePorts({ node: 'n1', id: 'r1', tenant: null, generation: 1 });
    await assert.rejects(publish(node, 'e2', 2, [mapping(80)]), {
      code: 'PORT_IN_USE',
      message: /taken by container c-e1/,
    });
    await unpublish(node, 'e1');
    await publish(node, 'e2', 2, [mapping(80)]);
  });

  test('an endpoint that comes again with other ports has those alone', async () => {
    const [node] = (await cluster({}, names)) as [TestNode];
    await publish(node, 'e1', 1, [mapping(80), mapping(81, '192.0.2.1'), mapping(81, '192.0.2.2')]);
    await unpublish(node, 'e1');
    await publish(node, 'e1', 1, [mapping(82)]);
    await publish(node, 'e2', 2, [mapping(80), mapping(81)]);
  });

  test('a holder that the picture does not show yet is asked for, not taken for gone', async () => {
    const [node] = (await cluster({}, ['n1'])) as [TestNode];
    const { store } = node;
    // Hears of nothing by itself.
    const blind = new TestNode('n1', store);
    const tell = async (key: string): Promise<void> => blind.picture.read(key, await store.get(key));
    const reserve = (id: string, port: number) =>
      blind.ipam.reservePorts({ id, node: 'n1', owner: ownerOf(2), ports: [all(port)], ttlSeconds: 60 });
    await tell('nodes/n1');
    await node.ipam.reservePorts({
      id: 'r1',
      node: 'n1',
      owner: ownerOf(1),
      ports: [all(80, 81)],
      ttlSeconds: 60,
    });
    await tell('ports/n1/tcp-80');
    for (const port of [80, 81])
      await assert.rejects(reserve(`r${port}`, port), {
        code: 'PORT_IN_USE',
        message: /reservation r1 of t\/a\/1/,
      });
    await publish(node, 'e1', 1, [mapping(82)]);
    await tell('ports/n1/tcp-82');
    await assert.rejects(reserve('r82', 82), { code: 'PORT_IN_USE' });
    await unpublish(node, 'e1');
    await tell('endpoints/n1/e1');
    assert.equal((await reserve('r82', 82)).generation, 1);
  });

  test('a node that is removed leaves no port behind', async () => {
    const [stays, gone] = (await cluster({}, ['n1', 'n2'])) as [TestNode, TestNode];
    for (const node of ['n1', 'n2'])
      await stays.ipam.reservePorts({
        id: 'r',
        node,
        owner: ownerOf(1),
        ports: [all(80, 89)],
        ttlSeconds: null,
      });
    await gone.settled();
    await publish(gone, 'e1', 1, [mapping(443)]);
    await removeNode(stays.store, { node: 'n2', self: 'n1', now: stays.now() });
    const left = (await stays.store.list('port')).entries.map(({ key }) => key);
    assert.equal(left.length, 11);
    assert.deepEqual(
      left.filter((key) => key.includes('n2')),
      [],
    );
  });

  test('a reservation ends by itself, and the records of ports that nobody has go', async () => {
    const [node] = (await cluster({}, ['n1'])) as [TestNode];
    await node.ipam.reservePorts({
      id: 'r1',
      node: 'n1',
      owner: ownerOf(1),
      ports: [all(80, 89)],
      ttlSeconds: 60,
    });
    await publish(node, 'e1', 1, [mapping(443)]);
    await unpublish(node, 'e1');
    node.clock.advance(30_000);
    await node.ipam.expire();
    assert.equal(node.book.ports.reservation('n1', 'r1')?.value.ports.length, 1);
    node.clock.advance(31_000);
    await node.ipam.expire();
    await node.settled();
    assert.deepEqual((await node.store.list('port')).entries, []);
  });
});

interface Action {
  readonly verb: 'reserve' | 'any' | 'publish' | 'unpublish' | 'extend' | 'release' | 'expire';
  readonly by: number;
  readonly on: number;
  readonly id: number;
  readonly from: number;
  readonly length: number;
  readonly hostIP: string | null;
  readonly failure: 'refused' | 'ambiguous' | null;
}

const action: fc.Arbitrary<Action> = fc.record({
  verb: fc.constantFrom(
    'reserve',
    'reserve',
    'any',
    'publish',
    'publish',
    'unpublish',
    'extend',
    'release',
    'expire',
  ),
  by: fc.nat(2),
  on: fc.nat(1),
  id: fc.nat(3),
  from: fc.integer({ min: 80, max: 86 }),
  length: fc.integer({ min: 1, max: 4 }),
  hostIP: fc.constantFrom(null, null, '192.0.2.1', '192.0.2.2', '0.0.0.0'),
  failure: fc.oneof(
    { weight: 6, arbitrary: fc.constant(null) },
    { weight: 1, arbitrary: fc.constantFrom('refused' as const, 'ambiguous' as const) },
  ),
});

const expected: readonly ErrorCode[] = [
  'PORT_IN_USE',
  'PORTS_EXHAUSTED',
  'ALREADY_EXISTS',
  'STALE_GENERATION',
  'NOT_FOUND',
  'STORE_UNAVAILABLE',
];

async function act(nodes: readonly TestNode[], step: Action, owners: Map<string, number>): Promise<void> {
  const { id, from, length, hostIP } = step;
  // Endpoints are made by the agent of their node, reservations by any.
  const here = nodes[step.on]!;
  const { ipam, book } = nodes[step.by]!;
  const node = here.name;
  const reserved = { node, id: `r${id}` };
  const generation = book.ports.reservation(node, reserved.id)?.value.generation ?? 1;
  switch (step.verb) {
    case 'reserve':
    case 'any': {
      const count = step.verb === 'any' ? length : null;
      const ports = [{ protocol: 'tcp', from, to: from + (count === null ? length - 1 : 6), count } as const];
      await ipam.reservePorts({ ...reserved, owner: ownerOf(id), ports, ttlSeconds: 20 });
      return;
    }
    case 'publish':
      return here.queue.run(`e${id}`, async () => {
        if ((await here.store.get(endpointKey(node, `e${id}`))) !== null) return;
        owners.set(`${node} e${id}`, id);
        await publish(here, `e${id}`, id, [mapping(from, hostIP), mapping(from + length)]);
      });
    case 'unpublish':
      return here.queue.run(`e${id}`, () => unpublish(here, `e${id}`));
    case 'extend':
      await ipam.extendPorts({ ...reserved, tenant: 't', generation, ttlSeconds: length === 4 ? null : 20 });
      return;
    case 'release':
      await ipam.releasePorts({ ...reserved, tenant: 't', generation });
      return;
    case 'expire':
      nodes[step.by]!.clock.advance(7000);
      return ipam.expire();
  }
}

test('property: three nodes at once, answers lost and refused: no port is given twice, none leaks', async () => {
  const seen = new Map<string, number>();
  const count = (what: string): void => void seen.set(what, (seen.get(what) ?? 0) + 1);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(action, { minLength: 1, maxLength: 8 }), {
        minLength: 4,
        maxLength: 16,
        size: 'max',
      }),
      async (rounds) => {
        const nodes = await cluster({}, names);
        const store = nodes[0]!.store as MemoryStore;
        const owners = new Map<string, number>();
        for (const round of rounds) {
          await Promise.all(
            round.map(async (step) => {
              if (step.failure !== null) store.failNext('transact', step.failure);
              try {
                await act(nodes, step, owners);
                count(step.verb);
              } catch (error) {
                const { code, message } = asNetctlError(error);
                assert.ok(expected.includes(code), `${step.verb}: ${code} ${message}`);
                count(code);
              }
            }),
          );
          for (const node of nodes) await node.settled();
          const held = await heldPorts(store, owners);
          refuseDoubles(held);
          await refusePhantoms(store, held);
          // And each holder is in the record of the port, or others would be given it.
          for (const [port, holders] of held) {
            const [node = '', name = ''] = port.split(' ');
            const record = new Map(nodes[0]!.book.ports.ports(node)).get(name)?.value.holders ?? [];
            for (const { who } of holders)
              assert.ok(
                record.some(({ id }) => id === who),
                `${port} of ${who}`,
              );
          }
        }
        for (let tries = store.failuresLeft(); tries > 0; tries--)
          await store.transact([], [{ kind: 'delete', key: 'x' }]).catch(() => undefined);
        for (const node of nodes) for (const [id] of [...node.endpoints.all()]) await unpublish(node, id);
        for (const { node, id } of [...nodes[0]!.book.ports.reservations()])
          await nodes[0]!.ipam.releasePorts({ node, id, tenant: null, generation: null });
        for (const node of nodes) {
          for (const other of nodes) await other.settled();
          await node.ipam.expire();
        }
        assert.deepEqual((await store.list('port')).entries, []);
      },
    ),
    { numRuns: 200 },
  );
  for (const outcome of [
    'reserve',
    'any',
    'publish',
    'unpublish',
    'extend',
    'release',
    'PORT_IN_USE',
    'STORE_UNAVAILABLE',
  ])
    assert.ok((seen.get(outcome) ?? 0) > 0, `no run had ${outcome}`);
});
