/**
 * Address management over HTTP as a scheduler and an operator use it: reservations, the life of an address, numbers, checks.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Caller, certificateCaller, localCaller } from '../../../src/api/caller.ts';
import type { Json } from '../../../src/store/store.ts';
import { addressRecord, block, call, endpoint, type Fixture, type Method, makeApi, put } from './fixture.ts';

const owner = { tenant: 't', app: 'a', instance: '0' };

async function withPool(overrides: Parameters<typeof makeApi>[0] = {}): Promise<Fixture> {
  const fixture = makeApi(overrides);
  await put(fixture.store, 'nodes/node1', {
    address4: null,
    address6: null,
    version: '0',
    startedAt: '2026-01-01T00:00:00.000Z',
  });
  await call(fixture, 'POST', '/v1/pools', { cidr: '10.1.0.0/24', cooldownSeconds: 60 });
  return fixture;
}

async function ok(fixture: Fixture, method: Method, url: string, body?: Json) {
  const answer = await call(fixture, method, url, body);
  assert.ok(answer.status < 300, `${method} ${url}: ${JSON.stringify(answer.body)}`);
  return answer.body;
}

/** Status and code of a refusal. */
async function refused(fixture: Fixture, method: Method, url: string, body?: Json) {
  const { status, body: answer } = await call(fixture, method, url, body);
  return [status, answer.error?.code];
}

const wish = (more: Record<string, Json> = {}): Json => ({
  tenant: 't',
  app: 'a',
  instances: ['0'],
  ipv4: 1,
  ...more,
});

/** Reserves one address and answers it. */
async function reserved(fixture: Fixture, more: Record<string, Json> = {}): Promise<string> {
  const { addresses } = await ok(fixture, 'POST', '/v1/reservations', wish({ id: 'r1', ...more }));
  return addresses[0].address;
}

describe('reservations', () => {
  test('made, shown, extended, committed to a node, cancelled', async () => {
    const fixture = await withPool();
    const { status, body } = await call(fixture, 'POST', '/v1/reservations', {
      ...(wish({ id: 'r1', instances: ['0', '1'] }) as object),
    });
    assert.deepEqual([status, body.requested, body.addresses.length], [201, 2, 2]);
    assert.deepEqual(
      body.addresses.map(({ owner, generation }: { owner: object; generation: number }) => [
        owner,
        generation,
      ]),
      [
        [owner, 1],
        [{ ...owner, instance: '1' }, 1],
      ],
    );
    const shown = await ok(fixture, 'GET', '/v1/reservations/r1');
    assert.deepEqual([shown.ttlSeconds, shown.node, shown.expiresAt], [300, null, body.expiresAt]);
    const extended = await ok(fixture, 'POST', '/v1/reservations/r1/extend', { ttlSeconds: 900 });
    assert.equal(Date.parse(extended.expiresAt) - Date.parse(body.expiresAt), 600_000);
    const committed = await ok(fixture, 'POST', '/v1/reservations/r1/commit', { node: 'node1' });
    assert.equal(committed.node, 'node1');
    const n2 = { address4: '192.0.2.2', address6: null, version: '0', startedAt: '2026-01-02T03:04:05.000Z' };
    await put(fixture.store, 'nodes/n2', n2);
    await fixture.node.settled();
    assert.deepEqual(await refused(fixture, 'POST', '/v1/reservations/r1/commit', { node: 'n2' }), [
      409,
      'AFFINITY_MISMATCH',
    ]);
    const ids = async (query: string) =>
      (await ok(fixture, 'GET', `/v1/reservations${query}`)).items.map(({ id }: { id: string }) => id);
    assert.deepEqual([await ids(''), await ids('?tenant=t'), await ids('?tenant=u')], [['r1'], ['r1'], []]);
    const { freed } = await ok(fixture, 'POST', '/v1/reservations/r1/cancel', {});
    assert.deepEqual(
      freed,
      body.addresses.map(({ address }: { address: string }) => address),
    );
    assert.deepEqual(await ok(fixture, 'POST', '/v1/reservations/r1/cancel', {}), { freed: [] });
    assert.deepEqual((await fixture.store.list('addresses/')).entries, []);
    assert.deepEqual(await refused(fixture, 'GET', '/v1/reservations/r1'), [404, 'NOT_FOUND']);
  });

  test('without an id one is made up; a repeated id is refused', async () => {
    const fixture = await withPool();
    const first = await ok(fixture, 'POST', '/v1/reservations', wish());
    const second = await ok(fixture, 'POST', '/v1/reservations', wish());
    assert.notEqual(first.id, second.id);
    assert.deepEqual(await refused(fixture, 'POST', '/v1/reservations', wish({ id: first.id })), [
      409,
      'ALREADY_EXISTS',
    ]);
  });

  test('a certificate for one tenant need not name it; one for several, and an operator, must', async () => {
    let caller: Caller = localCaller('root');
    const fixture = await withPool({ callerOf: () => caller });
    const asks = async (tenants: string) => {
      if (tenants !== '') {
        const subjectAltName = tenants.split(' ').map((tenant) => `URI:netctl:scope:reserve:${tenant}`);
        caller = certificateCaller({ subject: 'CN=s', subjectAltName: subjectAltName.join(', ') });
      } else caller = localCaller('root');
      const body = { app: 'a', instances: ['0'], ipv4: 1 };
      const ports = { app: 'a', instance: '0', node: 'node1', ttlSeconds: 60, ports: [{ from: 80 }] };
      const operations = [{ op: 'reserve', ...body }];
      const batch = await call(fixture, 'POST', '/v1/allocations/batch', { operations });
      return [
        await call(fixture, 'POST', '/v1/reservations', body),
        await call(fixture, 'POST', '/v1/capacity', {}),
        { status: batch.body.items[0].status, body: batch.body.items[0] },
        await call(fixture, 'POST', '/v1/port-reservations', ports),
      ];
    };
    const sole = await asks('u');
    assert.deepEqual(
      sole.map(({ status }) => status),
      [201, 200, 200, 201],
      JSON.stringify(sole),
    );
    assert.deepEqual([sole[0]!.body.addresses[0].owner.tenant, sole[3]!.body.tenant], ['u', 'u']);
    for (const [tenants, accepted] of [
      ['u v', /^tenant: nothing given: expected one of u, v$/],
      ['', /^tenant: nothing given: expected the name of a tenant/],
    ] as const)
      for (const { status, body } of await asks(tenants))
        assert.deepEqual([status, accepted.test(body.error.message)], [400, true], body.error.message);
  });

  test('best-effort answers 202 with fewer; all answers nothing', async () => {
    const fixture = await withPool();
    await call(fixture, 'PATCH', '/v1/pools/default', { ranges: ['10.1.0.10-10.1.0.11'] });
    assert.deepEqual(await refused(fixture, 'POST', '/v1/reservations', wish({ ipv4: 3 })), [
      409,
      'POOL_EXHAUSTED',
    ]);
    const { status, body } = await call(
      fixture,
      'POST',
      '/v1/reservations',
      wish({ ipv4: 3, mode: 'best-effort' }),
    );
    assert.deepEqual([status, body.requested, body.addresses.length], [202, 3, 2]);
  });

  test('one that is over: 410; of another tenant: 403; beyond a quota: 403; beyond the limit of a node: 409', async () => {
    const fixture = await withPool();
    await put(fixture.store, 'tenants/small', { maxAddresses: 1 });
    await call(fixture, 'PATCH', '/v1/pools/default', { maxAddressesPerNode: 1 });
    await reserved(fixture, { node: 'node1' });
    const path = '/v1/reservations/r1/extend';
    assert.deepEqual(await refused(fixture, 'POST', path, { ttlSeconds: 9, tenant: 'u' }), [
      403,
      'NOT_OWNER',
    ]);
    const more = wish({ tenant: 'small', ipv4: 2 });
    assert.deepEqual(await refused(fixture, 'POST', '/v1/reservations', more), [403, 'QUOTA_EXCEEDED']);
    const here = wish({ node: 'node1' });
    assert.deepEqual(await refused(fixture, 'POST', '/v1/reservations', here), [409, 'NODE_LIMIT']);
    fixture.node.clock.advance(301_000);
    assert.deepEqual(await refused(fixture, 'POST', path, { ttlSeconds: 9 }), [410, 'RESERVATION_EXPIRED']);
  });
});

describe('the life of an address', () => {
  test('reserved, bound, active, unbound and kept, bound elsewhere, released', async () => {
    const fixture = await withPool();
    const elsewhere = { address4: null, address6: null, version: '0', startedAt: '2026-01-01T00:00:00.000Z' };
    await put(fixture.store, 'nodes/node2', elsewhere);
    await fixture.node.settled();
    const address = await reserved(fixture, { onRelease: 'immutable' });
    const at = (verb: string) => `/v1/allocations/${address}/${verb}`;
    const bind = { generation: 1, container: 'c1' };
    const first = await ok(fixture, 'POST', at('bind'), bind);
    assert.equal(first.generation, 2);
    assert.deepEqual(await ok(fixture, 'POST', at('bind'), bind), first, 'repeated, nothing more is done');
    assert.deepEqual(await refused(fixture, 'POST', at('bind'), { generation: 1, container: 'c2' }), [
      412,
      'STALE_GENERATION',
    ]);
    const other = { generation: 2, tenant: 'u' };
    assert.deepEqual(await refused(fixture, 'POST', at('activate'), other), [403, 'NOT_OWNER']);
    assert.equal((await ok(fixture, 'POST', at('activate'), { generation: 2 })).generation, 2);
    assert.deepEqual(await refused(fixture, 'POST', at('release'), { generation: 2 }), [409, 'IN_USE']);
    const unbind = async (container: string) =>
      (await ok(fixture, 'POST', at('unbind'), { container })).outcome;
    assert.deepEqual([await unbind('c9'), await unbind('c1')], ['unknown', 'retained']);
    const again = await ok(fixture, 'POST', at('bind'), { generation: 3, container: 'c2', node: 'node2' });
    assert.deepEqual([again.generation, again.mac], [4, first.mac]);
    assert.equal(await unbind('c2'), 'retained');
    const released = await ok(fixture, 'POST', at('release'), { generation: 5 });
    assert.deepEqual(released, { address, outcome: 'cooldown', forced: false });
    assert.deepEqual(fixture.forced, []);
  });

  test('transferred: the old container is named and its generation is stale', async () => {
    const fixture = await withPool();
    const address = await reserved(fixture);
    const at = (verb: string) => `/v1/allocations/${address}/${verb}`;
    await ok(fixture, 'POST', at('bind'), { generation: 1, container: 'c1' });
    const toOwner = { ...owner, instance: '7' };
    const { generation, was } = await ok(fixture, 'POST', at('transfer'), { generation: 2, toOwner });
    assert.deepEqual([generation, was.container, was.owner], [3, 'c1', owner]);
    const stale = { container: 'c1', generation: 2 };
    assert.equal((await ok(fixture, 'POST', at('unbind'), stale)).outcome, 'unknown');
    assert.deepEqual(await refused(fixture, 'POST', at('activate'), { generation: 2 }), [
      412,
      'STALE_GENERATION',
    ]);
    const { items } = await ok(fixture, 'GET', '/v1/allocations?instance=7');
    assert.deepEqual([items.length, items[0].state, items[0].owner], [1, 'retained', toOwner]);
  });

  test('quarantined: nobody can bind it', async () => {
    const fixture = await withPool();
    const address = await reserved(fixture);
    const mac = '02:00:00:00:00:99';
    const record = await ok(fixture, 'POST', '/v1/conflicts', { address, mac });
    assert.deepEqual(
      [record.state, record.conflict.mac, record.conflict.node],
      ['quarantined', mac, 'node1'],
    );
    const bind = { generation: record.generation, container: 'c1' };
    assert.deepEqual(await refused(fixture, 'POST', `/v1/allocations/${address}/bind`, bind), [
      409,
      'ADDRESS_QUARANTINED',
    ]);
  });

  test('by force also what is in use; who did that is told, and whose it was', async () => {
    const fixture = await withPool();
    const address = await reserved(fixture);
    await ok(fixture, 'POST', `/v1/allocations/${address}/bind`, { generation: 1, container: 'c1' });
    const path = `/v1/allocations/${address}/release`;
    assert.deepEqual(await refused(fixture, 'POST', path, {}), [400, 'INVALID']);
    assert.deepEqual(await refused(fixture, 'POST', path, { force: true, tenant: 't' }), [400, 'INVALID']);
    assert.deepEqual(fixture.forced, []);
    assert.equal((await ok(fixture, 'POST', path, { force: true })).forced, true);
    assert.deepEqual(fixture.forced, [
      {
        actor: 'uid 0, process 4712',
        action: 'release',
        what: address,
        was: { owner: 't/a/0', node: 'node1', container: 'c1' },
      },
    ]);
  });

  test('what an owner keeps goes with the owner, what is kept for ever by force', async () => {
    const fixture = await withPool();
    const kept = await reserved(fixture, { onRelease: 'never' });
    await ok(fixture, 'POST', `/v1/allocations/${kept}/bind`, { generation: 1, container: 'c1' });
    await ok(fixture, 'POST', `/v1/allocations/${kept}/unbind`, { container: 'c1' });
    const release = (force: boolean) => ok(fixture, 'POST', '/v1/allocations/release', { owner, force });
    assert.deepEqual(await release(false), { freed: [], later: [], kept: [kept] });
    assert.deepEqual(await release(true), { freed: [kept], later: [], kept: [] });
    assert.deepEqual(
      fixture.forced.map(({ action, what }) => [action, what]),
      [['release-owner', 't/a/0']],
    );
  });
});

describe('an address about which another node decides alone', () => {
  test('is left to that node’s agent; transferred by force, it is everybody’s', async () => {
    const fixture = await withPool();
    await put(fixture.store, 'blocks/10.1.0.0-26', { ...(block as object), node: 'node2' });
    const record = addressRecord({ owner, node: 'node2', endpoint: null, container: 'c1' });
    await put(fixture.store, 'addresses/10.1.0.7', record);
    await fixture.node.settled();
    const path = '/v1/allocations/10.1.0.7';
    const fence = { generation: 1 };
    for (const [verb, body] of Object.entries({
      bind: { ...fence, container: 'c1' },
      activate: fence,
      unbind: { container: 'c1' },
      transfer: fence,
      release: { ...fence, force: true },
    })) {
      const answer = await refused(fixture, 'POST', `${path}/${verb}`, body);
      assert.deepEqual(answer, [409, 'AFFINITY_MISMATCH'], verb);
    }
    const conflict = { address: '10.1.0.7', mac: '02:00:00:00:00:99' };
    assert.deepEqual(await refused(fixture, 'POST', '/v1/conflicts', conflict), [409, 'AFFINITY_MISMATCH']);
    assert.deepEqual((await fixture.store.get('addresses/10.1.0.7'))?.value, record);
    assert.deepEqual(fixture.forced, []);
    await ok(fixture, 'POST', `${path}/transfer`, { ...fence, force: true });
    assert.equal((await ok(fixture, 'POST', `${path}/release`, { generation: 2 })).outcome, 'cooldown');
    assert.deepEqual(
      fixture.forced.map(({ action, what }) => [action, what]),
      [['transfer', '10.1.0.7']],
    );
  });
});

describe('allocations', () => {
  test('filtered by each of its fields, an address in cooldown is nobody’s', async () => {
    const fixture = await withPool();
    const other = { tenant: 'u', app: 'b', instance: '1' };
    await put(fixture.store, 'addresses/10.1.0.7', addressRecord({ owner }));
    await put(
      fixture.store,
      'addresses/10.1.0.8',
      addressRecord({ owner: other, node: 'node2', state: 'bound' }),
    );
    await put(
      fixture.store,
      'addresses/10.1.0.9',
      addressRecord({ owner, state: 'cooldown', cooldownUntil: '2026-01-02T03:05:05.000Z' }),
    );
    await fixture.node.settled();
    // biome-ignore format: a table
    const cases: [string, string[]][] = [
      ['', ['7', '8', '9']],
      ['ip=10.1.0.8', ['8']],
      ['ip=10.1.0.6', []],
      ['tenant=t', ['7']],
      ['tenant=t&app=a&instance=0', ['7']],
      ['app=b', ['8']],
      ['node=node1', ['7', '9']],
      ['state=bound', ['8']],
      ['state=cooldown', ['9']],
      ['pool=default', ['7', '8', '9']],
      ['pool=none', []],
      ['ip=10.1.0.8&tenant=t', []],
    ];
    for (const [query, expected] of cases) {
      const { items } = await ok(fixture, 'GET', `/v1/allocations?${query}`);
      assert.deepEqual(
        items.map(({ address }: { address: string }) => address),
        expected.map((last) => `10.1.0.${last}`),
        query,
      );
    }
  });

  test('page after page, each address once', async () => {
    const fixture = await withPool();
    const all = Array.from({ length: 23 }, (_, i) => `10.1.0.${250 - i * 7}`);
    for (const address of all) await put(fixture.store, `addresses/${address}`, addressRecord());
    await fixture.node.settled();
    const seen: string[] = [];
    const sizes: number[] = [];
    for (let cursor = ''; ; ) {
      const { items, next } = await ok(fixture, 'GET', `/v1/allocations?limit=10${cursor}`);
      sizes.push(items.length);
      seen.push(...items.map(({ address }: { address: string }) => address));
      if (next === null) break;
      cursor = `&cursor=${next}`;
    }
    assert.deepEqual([sizes, seen], [[10, 10, 3], all.toSorted()]);
  });
});

describe('numbers', () => {
  test('capacity of nodes, with the reason why it is not more', async () => {
    const fixture = await withPool();
    await call(fixture, 'PATCH', '/v1/pools/default', { maxAddressesPerNode: 5 });
    await put(fixture.store, 'tenants/small', { maxAddresses: 2 });
    await reserved(fixture, { node: 'node1' });
    const { nodes, pools, quotaLeft } = await ok(fixture, 'POST', '/v1/capacity', { tenant: 't' });
    assert.deepEqual(nodes, [
      { node: 'node1', available4: 4, available6: 0, limitReason: 'maxAddressesPerNode of pool default' },
    ]);
    assert.deepEqual(
      [pools[0].capacity, pools[0].excluded, pools[0].available, quotaLeft],
      [256, 2, 253, null],
    );
    const small = await ok(fixture, 'POST', '/v1/capacity', { tenant: 'small', nodes: ['node1', 'node2'] });
    assert.deepEqual(
      small.nodes.map(({ available4 }: { available4: number }) => available4),
      [2, 0],
    );
    assert.equal(small.nodes[1].limitReason, 'there is no node of that name');
    assert.equal(small.quotaLeft, 2);
  });

  test('utilisation by pool, node, tenant and app', async () => {
    const fixture = await withPool();
    const address = await reserved(fixture, { node: 'node1' });
    await ok(fixture, 'POST', `/v1/allocations/${address}/bind`, { generation: 1, container: 'c1' });
    await ok(fixture, 'POST', '/v1/reservations', wish({ id: 'r2', tenant: 'u' }));
    const by = async (query: string) =>
      (await ok(fixture, 'GET', `/v1/utilization?by=${query}`)).items.map(
        ({ key, inUse, reserved, bound, available }: Record<string, unknown>) => [
          key,
          inUse,
          reserved,
          bound,
          available,
        ],
      );
    assert.deepEqual(await by('pool'), [['default', 2, 1, 1, 252]]);
    assert.deepEqual(await by('node'), [['node1', 1, 0, 1, undefined]]);
    assert.deepEqual(await by('tenant'), [
      ['t', 1, 0, 1, undefined],
      ['u', 1, 1, 0, undefined],
    ]);
    assert.deepEqual(await by('app&tenant=u'), [['u/a', 1, 1, 0, undefined]]);
  });
});

describe('check', () => {
  async function withFindings(): Promise<Fixture> {
    const fixture = await withPool();
    await put(fixture.store, 'blocks/10.1.0.0-26', block);
    await put(fixture.store, 'blocks/10.1.0.64-26', { ...(block as object), node: 'node2' });
    await put(fixture.store, 'addresses/10.1.0.7', addressRecord({ owner, endpoint: 'gone' }));
    await put(fixture.store, 'owners/t/a/0/10.1.0.7', { pool: 'default' });
    await put(
      fixture.store,
      'addresses/10.1.0.70',
      addressRecord({ owner, node: 'node2', endpoint: 'gone' }),
    );
    await put(fixture.store, 'owners/t/a/0/10.1.0.70', { pool: 'default' });
    for (const id of ['ep1', 'ep2'])
      await put(fixture.store, `endpoints/node1/${id}`, endpoint({ addresses: ['10.1.0.9'] }));
    return fixture;
  }
  const short = (items: Record<string, unknown>[]) =>
    items.map(({ kind, address, fixable, outcome }) => [kind, address, fixable, outcome]);

  test('shown with the plan, and nothing is written', async () => {
    const fixture = await withFindings();
    const before = await fixture.store.list('');
    const { items } = await ok(fixture, 'GET', '/v1/ipam/check');
    assert.deepEqual(short(items), [
      ['leaked', '10.1.0.7', true, undefined],
      ['leaked', '10.1.0.70', false, undefined],
      ['duplicate', '10.1.0.9', false, undefined],
    ]);
    assert.match(items[1].action, /on node node2, which decides about its block alone/);
    const unfixed = await ok(fixture, 'POST', '/v1/ipam/check', {});
    assert.deepEqual(unfixed.remaining, items);
    assert.deepEqual(await fixture.store.list(''), before);
  });

  test('fixed: what this agent may, and what a second look finds', async () => {
    const fixture = await withFindings();
    const { items, remaining } = await ok(fixture, 'POST', '/v1/ipam/check', { fix: true });
    assert.deepEqual(short(items), [
      ['leaked', '10.1.0.7', true, 'fixed'],
      ['leaked', '10.1.0.70', false, 'left'],
      ['duplicate', '10.1.0.9', false, 'left'],
    ]);
    assert.deepEqual(
      remaining.map(({ address }: { address: string }) => address),
      ['10.1.0.70', '10.1.0.9'],
    );
    await fixture.node.settled();
    assert.equal((await ok(fixture, 'GET', '/v1/allocations?ip=10.1.0.7')).items[0].state, 'cooldown');
    assert.equal((await ok(fixture, 'GET', '/v1/allocations?ip=10.1.0.70')).items[0].state, 'active');
  });

  test('records that change between the look and the repair are left alone', async () => {
    const fixture = await withFindings();
    const { store } = fixture;
    const transact = store.transact.bind(store);
    store.transact = async (compares, writes) => {
      store.transact = transact;
      await put(store, 'addresses/10.1.0.7', addressRecord({ owner, endpoint: 'gone', generation: 9 }));
      return transact(compares, writes);
    };
    const { items } = await ok(fixture, 'POST', '/v1/ipam/check', { fix: true });
    assert.equal(items[0].outcome, 'changed');
    const kept = (await store.get('addresses/10.1.0.7'))?.value as { state: string; generation: number };
    assert.deepEqual([kept.state, kept.generation], ['active', 9]);
  });
});

test('two imports of the same lines at once: the second finds all there', async () => {
  const fixture = makeApi();
  await call(fixture, 'POST', '/v1/pools', { cidr: '10.1.0.0/16' });
  const payload = Array.from({ length: 200 }, (_, i) => `10.1.7.${i + 1} shop/a/i${i}`).join('\n');
  const headers = { 'content-type': 'text/plain' };
  const again = () => fixture.api.inject({ method: 'POST', url: '/v1/import?tenant=t', headers, payload });
  const answers = (await Promise.all([again(), again()])).map((answer) => answer.json());
  assert.deepEqual(answers.map(({ imported, unchanged, refused }) => [imported, unchanged, refused]).sort(), [
    [0, 200, 0],
    [200, 0, 0],
  ]);
});
