/**
 * What the HTTP API refuses: status, code and words, and that nothing was written.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Json } from '../../../src/store/store.ts';
import { call, endpoint, type Method, makeApi, put } from './fixture.ts';

const web = { id: 'web', inbound_rules: [{ action: 'allow', src_tag: 'lb' }], outbound_rules: [] };

describe('what is refused, with status, code and words', () => {
  // biome-ignore format: a table, one case a line
  const cases: [string, Method, string, Json | undefined, number, string, RegExp][] = [
    ['host bits', 'POST', '/v1/pools', { cidr: '10.0.0.1/8' }, 400, 'INVALID', /^cidr: "10.0.0.1\/8".*10\.0\.0\.0\/8$/],
    ['no prefix', 'POST', '/v1/pools', {}, 400, 'INVALID', /^cidr: /],
    ['a pool that overlaps', 'POST', '/v1/pools', { cidr: '10.1.128.0/24' }, 422, 'CIDR_OVERLAP', /overlaps 10\.1\.0\.0\/16 of pool default/],
    ['a pool that contains', 'POST', '/v1/pools', { cidr: '10.0.0.0/8' }, 422, 'CIDR_OVERLAP', /overlaps 10\.1\.0\.0\/16 of pool default/],
    ['a taken name', 'POST', '/v1/pools', { cidr: '10.2.0.0/16', name: 'default' }, 409, 'ALREADY_EXISTS', /pool default exists/],
    ['an unknown key', 'POST', '/v1/pools', { cidr: '10.2.0.0/16', ipip: true }, 400, 'INVALID', /^ipip: .*no such key/],
    ['macvlan with blocks', 'POST', '/v1/pools', { cidr: '10.2.0.0/16', kind: 'macvlan', blockSize: 28 }, 400, 'INVALID', /^blockSize: 28 .*no blocks/],
    ['macvlan with a limit of blocks', 'POST', '/v1/pools', { cidr: '10.2.0.0/16', kind: 'macvlan', maxBlocksPerNode: 2 }, 400, 'INVALID', /^maxBlocksPerNode: 2 /],
    ['an unknown kind', 'POST', '/v1/pools', { cidr: '10.2.0.0/16', kind: 'x' }, 400, 'INVALID', /^kind: "x".*routed or macvlan/],
    ['a selector', 'POST', '/v1/pools', { cidr: '10.2.0.0/16', nodeSelector: 'rack ==' }, 400, 'INVALID', /^nodeSelector: "rack ==".*expected a text in quotes/],
    ['a gateway outside', 'POST', '/v1/pools', { cidr: '10.2.0.0/16', gateway: '10.3.0.1' }, 400, 'INVALID', /^gateway: "10.3.0.1".*inside the pool's 10\.2\.0\.0\/16$/],
    ['a range outside', 'POST', '/v1/pools', { cidr: '10.2.0.0/16', ranges: ['10.2.255.0-10.3.0.9'] }, 400, 'INVALID', /^ranges: .*inside the pool 10\.2\.0\.0\/16/],
    ['a range that is none', 'POST', '/v1/pools', { cidr: '10.2.0.0/16', ranges: ['10.2.0.9-10.2.0.1'] }, 400, 'INVALID', /^ranges\[0\]: .*not before the first/],
    ['a range outside, set', 'PATCH', '/v1/pools/default', { ranges: ['10.2.0.0/24'] }, 400, 'INVALID', /^ranges: .*inside the pool 10\.1\.0\.0\/16/],
    ['a tenant with a slash', 'POST', '/v1/pools', { cidr: '10.2.0.0/16', tenants: ['a/b'] }, 400, 'INVALID', /^tenants\[0\]: "a\/b" .*expected 1 to 128/],
    ['no blocks', 'PATCH', '/v1/pools/default', { maxBlocksPerNode: 0 }, 400, 'INVALID', /^maxBlocksPerNode: 0 .*from 1 on/],
    ['no addresses', 'PATCH', '/v1/pools/default', { maxAddressesPerNode: 1.5 }, 400, 'INVALID', /^maxAddressesPerNode: 1.5 /],
    ['macvlan with NAT', 'POST', '/v1/pools', { cidr: '10.2.0.0/16', natOutgoing: true, kind: 'macvlan' }, 400, 'INVALID', /^natOutgoing: true /],
    ['too large blocks', 'POST', '/v1/pools', { cidr: '10.2.0.0/24', blockSize: 20 }, 400, 'INVALID', /^blockSize: 20 .*24 to 32/],
    ['an exclude outside', 'POST', '/v1/pools', { cidr: '10.2.0.0/24', excludes: ['10.3.0.0/28'] }, 400, 'INVALID', /^excludes: "10.3.0.0\/28"/],
    ['an exclude that is no prefix', 'POST', '/v1/pools', { cidr: '10.2.0.0/24', excludes: ['x'] }, 400, 'INVALID', /^excludes\[0\]: "x"/],
    ['a cooldown below 0', 'POST', '/v1/pools', { cidr: '10.2.0.0/24', cooldownSeconds: -1 }, 400, 'INVALID', /^cooldownSeconds: -1 .*0 to 86400/],
    ['another prefix', 'PATCH', '/v1/pools/default', { cidr: '10.2.0.0/16' }, 400, 'INVALID', /^cidr: cannot be changed/],
    ['another kind', 'PATCH', '/v1/pools/default', { kind: 'routed' }, 400, 'INVALID', /^kind: cannot be changed/],
    ['other blocks', 'PATCH', '/v1/pools/default', { blockSize: 28 }, 400, 'INVALID', /^blockSize: cannot be changed/],
    ['a pool that is not', 'PATCH', '/v1/pools/none', { disabled: true }, 404, 'NOT_FOUND', /no pool none/],
    ['a pool that is not', 'DELETE', '/v1/pools/none', undefined, 404, 'NOT_FOUND', /no pool none/],
    ['a bad name in the path', 'GET', `/v1/pools/${'a'.repeat(300)}`, undefined, 400, 'INVALID', /^pool: /],
    ['a verb as a name', 'POST', '/v1/profiles', { name: 'show' }, 400, 'INVALID', /^name: "show".*netctl's words/],
    ['a long name', 'POST', '/v1/profiles', { name: 'a'.repeat(300) }, 400, 'INVALID', /^name: .*1 to 40/],
    ['a slash in a name', 'POST', '/v1/profiles', { name: '../etc' }, 400, 'INVALID', /^name: "..\/etc"/],
    ['a second of that name', 'POST', '/v1/profiles', { name: 'web' }, 409, 'ALREADY_EXISTS', /profile web exists/],
    ['another id', 'PUT', '/v1/profiles/web/rules', { ...web, id: 'db' }, 400, 'INVALID', /^id: "db"/],
    ['a missing profile', 'PUT', '/v1/profiles/none/rules', { ...web, id: 'none' }, 404, 'NOT_FOUND', /no profile none/],
    ['an unknown key', 'PUT', '/v1/profiles/web/rules', { ...web, inbound_rules: [{ acton: 'allow' }] }, 400, 'INVALID', /^inbound_rules\[0\]\.acton/],
    ['port 70000', 'PUT', '/v1/profiles/web/rules', { ...web, inbound_rules: [{ protocol: 'tcp', dst_ports: [70000] }] }, 400, 'INVALID', /dst_ports\[0\]: 70000/],
    ['v6 with a v4 net', 'PUT', '/v1/profiles/web/rules', { ...web, inbound_rules: [{ ip_version: 6, src_net: '10.0.0.0/8' }] }, 400, 'INVALID', /src_net/],
    ['not an object', 'PUT', '/v1/profiles/web/rules', [], 400, 'INVALID', /an object with the keys/],
    ['words that are no rule', 'POST', '/v1/profiles/web/rules', { direction: 'inbound', text: 'permit' }, 400, 'INVALID', /^rule: "permit"/],
    ['neither rule nor text', 'POST', '/v1/profiles/web/rules', { direction: 'inbound' }, 400, 'INVALID', /either rule or text/],
    ['a direction', 'POST', '/v1/profiles/web/rules', { direction: 'up', text: 'allow' }, 400, 'INVALID', /^direction: "up".*inbound or outbound/],
    ['position 0', 'POST', '/v1/profiles/web/rules', { direction: 'inbound', text: 'deny', at: 0 }, 400, 'INVALID', /^at: 0 /],
    ['a position beyond', 'POST', '/v1/profiles/web/rules', { direction: 'inbound', text: 'deny', at: 3 }, 400, 'INVALID', /^at: 3 .*1 to 2$/],
    ['to remove beyond', 'DELETE', '/v1/profiles/web/rules/inbound?at=2', undefined, 404, 'NOT_FOUND', /no inbound rule at 2 \(it has 1\)/],
    ['to remove another', 'DELETE', '/v1/profiles/web/rules/inbound?text=deny', undefined, 404, 'NOT_FOUND', /no inbound rule deny/],
    ['to remove nothing', 'DELETE', '/v1/profiles/web/rules/inbound', undefined, 400, 'INVALID', /either at or text/],
    ['to remove an absent tag', 'DELETE', '/v1/profiles/web/tags/db', undefined, 404, 'NOT_FOUND', /does not have tag db: it has web/],
    ['a bad tag', 'PUT', '/v1/profiles/web/tags/a%20b', undefined, 400, 'INVALID', /^tag: "a b"/],
    ['a profile in use', 'DELETE', '/v1/profiles/web', undefined, 409, 'IN_USE', /used by endpoint ep1 on node1.*--force/],
    ['a missing endpoint', 'GET', '/v1/endpoints/none', undefined, 404, 'NOT_FOUND', /no endpoint none/],
    ['a missing profile', 'POST', '/v1/endpoints/ep1/profiles', { action: 'append', profiles: ['x'] }, 404, 'NOT_FOUND', /no profile x: add it first/],
    ['to remove an absent profile', 'POST', '/v1/endpoints/ep1/profiles', { action: 'remove', profiles: ['x'] }, 404, 'NOT_FOUND', /does not have profile x: it has web/],
    ['an unknown action', 'POST', '/v1/endpoints/ep1/profiles', { action: 'drop', profiles: [] }, 400, 'INVALID', /append, remove or set/],
    ['a free address', 'GET', '/v1/ipam/addresses/10.1.0.9', undefined, 404, 'NOT_FOUND', /10\.1\.0\.9 is not allocated/],
    ['no address', 'GET', '/v1/ipam/addresses/10.1', undefined, 400, 'INVALID', /^address: "10.1"/],
    ['no owner', 'POST', '/v1/reservations', { tenant: 't', app: 'a', ipv4: 1 }, 400, 'INVALID', /^instances: .*a list of names/],
    ['no number of addresses', 'POST', '/v1/reservations', { tenant: 't', app: 'a', instances: ['0'] }, 400, 'INVALID', /^reservation: 0 .*1 to 60 addresses/],
    ['too many addresses', 'POST', '/v1/reservations', { tenant: 't', app: 'a', instances: ['0'], ipv4: 61 }, 400, 'INVALID', /^ipv4: 61 .*0 to 60/],
    ['no IPv6 pool', 'POST', '/v1/reservations', { tenant: 't', app: 'a', instances: ['0'], ipv6: 1 }, 422, 'FAMILY_UNSUPPORTED', /no IPv6 pool/],
    ['a day and a second', 'POST', '/v1/reservations', { tenant: 't', app: 'a', instances: ['0'], ipv4: 1, ttlSeconds: 86401 }, 400, 'INVALID', /^ttlSeconds: 86401 .*1 to 86400/],
    ['an unknown key', 'POST', '/v1/reservations', { tenant: 't', app: 'a', instances: ['0'], count4: 1 }, 400, 'INVALID', /^count4: 1 .*no such key/],
    ['a reservation that is not', 'POST', '/v1/reservations/r9/extend', { ttlSeconds: 60 }, 410, 'RESERVATION_EXPIRED', /no reservation r9/],
    ['a bad id', 'GET', '/v1/reservations/a.b', undefined, 400, 'INVALID', /^reservation: "a\.b"/],
    ['cancel without a body', 'POST', '/v1/reservations/r9/cancel', undefined, 400, 'INVALID', /an object with the keys tenant/],
    ['a node that is not', 'POST', '/v1/reservations', { tenant: 't', app: 'a', instances: ['0'], ipv4: 1, node: 'none' }, 404, 'NOT_FOUND', /no node none/],
    ['a commit for a node that is not', 'POST', '/v1/reservations/r9/commit', { node: 'none' }, 404, 'NOT_FOUND', /no node none/],
    ['a bind on a node that is not', 'POST', '/v1/allocations/10.1.0.9/bind', { generation: 1, container: 'c', node: 'none' }, 404, 'NOT_FOUND', /no node none/],
    ['a transfer to a node that is not', 'POST', '/v1/allocations/10.1.0.9/transfer', { generation: 1, toNode: 'none' }, 404, 'NOT_FOUND', /no node none/],
    ['generation 0', 'POST', '/v1/allocations/10.1.0.9/bind', { generation: 0, container: 'c' }, 400, 'INVALID', /^generation: 0 /],
    ['to bind a free address', 'POST', '/v1/allocations/10.1.0.9/bind', { generation: 1, container: 'c' }, 412, 'STALE_GENERATION', /not allocated any more/],
    ['a release without a generation', 'POST', '/v1/allocations/10.1.0.9/release', {}, 400, 'INVALID', /^generation: /],
    ['to release a free address', 'POST', '/v1/allocations/10.1.0.9/release', { generation: 1 }, 412, 'STALE_GENERATION', /not allocated any more/],
    ['quarantine by a multicast MAC', 'POST', '/v1/conflicts', { address: '10.1.0.9', mac: '01:00:5e:00:00:01' }, 400, 'INVALID', /^mac: .*unicast/],
    ['quarantine of no pool', 'POST', '/v1/conflicts', { address: '10.9.0.9', mac: '02:00:00:00:00:09' }, 404, 'POOL_NOT_FOUND', /in no pool/],
    ['half an owner', 'POST', '/v1/allocations/release', { owner: { tenant: 't' } }, 400, 'INVALID', /^owner\.app: /],
    ['a state', 'GET', '/v1/allocations?state=free', undefined, 400, 'INVALID', /^state: "free" .*reserved, bound/],
    ['a large page', 'GET', '/v1/allocations?limit=1001', undefined, 400, 'INVALID', /^limit: .*1 to 1000/],
    ['capacity of nobody', 'POST', '/v1/capacity', {}, 400, 'INVALID', /^tenant: /],
    ['a dimension', 'GET', '/v1/utilization?by=rack', undefined, 400, 'INVALID', /^by: "rack" .*pool, node, tenant or app/],
    ['fix that is no switch', 'POST', '/v1/ipam/check', { fix: 'yes' }, 400, 'INVALID', /^fix: "yes" .*true or false/],
    ['an unknown query', 'GET', '/v1/endpoints?host=a', undefined, 400, 'INVALID', /^host: .*no such key/],
    ['an unknown path', 'GET', '/v1/nothing', undefined, 404, 'NOT_FOUND', /no GET \/v1\/nothing/],
  ];
  for (const [what, method, url, body, status, code, message] of cases) {
    test(`${what}: ${method} ${url.slice(0, 60)}`, async () => {
      const fixture = makeApi();
      await put(fixture.store, 'endpoints/node1/ep1', endpoint());
      await call(fixture, 'POST', '/v1/pools', { cidr: '10.1.0.0/16' });
      await call(fixture, 'POST', '/v1/profiles', { name: 'web' });
      const before = await fixture.store.list('');
      const answer = await call(fixture, method, url, body);
      assert.deepEqual(
        [answer.status, answer.body.error.code, answer.body.error.retryable],
        [status, code, false],
        answer.body.error.message,
      );
      assert.match(answer.body.error.message, message);
      assert.doesNotMatch(answer.body.error.message, /\n/);
      assert.deepEqual(await fixture.store.list(''), before, 'nothing was written');
      assert.deepEqual(fixture.bugs, []);
    });
  }

  test('what is not JSON, and not said to be; what is no URL', async () => {
    const { api } = makeApi();
    const odd = await api.inject({ method: 'GET', url: '/v1/profiles/%ff' });
    assert.deepEqual([odd.statusCode, odd.json().error.code], [400, 'INVALID']);
    const headers = { 'content-type': 'application/json' };
    const broken = await api.inject({ method: 'POST', url: '/v1/pools', headers, payload: '{' });
    assert.deepEqual([broken.statusCode, broken.json().error.code], [400, 'INVALID']);
    const text = await api.inject({
      method: 'POST',
      url: '/v1/pools',
      headers: { 'content-type': 'text/plain' },
      payload: '{}',
    });
    assert.deepEqual([text.statusCode, text.json().error.code], [400, 'INVALID']);
  });
});
