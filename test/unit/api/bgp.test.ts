/** BGP over HTTP: peers, settings, reflectors; no password ever leaves. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Json } from '../../../src/store/store.ts';
import { call, makeApi, put } from './fixture.ts';

const secret = 'very secret';
const tor: Json = { name: 'tor', address: '192.0.2.254', asNumber: 65001, password: secret };
const node: Json = {
  address4: '192.0.2.1',
  address6: null,
  version: '0.1.0',
  startedAt: '2026-01-02T03:04:05.000Z',
};

async function storedPassword({ store }: ReturnType<typeof makeApi>): Promise<unknown> {
  return ((await store.get('bgp/peers/tor'))?.value as { password?: unknown } | undefined)?.password;
}

describe('peers', () => {
  test('are added, shown and removed; the password is in the store, and in no answer', async () => {
    const fixture = makeApi();
    const added = await call(fixture, 'POST', '/v1/bgp/peers', tor);
    assert.equal(added.status, 201);
    assert.equal(added.body.item.password, 'set');
    assert.equal(await storedPassword(fixture), secret);
    for (const url of ['/v1/bgp/peers', '/v1/bgp/peers/tor', '/v1/documents?kind=bgp-peer']) {
      const { status, body } = await call(fixture, 'GET', url);
      assert.equal(status, 200, url);
      assert.ok(!JSON.stringify(body).includes(secret), url);
      assert.ok(JSON.stringify(body).includes('"password":"set"'), url);
    }
    assert.equal((await call(fixture, 'DELETE', '/v1/bgp/peers/tor')).status, 200);
    assert.equal((await call(fixture, 'GET', '/v1/bgp/peers/tor')).body.error.code, 'NOT_FOUND');
    assert.equal((await call(fixture, 'DELETE', '/v1/bgp/peers/tor')).body.error.code, 'NOT_FOUND');
  });

  test('are added once, and not with what is shown for a password', async () => {
    const fixture = makeApi();
    await call(fixture, 'POST', '/v1/bgp/peers', tor);
    assert.equal((await call(fixture, 'POST', '/v1/bgp/peers', tor)).body.error.code, 'ALREADY_EXISTS');
    const again = await call(fixture, 'POST', '/v1/bgp/peers', {
      ...(tor as object),
      name: 'b',
      password: 'set',
    });
    assert.match(again.body.error.message, /^password: /);
  });

  test('that are wrong are refused with the field', async () => {
    const { status, body } = await call(makeApi(), 'POST', '/v1/bgp/peers', {
      name: 'a',
      address: '192.0.2.1',
    });
    assert.equal(status, 400);
    assert.match(body.error.message, /^asNumber: /);
  });

  test('that cannot be read are said, and can be removed', async () => {
    const fixture = makeApi();
    await put(fixture.store, 'bgp/peers/broken', { address: 7 });
    const { body } = await call(fixture, 'GET', '/v1/bgp/peers');
    assert.deepEqual(body.items, []);
    assert.equal(body.broken[0].key, 'bgp/peers/broken');
    assert.equal((await call(fixture, 'DELETE', '/v1/bgp/peers/broken')).status, 200);
  });
});

describe('as documents', () => {
  const { name: _, ...rest } = tor as Record<string, Json>;
  const peer = { kind: 'bgp-peer', name: 'tor', ...rest };
  const filter = { kind: 'bgp-filter', name: 'in', rules: [{ action: 'reject', prefixes: ['0.0.0.0/0'] }] };
  const apply = (fixture: ReturnType<typeof makeApi>, ...documents: object[]) =>
    call(fixture, 'POST', '/v1/documents', { documents: documents as unknown as Json });

  test('what was shown and is applied again keeps the password', async () => {
    const fixture = makeApi();
    await apply(fixture, peer);
    const { body } = await call(fixture, 'GET', '/v1/documents?kind=bgp-peer&name=tor');
    const again = await apply(fixture, body.items[0].document);
    assert.equal(again.body.items[0].action, 'unchanged');
    const changed = await apply(fixture, { ...body.items[0].document, holdSeconds: 9 });
    assert.equal(changed.body.items[0].action, 'changed');
    assert.equal(await storedPassword(fixture), secret);
  });

  test('what was shown of a peer that is not there is refused', async () => {
    const { status, body } = await apply(makeApi(), { ...peer, password: 'set' });
    assert.equal(status, 400);
    assert.match(body.error.message, /^password: .*bgp-peer tor/);
  });

  test('a filter that is not there is worth a warning, and one that is used is not deleted unforced', async () => {
    const fixture = makeApi();
    const using = { ...peer, importFilters: ['in'] };
    assert.deepEqual((await apply(fixture, using)).body.warnings, [
      'bgp-peer tor: there is no bgp-filter in: its sessions pass nothing',
    ]);
    assert.deepEqual((await apply(fixture, filter)).body.warnings, []);
    const refused = await call(fixture, 'DELETE', '/v1/documents?kind=bgp-filter&name=in');
    assert.equal(refused.body.error.code, 'IN_USE');
    assert.match(refused.body.error.message, /used by bgp-peer tor/);
    assert.equal(
      (await call(fixture, 'DELETE', '/v1/documents?kind=bgp-filter&name=in&force=true')).status,
      200,
    );
  });
});

describe('settings', () => {
  test('have defaults, change one by one, and keep what else is in the record', async () => {
    const fixture = makeApi();
    await put(fixture.store, 'settings', { strictAffinity: false });
    assert.equal((await call(fixture, 'GET', '/v1/bgp/settings')).body.mesh, true);
    await call(fixture, 'PATCH', '/v1/bgp/settings', { mesh: false });
    const { body } = await call(fixture, 'PATCH', '/v1/bgp/settings', {
      asNumber: 64999,
      meshPassword: secret,
    });
    assert.deepEqual([body.item.mesh, body.item.asNumber, body.item.meshPassword], [false, 64999, 'set']);
    const { value } = (await fixture.store.get('settings'))!;
    const { strictAffinity, bgp } = value as { strictAffinity: boolean; bgp: { meshPassword: string } };
    assert.deepEqual([strictAffinity, bgp.meshPassword], [false, secret]);
    const cleared = await call(fixture, 'PATCH', '/v1/bgp/settings', { meshPassword: null });
    assert.equal(cleared.body.item.meshPassword, null);
  });

  test('are made by the first change', async () => {
    const fixture = makeApi();
    assert.equal((await call(fixture, 'PATCH', '/v1/bgp/settings', { bfd: false })).body.item.bfd, false);
    assert.equal((await call(fixture, 'GET', '/v1/bgp/settings')).body.bfd, false);
  });

  test('that do not go together are refused', async () => {
    const { body } = await call(makeApi(), 'PATCH', '/v1/bgp/settings', {
      holdSeconds: 20,
      keepaliveSeconds: 30,
    });
    assert.match(body.error.message, /^keepaliveSeconds: 30.*at most the hold time, 20/);
    const shown = await call(makeApi(), 'PATCH', '/v1/bgp/settings', { meshPassword: 'set' });
    assert.match(shown.body.error.message, /^meshPassword: /);
    assert.equal((await call(makeApi(), 'PATCH', '/v1/bgp/settings', { mesh: 'off' })).status, 400);
  });
});

test('a node becomes a reflector and is none again; the rest of its record stays', async () => {
  const fixture = makeApi();
  await put(fixture.store, 'nodes/node1', node);
  const { body } = await call(fixture, 'PATCH', '/v1/nodes/node1', { routeReflectorClusterId: '244.0.0.1' });
  assert.equal(body.item.routeReflectorClusterId, '244.0.0.1');
  assert.equal(body.item.address4, '192.0.2.1');
  const none = await call(fixture, 'PATCH', '/v1/nodes/node1', { routeReflectorClusterId: null });
  assert.equal(none.body.item.routeReflectorClusterId, null);
  const six = await call(fixture, 'PATCH', '/v1/nodes/node1', { routeReflectorClusterId: 'fd00::1' });
  assert.match(six.body.error.message, /^routeReflectorClusterId: /);
  const unknown = await call(fixture, 'PATCH', '/v1/nodes/node2', { routeReflectorClusterId: null });
  assert.equal(unknown.body.error.code, 'NOT_FOUND');
});
