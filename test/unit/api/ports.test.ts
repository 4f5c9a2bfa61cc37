/** Ports of nodes over HTTP: reserved, prolonged, released, shown; who may do what with whose. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Caller } from '../../../src/api/caller.ts';
import type { Json } from '../../../src/store/store.ts';
import { call, endpoint, type Fixture, type Method, makeApi, put } from './fixture.ts';

const wish = (more: Record<string, Json> = {}): Json => ({
  id: 'r1',
  node: 'node1',
  tenant: 't',
  app: 'a',
  instance: '0',
  ports: [{ from: 80 }],
  ...more,
});

async function withNode(overrides: Parameters<typeof makeApi>[0] = {}): Promise<Fixture> {
  const fixture = makeApi(overrides);
  const node = { address4: null, address6: null, version: '0', startedAt: '2026-01-01T00:00:00.000Z' };
  await put(fixture.store, 'nodes/node1', node);
  await fixture.node.settled();
  return fixture;
}

async function refused(fixture: Fixture, method: Method, url: string, body?: Json) {
  const { status, body: answer } = await call(fixture, method, url, body);
  return [status, answer.error?.code];
}

const scheduler = (tenant: string): Caller => ({
  name: 'CN=scheduler',
  realm: 'r',
  operator: false,
  reserve: new Set([tenant]),
  read: new Set(),
  bind: new Set(),
});

describe('ports of nodes', () => {
  test('reserved, shown, kept, released; each change names its generation', async () => {
    const fixture = await withNode();
    const made = await call(fixture, 'POST', '/v1/port-reservations', {
      ...(wish({ ports: [{ from: 80 }, { from: 5000, to: 5009, count: 2, protocol: 'udp' }] }) as object),
    });
    assert.equal(made.status, 201, JSON.stringify(made.body));
    assert.deepEqual(made.body.ports, [
      { protocol: 'tcp', from: 80, to: 80 },
      { protocol: 'udp', from: 5000, to: 5001 },
    ]);
    assert.deepEqual([made.body.generation, made.body.ttlSeconds], [1, 300]);
    const path = '/v1/port-reservations/node1/r1';
    assert.deepEqual(await refused(fixture, 'POST', '/v1/port-reservations', wish()), [
      409,
      'ALREADY_EXISTS',
    ]);
    const taken = await call(fixture, 'POST', '/v1/port-reservations', wish({ id: 'r2' }));
    assert.deepEqual([taken.status, taken.body.error.code], [409, 'PORT_IN_USE']);
    assert.match(
      taken.body.error.message,
      /port 80\/tcp of node node1 is taken by reservation r1 of t\/a\/0/,
    );
    const kept = await call(fixture, 'POST', `${path}:extend`, { generation: 1, ttlSeconds: null });
    assert.deepEqual([kept.body.generation, kept.body.expiresAt], [2, null]);
    assert.deepEqual(await refused(fixture, 'POST', `${path}/release`, { generation: 1 }), [
      412,
      'STALE_GENERATION',
    ]);
    assert.deepEqual(await refused(fixture, 'POST', `${path}/release`, {}), [400, 'INVALID']);
    assert.equal((await call(fixture, 'GET', path)).body.generation, 2);
    const { body: ports } = await call(fixture, 'GET', '/v1/ports?node=node1');
    assert.deepEqual(
      ports.items.map(({ port, protocol, text }: Record<string, unknown>) => [port, protocol, text]),
      [
        [80, 'tcp', 'reservation r1 of t/a/0'],
        [5000, 'udp', 'reservation r1 of t/a/0'],
        [5001, 'udp', 'reservation r1 of t/a/0'],
      ],
    );
    const { body: freed } = await call(fixture, 'POST', `${path}/release`, { generation: 2 });
    assert.equal(freed.freed.length, 2);
    assert.deepEqual((await call(fixture, 'POST', `${path}/release`, { force: true })).body, { freed: [] });
    assert.deepEqual(await refused(fixture, 'GET', path), [404, 'NOT_FOUND']);
    assert.deepEqual((await call(fixture, 'GET', '/v1/ports')).body.items, []);
  });

  test('what cannot be is refused with what is accepted', async () => {
    const fixture = await withNode();
    const answer = async (more: Record<string, Json>): Promise<string> => {
      const { body } = await call(fixture, 'POST', '/v1/port-reservations', wish(more));
      return `${body.error.code} ${body.error.message}`;
    };
    assert.match(await answer({ ports: [] }), /INVALID ports: \[\] is not valid: expected at least one port/);
    assert.match(
      await answer({ ports: [{ from: 9, to: 8 }] }),
      /a range whose first port is not the higher one/,
    );
    assert.match(
      await answer({ ports: [{ from: 0 }] }),
      /ports\[0\].from: 0 is not valid: expected a port from 1/,
    );
    assert.match(
      await answer({ ports: [{ from: 1, to: 200 }] }),
      /expected 1 to 100; for more, several reservations/,
    );
    assert.match(await answer({ ports: [{ from: 1, protocol: 'icmp' }] }), /tcp, udp or sctp/);
    assert.match(await answer({ node: 'nowhere' }), /NOT_FOUND there is no node nowhere/);
    assert.match(await answer({ ports: [{ from: 1, to: 2, count: 3 }] }), /PORTS_EXHAUSTED/);
  });

  test('a tenant sees and changes its own alone, and not who has which port', async () => {
    let caller: Caller | null = null;
    const fixture = await withNode({ callerOf: () => caller ?? { ...scheduler(''), operator: true } });
    await call(fixture, 'POST', '/v1/port-reservations', wish());
    caller = scheduler('u');
    assert.deepEqual((await call(fixture, 'GET', '/v1/port-reservations')).body.items, []);
    assert.deepEqual(await refused(fixture, 'GET', '/v1/port-reservations/node1/r1'), [404, 'NOT_FOUND']);
    const path = '/v1/port-reservations/node1/r1';
    assert.deepEqual(await refused(fixture, 'POST', `${path}/release`, { generation: 1 }), [
      403,
      'NOT_OWNER',
    ]);
    assert.deepEqual(await refused(fixture, 'POST', `${path}/release`, { force: true }), [403, 'FORBIDDEN']);
    assert.deepEqual(await refused(fixture, 'POST', '/v1/port-reservations', wish({ id: 'r2' })), [
      403,
      'FORBIDDEN',
    ]);
    assert.deepEqual(await refused(fixture, 'GET', '/v1/ports'), [403, 'FORBIDDEN']);
    caller = scheduler('t');
    assert.equal((await call(fixture, 'GET', '/v1/port-reservations')).body.items.length, 1);
    assert.equal((await call(fixture, 'POST', `${path}/release`, { generation: 1 })).status, 200);
  });

  test('ports of an endpoint are set through any agent, and refused where they are taken', async () => {
    const fixture = await withNode();
    await put(fixture.store, 'endpoints/node1/0123456789abcdef', endpoint());
    await fixture.node.settled();
    await call(fixture, 'POST', '/v1/port-reservations', wish());
    const path = '/v1/endpoints/0123456789abcdef';
    const mapping = (hostPort: number): Json => ({
      portMappings: [{ protocol: 'tcp', hostPort, containerPort: 80 }],
    });
    const taken = await call(fixture, 'PATCH', path, mapping(80));
    assert.deepEqual([taken.status, taken.body.error?.code], [409, 'PORT_IN_USE']);
    const { body } = await call(fixture, 'PATCH', path, mapping(81));
    assert.deepEqual(body.item.portMappings, [
      { protocol: 'tcp', hostPort: 81, containerPort: 80, hostIP: null },
    ]);
    assert.deepEqual(
      (await fixture.store.list('ports/')).entries.map(({ key }) => key),
      ['ports/node1/tcp-80', 'ports/node1/tcp-81'],
    );
    await call(fixture, 'PATCH', path, { portMappings: [] });
    assert.deepEqual(
      (await fixture.store.list('ports/')).entries.map(({ key }) => key),
      ['ports/node1/tcp-80'],
    );
  });
});
