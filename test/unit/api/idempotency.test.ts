/** Idempotency-Key: what is repeated is carried out once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Json } from '../../../src/store/store.ts';
import { call, type Fixture, type Method, makeApi } from './fixture.ts';

async function withPool(): Promise<Fixture> {
  const fixture = makeApi();
  await call(fixture, 'POST', '/v1/pools', { cidr: '10.1.0.0/24' });
  return fixture;
}

const wish = { tenant: 't', app: 'a', instances: ['0'], ipv4: 1 };

function reserve(fixture: Fixture, key: string, body: Json = wish) {
  return call(fixture, 'POST', '/v1/reservations', body, { 'idempotency-key': key });
}

const reservations = async ({ store }: Fixture) => (await store.list('reservations/')).entries.length;
const keys = async ({ store }: Fixture) =>
  (await store.list('idempotency/')).entries.map(({ key }) => key.slice('idempotency/'.length));

test('the same request again gets the same answer, whatever the order of its keys', async () => {
  const fixture = await withPool();
  const first = await reserve(fixture, 'k1');
  const { tenant, ...rest } = wish;
  const second = await reserve(fixture, 'k1', { ...rest, tenant });
  assert.deepEqual([first.status, second.status, second.body], [201, 201, first.body]);
  assert.deepEqual(
    [first.headers['idempotency-replayed'], second.headers['idempotency-replayed']],
    [undefined, 'true'],
  );
  assert.equal(await reservations(fixture), 1);
  assert.equal((await reserve(fixture, 'k2')).status, 201);
  assert.equal(await reservations(fixture), 2);
});

test('another request under the key: 422, and nothing is done', async () => {
  const fixture = await withPool();
  await reserve(fixture, 'k1');
  const { status, body } = await reserve(fixture, 'k1', { ...wish, ipv4: 2 });
  assert.deepEqual([status, body.error.code, body.error.retryable], [422, 'IDEMPOTENCY_MISMATCH', false]);
  const elsewhere = await call(fixture, 'POST', '/v1/reservations/r/cancel', {}, { 'idempotency-key': 'k1' });
  assert.equal(elsewhere.status, 422);
  assert.equal(await reservations(fixture), 1);
});

test('a refusal is an answer too; a key that is none is refused', async () => {
  const fixture = await withPool();
  const body = { ...wish, id: 'r1' };
  await call(fixture, 'POST', '/v1/reservations', body);
  const first = await reserve(fixture, 'k1', body);
  await call(fixture, 'POST', '/v1/reservations/r1/cancel', {});
  const second = await reserve(fixture, 'k1', body);
  assert.deepEqual([first.status, second.status, second.body], [409, 409, first.body]);
  assert.equal((await reserve(fixture, 'a b')).status, 400);
});

test('two at once: one is carried out, the other told to come again', async () => {
  const fixture = await withPool();
  const answers = await Promise.all([reserve(fixture, 'k1'), reserve(fixture, 'k1')]);
  assert.deepEqual(answers.map(({ status }) => status).sort(), [201, 503]);
  assert.equal(answers.find(({ status }) => status === 503)?.body.error.retryable, true);
  assert.equal(await reservations(fixture), 1);
});

test('an answer whose outcome is unknown is not kept', async () => {
  const fixture = await withPool();
  const { store } = fixture;
  const transact = store.transact.bind(store);
  store.transact = async (compares, writes) => {
    if (writes.some(({ key }) => key.startsWith('reservations/'))) store.failNext('transact', 'refused');
    return transact(compares, writes);
  };
  assert.equal((await reserve(fixture, 'k1')).status, 503);
  assert.deepEqual(await keys(fixture), []);
  store.transact = transact;
  assert.equal((await reserve(fixture, 'k1')).status, 201);
});

test('a claim whose agent ended is taken over after a minute, an answer forgotten after a day', async () => {
  const fixture = await withPool();
  const { clock } = fixture.node;
  await reserve(fixture, 'k1');
  const key = 'idempotency/k1';
  const { hash, at } = (await fixture.store.list(key)).entries[0]!.value as { hash: string; at: string };
  await fixture.store.transact([], [{ kind: 'put', key, value: { hash, at, answer: null } }]);
  clock.advance(59_000);
  assert.equal((await reserve(fixture, 'k1')).status, 503);
  clock.advance(2_000);
  assert.equal((await reserve(fixture, 'k1')).status, 201);
  assert.equal((await reserve(fixture, 'k1')).headers['idempotency-replayed'], 'true');
  clock.advance(86_400_000);
  assert.equal((await reserve(fixture, 'k2')).status, 201);
  assert.deepEqual(await keys(fixture), ['k2'], 'swept');
  assert.equal((await reserve(fixture, 'k1')).headers['idempotency-replayed'], undefined);
});

test('whatever changes something takes a key: a rule is added once, a deletion repeated gets its first answer', async () => {
  const fixture = await withPool();
  const keyed = (method: Method, url: string, key: string, body?: Json) =>
    call(fixture, method, url, body, { 'idempotency-key': key });
  const twice = async (method: Method, url: string, key: string, body?: Json) => {
    const [first, second] = [await keyed(method, url, key, body), await keyed(method, url, key, body)];
    assert.deepEqual([second.status, second.body], [first.status, first.body], url);
    assert.equal(second.headers['etag'], first.headers['etag'], url);
    assert.equal(second.headers['idempotency-replayed'], 'true', url);
    return first;
  };
  assert.equal((await twice('POST', '/v1/profiles', 'p', { name: 'web' })).status, 201);
  await twice('POST', '/v1/profiles/web/rules', 'r', { direction: 'inbound', text: 'allow tcp to ports 80' });
  const { body } = await call(fixture, 'GET', '/v1/profiles/web');
  assert.equal(body.inbound_rules.length, 2);
  assert.equal((await twice('PATCH', '/v1/pools/default', 's', { disabled: true })).status, 200);
  assert.equal((await twice('PUT', '/v1/profiles/web/tags/db', 't')).status, 200);
  assert.equal((await twice('DELETE', '/v1/profiles/web', 'd')).status, 200);
});
