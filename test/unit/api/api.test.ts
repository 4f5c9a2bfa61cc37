/**
 * The HTTP API by injected requests: what it answers, and what stands in the store afterwards.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { problemsOf } from '../../../src/api/status.ts';
import { addressRecord, block, call, endpoint, type Fixture, healthy, makeApi, put } from './fixture.ts';

const web = { id: 'web', inbound_rules: [{ action: 'allow', src_tag: 'lb' }], outbound_rules: [] };

describe('pools', () => {
  test('the first without a name is default, the next are called after their prefix, in canonical form', async () => {
    const fixture = makeApi();
    const names = [];
    for (const cidr of ['10.1.0.0/16', '10.2.0.0/16', 'fd00:0:0:1::/64']) {
      const { status, body } = await call(fixture, 'POST', '/v1/pools', { cidr });
      assert.equal(status, 201);
      names.push(body.item.name);
    }
    assert.deepEqual(names, ['default', '10.2.0.0-16', 'fd00-0-0-1---64']);
    const { body } = await call(fixture, 'GET', '/v1/pools');
    assert.deepEqual(
      body.items.map(({ name, cidr, blockSize }: { name: string; cidr: string; blockSize: number }) => [
        name,
        cidr,
        blockSize,
      ]),
      [
        ['10.2.0.0-16', '10.2.0.0/16', 26],
        ['default', '10.1.0.0/16', 26],
        ['fd00-0-0-1---64', 'fd00:0:0:1::/64', 122],
      ],
    );
  });

  test('two overlapping ones at the same time: one of them', async () => {
    const fixture = makeApi();
    const bodies = [{ cidr: '10.0.0.0/8' }, { cidr: '10.1.0.0/16' }, { cidr: '10.1.2.0/24' }];
    const answers = await Promise.all(bodies.map((body) => call(fixture, 'POST', '/v1/pools', body)));
    assert.deepEqual(answers.map(({ status }) => status).sort(), [201, 422, 422]);
    assert.equal((await fixture.store.list('pools/')).entries.length, 1);
  });

  test('what set does not name stays', async () => {
    const fixture = makeApi();
    await call(fixture, 'POST', '/v1/pools', {
      cidr: '10.1.0.0/16',
      excludes: ['10.1.0.1'],
      cooldownSeconds: 5,
    });
    const { body, headers } = await call(fixture, 'PATCH', '/v1/pools/default', { disabled: true });
    const { excludes, cooldownSeconds, disabled } = body.item;
    assert.deepEqual(
      { excludes, cooldownSeconds, disabled },
      { excludes: ['10.1.0.1/32'], cooldownSeconds: 5, disabled: true },
    );
    assert.equal(headers['etag'], `"${body.revision}"`);
    const again = await call(fixture, 'PATCH', '/v1/pools/default', { disabled: true });
    assert.equal(again.body.revision, body.revision, 'no change, no write');
  });

  test('who may take what from a pool is set, changed and cleared, and holds for what is given out', async () => {
    const fixture = makeApi();
    const rules = {
      nodeSelector: 'rack == "r1"',
      gateway: '10.1.0.1',
      ranges: ['10.1.0.0-10.1.0.3'],
      tenants: ['t'],
      maxBlocksPerNode: 2,
      maxAddressesPerNode: 3,
    };
    const made = await call(fixture, 'POST', '/v1/pools', { cidr: '10.1.0.0/16', ...rules });
    for (const [field, value] of Object.entries(rules)) assert.deepEqual(made.body.item[field], value, field);
    const reserve = (tenant: string) =>
      call(fixture, 'POST', '/v1/reservations', { tenant, app: 'a', instances: ['0'], ipv4: 1 });
    assert.equal((await reserve('u')).body.error.code, 'POOL_NOT_FOUND');
    assert.equal((await reserve('t')).body.addresses[0].gateway, '10.1.0.1');
    const cleared = { nodeSelector: null, gateway: null, ranges: [], tenants: [], maxAddressesPerNode: null };
    const { body } = await call(fixture, 'PATCH', '/v1/pools/default', cleared);
    for (const [field, value] of Object.entries({ ...cleared, maxBlocksPerNode: 2 }))
      assert.deepEqual(body.item[field], value, field);
    assert.equal((await reserve('u')).status, 201);
  });

  test('not removed while addresses or blocks are out, with their number', async () => {
    const fixture = makeApi();
    await call(fixture, 'POST', '/v1/pools', { cidr: '10.1.0.0/16' });
    await put(fixture.store, 'blocks/10.1.0.0-26', block);
    await put(fixture.store, 'addresses/10.1.0.7', addressRecord());
    await put(
      fixture.store,
      'addresses/10.1.0.8',
      addressRecord({ state: 'cooldown', cooldownUntil: '2026-01-02T03:05:05.000Z' }),
    );
    const refused = await call(fixture, 'DELETE', '/v1/pools/default');
    assert.equal(refused.status, 409);
    assert.match(refused.body.error.message, /2 addresses \(1 in cooldown\), 1 block claimed by node1/);
    for (const key of ['addresses/10.1.0.7', 'addresses/10.1.0.8'])
      await fixture.store.transact([], [{ kind: 'delete', key }]);
    assert.equal((await call(fixture, 'DELETE', '/v1/pools/default')).status, 409);
    await fixture.store.transact([], [{ kind: 'delete', key: 'blocks/10.1.0.0-26' }]);
    assert.equal((await call(fixture, 'DELETE', '/v1/pools/default')).status, 200);
    assert.equal(await fixture.store.get('pools/default'), null);
  });
});

describe('profiles', () => {
  async function withProfile(): Promise<Fixture> {
    const fixture = makeApi();
    await call(fixture, 'POST', '/v1/profiles', { name: 'web' });
    return fixture;
  }

  test('a new one has its own tag, allows it in and everything out', async () => {
    const { body } = await call(await withProfile(), 'GET', '/v1/profiles/web');
    const { revision: _, ...profile } = body;
    assert.deepEqual(profile, {
      name: 'web',
      tags: ['web'],
      inbound_rules: [{ action: 'allow', src_tag: 'web' }],
      outbound_rules: [{ action: 'allow' }],
      text: { inbound: ['allow from tag web'], outbound: ['allow'] },
    });
  });

  test('an update replaces the rules and keeps the tags; the same again writes nothing', async () => {
    const fixture = await withProfile();
    await call(fixture, 'PUT', '/v1/profiles/web/tags/front');
    const first = await call(fixture, 'PUT', '/v1/profiles/web/rules', web);
    assert.deepEqual(first.body.item.tags, ['web', 'front']);
    assert.deepEqual(first.body.item.inbound_rules, web.inbound_rules);
    const second = await call(fixture, 'PUT', '/v1/profiles/web/rules', web);
    assert.equal(second.body.revision, first.body.revision);
    assert.deepEqual(fixture.waitedFor.slice(-2), [first.body.revision, first.body.revision]);
  });

  test('rules are added at the end or at a position, and removed by position or by words', async () => {
    const fixture = await withProfile();
    const inbound = async () => (await call(fixture, 'GET', '/v1/profiles/web')).body.text.inbound;
    await call(fixture, 'POST', '/v1/profiles/web/rules', {
      direction: 'inbound',
      text: 'allow tcp to ports 80,443',
    });
    await call(fixture, 'POST', '/v1/profiles/web/rules', {
      direction: 'inbound',
      rule: { action: 'deny', src_net: '10.9.0.0/16' },
      at: 1,
    });
    assert.deepEqual(await inbound(), [
      'deny from cidr 10.9.0.0/16',
      'allow from tag web',
      'allow tcp to ports 80,443',
    ]);
    await call(fixture, 'POST', '/v1/profiles/web/rules', {
      direction: 'inbound',
      text: 'allow  tcp to ports 80,443',
    });
    assert.equal((await inbound()).length, 3, 'the very rule is there already');
    await call(fixture, 'DELETE', '/v1/profiles/web/rules/inbound?at=2');
    await call(
      fixture,
      'DELETE',
      `/v1/profiles/web/rules/inbound?text=${encodeURIComponent('deny from cidr 10.9.0.0/16')}`,
    );
    assert.deepEqual(await inbound(), ['allow tcp to ports 80,443']);
  });

  test('tags added at the same time are all there', async () => {
    const fixture = await withProfile();
    const tags = ['a', 'b', 'c', 'd', 'e'];
    const answers = await Promise.all(
      tags.map((tag) => call(fixture, 'PUT', `/v1/profiles/web/tags/${tag}`)),
    );
    assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
    const { body } = await call(fixture, 'GET', '/v1/profiles/web');
    assert.deepEqual([...body.tags].sort(), [...tags, 'web']);
  });

  test('rules removed by position at the same time: one wins, the others are told to look again', async () => {
    const fixture = await withProfile();
    for (const port of [1, 2, 3]) {
      await call(fixture, 'POST', '/v1/profiles/web/rules', {
        direction: 'inbound',
        text: `allow tcp to ports ${port}`,
      });
    }
    const remove = () => call(fixture, 'DELETE', '/v1/profiles/web/rules/inbound?at=1');
    const answers = await Promise.all([remove(), remove()]);
    assert.deepEqual(answers.map(({ status }) => status).sort(), [200, 409]);
    assert.equal((await call(fixture, 'GET', '/v1/profiles/web')).body.text.inbound.length, 3);
  });

  test('If-Match: the revision of the ETag passes, another is refused with 412, nonsense with 400', async () => {
    const fixture = await withProfile();
    const { headers } = await call(fixture, 'GET', '/v1/profiles/web');
    const etag = String(headers['etag']);
    const stale = await call(fixture, 'PUT', '/v1/profiles/web/rules', web, { 'if-match': '"999"' });
    assert.deepEqual([stale.status, stale.body.error.code], [412, 'PRECONDITION_FAILED']);
    assert.equal(
      (await call(fixture, 'PUT', '/v1/profiles/web/rules', web, { 'if-match': 'x' })).status,
      400,
    );
    assert.equal(
      (await call(fixture, 'PUT', '/v1/profiles/web/rules', web, { 'if-match': etag })).status,
      200,
    );
    assert.equal(
      (await call(fixture, 'DELETE', '/v1/profiles/web', undefined, { 'if-match': etag })).status,
      412,
    );
    assert.equal(
      (await call(fixture, 'DELETE', '/v1/profiles/web', undefined, { 'if-match': '*' })).status,
      200,
    );
  });

  test('one in use is removed by force only', async () => {
    const fixture = await withProfile();
    for (let i = 0; i < 7; i++) await put(fixture.store, `endpoints/node1/ep${i}`, endpoint());
    const refused = await call(fixture, 'DELETE', '/v1/profiles/web?force=false');
    assert.match(refused.body.error.message, /ep4 on node1 and 2 more/);
    assert.equal((await call(fixture, 'DELETE', '/v1/profiles/web?force=true')).status, 200);
    assert.equal(await fixture.store.get('profiles/web'), null);
  });
});

describe('endpoints', () => {
  async function withEndpoints(): Promise<Fixture> {
    const fixture = makeApi();
    for (const name of ['web', 'db']) await call(fixture, 'POST', '/v1/profiles', { name });
    await put(
      fixture.store,
      'endpoints/node2/bbbb',
      endpoint({ containerId: 'c-two', addresses: ['10.1.0.9'] }),
    );
    await put(fixture.store, 'endpoints/node1/aaaa2', endpoint({ containerId: 'c-three', addresses: [] }));
    await put(fixture.store, 'endpoints/node1/aaaa1', endpoint());
    return fixture;
  }

  test('listed by node and id, of one node on request', async () => {
    const fixture = await withEndpoints();
    const ids = async (url: string) =>
      (await call(fixture, 'GET', url)).body.items.map(({ id }: { id: string }) => id);
    assert.deepEqual(await ids('/v1/endpoints'), ['aaaa1', 'aaaa2', 'bbbb']);
    assert.deepEqual(await ids('/v1/endpoints?node=node2'), ['bbbb']);
  });

  test('found by id, container id, address, or the beginning of an id when it is the only one', async () => {
    const fixture = await withEndpoints();
    for (const [wanted, id] of [
      ['aaaa1', 'aaaa1'],
      ['c-two', 'bbbb'],
      ['10.1.0.9', 'bbbb'],
      ['bb', 'bbbb'],
      ['0123', 'aaaa1'],
    ]) {
      assert.equal((await call(fixture, 'GET', `/v1/endpoints/${wanted}`)).body.id, id);
    }
    const ambiguous = await call(fixture, 'GET', '/v1/endpoints/aaaa');
    assert.equal(ambiguous.status, 409);
    assert.match(ambiguous.body.error.message, /may mean aaaa1, aaaa2/);
    assert.equal((await call(fixture, 'GET', '/v1/endpoints/aaaa1?node=node2')).status, 404);
  });

  test('profiles are appended, removed and set; all else of the record stays', async () => {
    const fixture = await withEndpoints();
    const change = async (action: string, profiles: string[]) => {
      const { body } = await call(fixture, 'POST', '/v1/endpoints/aaaa1/profiles', { action, profiles });
      return body.item.profiles;
    };
    assert.deepEqual(await change('append', ['db', 'web']), ['web', 'db']);
    assert.deepEqual(await change('remove', ['web']), ['db']);
    assert.deepEqual(await change('set', ['web', 'db', 'web']), ['web', 'db']);
    assert.deepEqual(await change('set', []), []);
    const { value } = (await fixture.store.get('endpoints/node1/aaaa1')) ?? {};
    assert.deepEqual(value, endpoint({ profiles: [] }));
  });
});

describe('addresses', () => {
  test('usage, blocks and addresses in the order of their numbers', async () => {
    const fixture = makeApi();
    await call(fixture, 'POST', '/v1/pools', { cidr: '10.1.0.0/16' });
    for (const cidr of ['10.1.2.0-26', '10.1.10.0-26']) await put(fixture.store, `blocks/${cidr}`, block);
    for (const ip of ['10.1.10.1', '10.1.2.1', 'fd00::1'])
      await put(fixture.store, `addresses/${ip}`, addressRecord());
    const list = async (url: string) => (await call(fixture, 'GET', url)).body.items;
    assert.deepEqual(await list('/v1/ipam/usage'), [
      { pool: 'default', cidr: '10.1.0.0/16', size: '65536', used: 3, cooldown: 0, blocks: 2, nodes: 1 },
    ]);
    const blocks = await list('/v1/ipam/blocks');
    assert.deepEqual(
      blocks.map(({ cidr, used, size }: { cidr: string; used: number; size: string }) => [cidr, used, size]),
      [
        ['10.1.2.0/26', 1, '64'],
        ['10.1.10.0/26', 1, '64'],
      ],
    );
    const addresses = await list('/v1/ipam/addresses?node=node1');
    assert.deepEqual(
      addresses.map(({ address }: { address: string }) => address),
      ['10.1.2.1', '10.1.10.1', 'fd00::1'],
    );
    assert.equal((await call(fixture, 'GET', '/v1/ipam/addresses/fd00:0::1')).body.owner.instance, 'c1');
  });
});

describe('the agent', () => {
  test('a change that is not in force in time is answered all the same, and says so', async () => {
    const fixture = makeApi({ applied: () => Promise.reject(new Error('not within 5 s')) });
    const { status, body } = await call(fixture, 'POST', '/v1/profiles', { name: 'web' });
    assert.deepEqual([status, body.applied, body.revision], [201, false, 1]);
  });

  test('a store that does not answer is 503 and worth a retry, and the change is not repeated', async () => {
    const fixture = makeApi();
    fixture.store.failNext('transact', 'ambiguous');
    const { status, body } = await call(fixture, 'POST', '/v1/profiles', { name: 'web' });
    assert.deepEqual([status, body.error.code, body.error.retryable], [503, 'STORE_UNAVAILABLE', true]);
    assert.equal((await fixture.store.list('')).revision, 1);
  });

  test('a record that is not valid is refused by its name, with what to do', async () => {
    const fixture = makeApi();
    await put(fixture.store, 'profiles/web', { tags: 1 });
    const { status, body } = await call(fixture, 'GET', '/v1/profiles/web');
    assert.deepEqual([status, body.error.code], [409, 'RECORD_BROKEN']);
    assert.match(body.error.message, /profiles\/web: .*delete it/);
    assert.deepEqual(fixture.bugs, []);
  });

  test('status names every problem', async () => {
    assert.deepEqual(problemsOf(healthy), []);
    const status = {
      ...healthy,
      store: { ...healthy.store, inSync: false, error: 'disk full', refusal: 'no space is left for it' },
      policy: { ...healthy.policy, inSync: false },
      endpoints: { total: 1, unhealthy: [{ endpoint: 'ep1', reason: 'no route' }] },
      guard: { held: [{ what: '40 endpoints', reason: 'the store looks empty' }] },
    };
    const { body } = await call(makeApi({ status: () => status }), 'GET', '/v1/status');
    assert.equal(body.healthy, false);
    assert.deepEqual(body.problems, [
      'store: not in sync: disk full',
      'store: the last change was not taken: no space is left for it',
      'policy: not in sync with the kernel',
      'endpoint ep1: no route',
      'held back: 40 endpoints: the store looks empty',
    ]);
  });

  test('nodes, version and configuration', async () => {
    const fixture = makeApi();
    const node = {
      address4: '192.0.2.1',
      address6: null,
      version: '0.1.0',
      startedAt: '2026-01-02T03:04:05.000Z',
    };
    await put(fixture.store, 'nodes/node1', node);
    const { body } = await call(fixture, 'GET', '/v1/nodes');
    assert.deepEqual(body.items, [
      {
        name: 'node1',
        ...node,
        ...{ asNumber: null, interface: null, labels: {}, bgpPort: null, routeReflectorClusterId: null },
        ...{ alive: true, since: node.startedAt, problems: [], state: null, revision: 1 },
      },
    ]);
    assert.deepEqual((await call(fixture, 'GET', '/v1/version')).body, { version: '0.1.0', node: 'node1' });
    assert.equal((await call(fixture, 'GET', '/v1/config')).body.items[1].value, 179);
  });

  test('the OpenAPI document describes every route, with bodies and errors', async () => {
    const { api } = makeApi();
    const routes: string[] = [];
    api.addHook('onRoute', ({ method, url }) => {
      if (method !== 'HEAD') routes.push(`${method} ${url.replace(/:(\w+)/g, '{$1}')}`);
    });
    const document = (await api.inject('/v1/openapi.json')).json();
    type Operation = {
      responses: Record<string, unknown>;
      requestBody?: { content: Record<string, { schema: object }> };
    };
    const described = Object.entries<Record<string, Operation>>(document.paths).flatMap(
      ([path, operations]) =>
        Object.entries(operations).map(([method, operation]) => {
          assert.ok(
            '4XX' in operation.responses || '4xx' in operation.responses,
            `${method} ${path} describes its errors`,
          );
          if (['post', 'put', 'patch'].includes(method) && !path.endsWith('{tag}')) {
            assert.ok(
              Object.values(operation.requestBody?.content ?? {}).some(
                ({ schema }) => 'properties' in schema || ('type' in schema && schema.type === 'string'),
              ),
              `${method} ${path}`,
            );
          }
          return `${method.toUpperCase()} ${path}`;
        }),
    );
    assert.deepEqual(described.sort(), routes.filter((route) => !route.endsWith('openapi.json')).sort());
    assert.equal(document.openapi, '3.1.0');
  });
});
