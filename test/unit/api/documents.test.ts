/** Documents over HTTP: all of the kinds applied, read back, deleted; broken records of the store. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Json } from '../../../src/store/store.ts';
import { call, type Fixture, makeApi, put } from './fixture.ts';

const profile = {
  kind: 'profile',
  name: 'web',
  tags: ['web'],
  inbound_rules: [],
  outbound_rules: [{ action: 'allow' }],
};
const policy = {
  kind: 'policy',
  name: 'base',
  order: 10,
  selector: 'role == "db"',
  inbound_rules: [{ action: 'pass', protocol: 'tcp', '!src_set': 'office', src_selector: 'has(zone)' }],
};
const set = { kind: 'address-set', name: 'office', nets: ['10.1.0.0/16', 'fd00::1/128'] };
const host = {
  kind: 'host-endpoint',
  name: 'uplink',
  node: 'node1',
  interface: 'eth0',
  labels: { a: 'b' },
  profiles: ['web'],
};
const pool = {
  kind: 'pool',
  name: 'default',
  poolKind: 'routed',
  cidr: '10.0.0.0/16',
  blockSize: 26,
  excludes: [],
  gateway: null,
  nodeSelector: null,
  natOutgoing: true,
  ranges: [],
  tenants: [],
  maxBlocksPerNode: null,
  maxAddressesPerNode: null,
  cooldownSeconds: 60,
  disabled: false,
};
const all = [profile, policy, set, host, pool];

const apply = (fixture: Fixture, documents: readonly object[], more: Record<string, Json> = {}) =>
  call(fixture, 'POST', '/v1/documents', { documents: documents as unknown as Json, ...more });

describe('documents', () => {
  test('are written all at once, and read back as they were', async () => {
    const fixture = makeApi();
    const { status, body } = await apply(fixture, all);
    assert.equal(status, 200);
    assert.deepEqual(
      body.items.map(({ kind, name, action }: Record<string, string>) => `${kind} ${name} ${action}`),
      [
        'profile web created',
        'policy base created',
        'address-set office created',
        'host-endpoint node1/uplink created',
        'pool default created',
      ],
    );
    assert.deepEqual([body.warnings, body.applied, fixture.waitedFor], [[], true, [body.revision]]);
    for (const document of all) {
      const { body: shown } = await call(fixture, 'GET', `/v1/documents?kind=${document.kind}`);
      assert.deepEqual(shown.items[0].document, document);
      const name = shown.items[0].name;
      assert.equal(
        (await call(fixture, 'GET', `/v1/documents?kind=${document.kind}&name=${name}`)).status,
        200,
      );
    }
    const { body: shown } = await call(fixture, 'GET', '/v1/documents?kind=policy');
    assert.deepEqual(shown.items[0].text, {
      inbound: ['pass tcp from selector (has(zone)) not set office'],
      outbound: null,
    });
    const again = await apply(fixture, [...all.slice(0, 4), { ...pool, disabled: true }]);
    assert.deepEqual(
      again.body.items.map(({ action }: { action: string }) => action),
      [...Array(4).fill('unchanged'), 'changed'],
    );
  });

  test('a dry run changes nothing, and a missing address set is worth a warning', async () => {
    const fixture = makeApi();
    const { body } = await apply(fixture, [policy], { dryRun: true });
    assert.equal(body.items[0].action, 'created');
    assert.deepEqual(body.warnings, [
      'policy base: there is no address set office: the rules that name it deny',
    ]);
    assert.equal((await fixture.store.list('')).entries.length, 0);
    assert.deepEqual(fixture.waitedFor, []);
    const closed = await apply(fixture, [host], { dryRun: true });
    assert.deepEqual(closed.body.warnings, [
      'host-endpoint node1/uplink: there is no profile web: it denies',
    ]);
    assert.deepEqual((await apply(fixture, [host, profile], { dryRun: true })).body.warnings, []);
  });

  test('of two host endpoints with one interface it is said which one decides', async () => {
    const fixture = makeApi();
    await apply(fixture, [profile, host]);
    const { body } = await apply(fixture, [{ ...host, name: 'more' }]);
    assert.deepEqual(body.warnings, [
      `host-endpoint node1/more: ${host.interface} of node1 is that of uplink too: only more decides there, the first by name`,
    ]);
    const other = await apply(fixture, [{ ...host, name: 'next', interface: 'eth9' }]);
    assert.deepEqual(other.body.warnings, []);
    const elsewhere = await apply(fixture, [{ ...host, node: 'node2' }]);
    assert.deepEqual(elsewhere.body.warnings, []);
  });

  const refused: [what: string, documents: object[], message: RegExp][] = [
    ['an unknown kind', [{ kind: 'x', name: 'a' }], /^documents\[0\]\.kind: "x" .*profile, policy/],
    ['no name', [{ kind: 'policy' }], /^documents\[0\]\.name/],
    ['an unknown key', [{ ...policy, tags: [] }], /^policy base: tags: .*no such key/],
    ['a bad selector', [{ ...policy, selector: 'role = 1' }], /^policy base: selector: .*not understood/],
    [
      'a policy without rules',
      [{ kind: 'policy', name: 'a', selector: 'all()' }],
      /^policy a: inbound_rules/,
    ],
    [
      'pass in a profile',
      [{ ...profile, inbound_rules: [{ action: 'pass' }] }],
      /^profile web: inbound_rules\[0\]\.action/,
    ],
    ['a verb as a name', [{ ...profile, name: 'show' }], /^profile show: name/],
    ['host bits', [{ ...set, nets: ['10.1.0.1/16'] }], /^address-set office: nets\[0\]/],
    ['the loopback', [{ ...host, interface: 'lo' }], /^host-endpoint uplink: interface/],
    ['a pattern', [{ ...host, interface: 'eth+' }], /^host-endpoint uplink: interface/],
    ['one twice', [set, set], /address-set office is there more than once/],
    [
      'pools that overlap',
      [pool, { ...pool, name: 'b', cidr: '10.0.1.0/24' }],
      /^cidr: .* overlaps .* of pool b/,
    ],
    [
      'macvlan with NAT',
      [{ ...pool, poolKind: 'macvlan', natOutgoing: true }],
      /^natOutgoing: true .*macvlan/,
    ],
  ];
  for (const [what, documents, message] of refused) {
    test(`${what} is refused, and nothing of the rest is written`, async () => {
      const fixture = makeApi();
      const { status, body } = await apply(fixture, [{ ...set, name: 'fine' }, ...documents].reverse());
      assert.ok([400, 409, 422].includes(status), String(status));
      assert.match(body.error.message.replace('documents[1]', 'documents[0]'), message);
      assert.equal((await fixture.store.list('')).entries.length, 0);
    });
  }

  test('what is fixed of a pool cannot change', async () => {
    const fixture = makeApi();
    await apply(fixture, [pool]);
    const { status, body } = await apply(fixture, [{ ...pool, blockSize: 28 }]);
    assert.deepEqual([status, body.error.message.split(':')[0]], [400, 'pool default']);
  });

  test('an address set that rules name goes only with force', async () => {
    const fixture = makeApi();
    await apply(fixture, all);
    const { status, body } = await call(fixture, 'DELETE', '/v1/documents?kind=address-set&name=office');
    assert.deepEqual([status, body.error.code], [409, 'IN_USE']);
    assert.match(body.error.message, /policy base/);
    for (const path of [
      'address-set&name=office&force=true',
      'policy&name=base',
      'host-endpoint&name=node1/uplink',
      'profile&name=web',
      'pool&name=default',
    ])
      assert.equal((await call(fixture, 'DELETE', `/v1/documents?kind=${path}`)).status, 200, path);
    assert.equal((await fixture.store.list('')).entries.length, 0);
    assert.equal((await call(fixture, 'DELETE', '/v1/documents?kind=policy&name=base')).status, 404);
  });
});

test('a broken record hides no other: lists show it apart, apply repairs it', async () => {
  const fixture = makeApi();
  await apply(fixture, all);
  for (const key of ['profiles/bad', 'policies/bad', 'address-sets/bad', 'pools/bad', 'endpoints/node1/bad'])
    await put(fixture.store, key, { tags: 17, nets: 'x' });
  for (const path of [
    '/v1/profiles',
    '/v1/pools',
    '/v1/endpoints',
    '/v1/documents?kind=policy',
    '/v1/documents?kind=address-set',
  ]) {
    const { status, body } = await call(fixture, 'GET', path);
    assert.equal(status, 200, path);
    assert.equal(body.broken.length, 1, path);
    assert.match(body.broken[0].key, /\/bad$/);
    assert.doesNotMatch(body.broken[0].reason, /\n/);
  }
  const one = await call(fixture, 'GET', '/v1/documents?kind=policy&name=bad');
  assert.deepEqual([one.status, one.body.error.code], [409, 'CONFLICT']);
  await apply(fixture, [{ ...policy, name: 'bad' }]);
  assert.deepEqual((await call(fixture, 'GET', '/v1/documents?kind=policy')).body.broken, []);
});

test('If-Match: one document is changed and deleted of that revision only', async () => {
  const fixture = makeApi();
  const { body } = await call(fixture, 'POST', '/v1/documents', { documents: [set] });
  const match = (revision: number) => ({ 'if-match': `"${revision}"` });
  const wider = { ...set, nets: ['10.0.0.0/8'] };
  const change = (revision: number, documents: Json[]) =>
    call(fixture, 'POST', '/v1/documents', { documents }, match(revision));
  assert.equal((await change(body.revision + 1, [wider])).status, 412);
  assert.equal((await change(body.revision, [wider, profile])).status, 400);
  const changed = await change(body.revision, [wider]);
  assert.equal(changed.status, 200);
  const remove = (revision: number) =>
    call(fixture, 'DELETE', '/v1/documents?kind=address-set&name=office', undefined, match(revision));
  assert.equal((await remove(body.revision)).status, 412);
  assert.equal((await remove(changed.body.revision)).status, 200);
});

test('a profile that a host endpoint has stays, but for force', async () => {
  const fixture = makeApi();
  await call(fixture, 'POST', '/v1/documents', { documents: [profile, host] });
  const { status, body } = await call(fixture, 'DELETE', '/v1/profiles/web');
  assert.deepEqual([status, body.error.code], [409, 'IN_USE']);
  assert.match(body.error.message, /used by host endpoint node1\/uplink/);
  assert.equal((await call(fixture, 'DELETE', '/v1/profiles/web?force=true')).status, 200);
});
