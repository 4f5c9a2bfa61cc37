/** X-Request-Timeout-Ms: what cannot be done in time is not begun, by what such requests took of late. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { MemoryStore } from '../../../src/store/memory.ts';
import { call, healthy, makeApi } from './fixture.ts';

const body = { tenant: 't', app: 'a', instances: ['0'], ipv4: 1 };
const within = (milliseconds: number) => ({ 'x-request-timeout-ms': String(milliseconds) });

test('requests that are slow of late refuse short budgets, for a minute', async () => {
  const fixture = makeApi();
  await call(fixture, 'POST', '/v1/pools', { cidr: '10.1.0.0/24' });
  const transact = MemoryStore.prototype.transact.bind(fixture.store);
  fixture.store.transact = async (...args) => {
    await pause(150);
    return transact(...args);
  };
  assert.equal(
    (await call(fixture, 'POST', '/v1/reservations', body, within(50))).status,
    201,
    'nothing is known yet',
  );
  fixture.store.transact = transact;
  const { revision } = await fixture.store.list('');
  const refused = await call(fixture, 'POST', '/v1/reservations', body, within(50));
  assert.deepEqual(
    [refused.status, refused.body.error.code, refused.body.error.retryable],
    [408, 'BUDGET_INSUFFICIENT', true],
  );
  assert.ok(refused.body.error.details.expectedMs >= 120);
  assert.equal((await fixture.store.list('')).revision, revision, 'nothing was done');
  assert.equal((await call(fixture, 'POST', '/v1/reservations', body, within(60_000))).status, 201);
  assert.equal(
    (await call(fixture, 'GET', '/v1/reservations', undefined, within(0))).status,
    200,
    'reading is free',
  );
  fixture.node.clock.advance(61_000);
  assert.equal(
    (await call(fixture, 'POST', '/v1/reservations', body, within(50))).status,
    201,
    'that is long ago',
  );
});

test('while the cluster does not answer, three seconds are needed', async () => {
  const cluster = {
    reachable: false,
    since: null,
    error: null,
    held: null,
    waiting: 0,
    oldest: null,
    dropped: 0,
    lease: { held: false, since: '', error: null },
  };
  const fixture = makeApi({ status: () => ({ ...healthy, store: { ...healthy.store, cluster } }) });
  await call(fixture, 'POST', '/v1/pools', { cidr: '10.1.0.0/24' });
  assert.equal((await call(fixture, 'POST', '/v1/reservations', body, within(2900))).status, 408);
  assert.equal((await call(fixture, 'POST', '/v1/reservations', body, within(3200))).status, 201);
  assert.equal((await call(fixture, 'POST', '/v1/reservations', body, within(-1))).status, 400);
});
