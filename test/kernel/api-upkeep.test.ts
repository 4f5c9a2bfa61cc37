/**
 * What a scheduler and an operator do besides reserving and binding, by HTTP against two real agents on a real etcd: nodes out of use, leaks,
 * conflicts, macvlan pools, export and import, budgets, preconditions, and records that are broken.
 */

import assert from 'node:assert/strict';
import { request } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Host } from '../../lab/host.ts';
import { eventually } from '../../lab/run.ts';
import { EtcdHosts } from './etcd-hosts.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';

// The addresses of the hosts are the same in every file that has some.
enterSandbox(import.meta.url);

// biome-ignore lint/suspicious/noExplicitAny: answers are looked at, not typed
type Answer = { status: number; body: any; headers: Record<string, unknown> };

describe('the API for schedulers and operators, on etcd', () => {
  let all: EtcdHosts;
  let one: Host;
  let two: Host;

  before(async () => {
    all = await EtcdHosts.create('up', 2, ['--collect-seconds', '0', '--collect-grace-seconds', '1']);
    [one, two] = all.hosts as [Host, Host];
    await all.ok(one, 'pool', 'add', '10.65.0.0/24', '--cooldown', '0', '--block-size', '28');
    await all.ok(
      one,
      'pool',
      'add',
      '10.70.0.0/24',
      '--name',
      'lan',
      '--kind',
      'macvlan',
      '--gateway',
      '10.70.0.1',
      '--range',
      '10.70.0.100-10.70.0.199',
      '--cooldown',
      '0',
    );
    await eventually(
      'both know the pools',
      10_000,
      async () => (await ok(two, 'GET', '/v1/pools')).items.length === 2,
    );
  });
  after(() => all?.close());

  function call(
    host: Host,
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    const text = typeof body === 'string' ? body : JSON.stringify(body);
    const type: Record<string, string> =
      body === undefined
        ? {}
        : { 'content-type': typeof body === 'string' ? 'text/plain' : 'application/json' };
    return new Promise((resolve, reject) => {
      const socketPath = join(host.runDirectory, 'api.sock');
      const made = request(
        { socketPath, method, path, headers: { ...type, ...headers } },
        async (response) => {
          const answer = (await response.setEncoding('utf8').toArray()).join('');
          const isJson = String(response.headers['content-type']).startsWith('application/json');
          resolve({
            status: response.statusCode ?? 0,
            body: isJson ? JSON.parse(answer) : answer,
            headers: response.headers,
          });
        },
      );
      made.on('error', reject);
      made.end(text);
    });
  }

  async function ok(host: Host, method: string, path: string, body?: unknown) {
    const answer = await call(host, method, path, body);
    assert.ok(answer.status < 300, `${method} ${path}: ${JSON.stringify(answer.body)}`);
    return answer.body;
  }

  const code = ({ status, body }: Answer) => [status, body.error?.code];
  const wish = (more: object = {}) => ({ tenant: 't', app: 'a', instances: ['0'], ipv4: 1, ...more });

  test('a macvlan pool: reserved by one host, bound by the other, transferred, released', async () => {
    const reserved = await ok(
      one,
      'POST',
      '/v1/reservations',
      wish({ pools: ['lan'], onRelease: 'immutable' }),
    );
    const [{ address, gateway }] = reserved.addresses;
    assert.match(address, /^10\.70\.0\.1\d\d$/);
    assert.equal(gateway, '10.70.0.1');
    const bind = { generation: 1, container: 'c1', node: two.name };
    await eventually(
      'the other host knows',
      10_000,
      async () => (await call(two, 'GET', `/v1/reservations/${reserved.id}`)).status === 200,
    );
    const bound = await ok(two, 'POST', `/v1/allocations/${address}/bind`, bind);
    await ok(two, 'POST', `/v1/allocations/${address}/activate`, { generation: bound.generation });
    const held = await call(one, 'POST', '/v1/reservations', wish({ addresses: [address], tenant: 'u' }));
    assert.deepEqual(code(held), [409, 'ADDRESS_IN_USE']);
    const moved = await ok(two, 'POST', `/v1/allocations/${address}/transfer`, {
      generation: bound.generation,
      toNode: one.name,
    });
    assert.equal(
      (await call(two, 'POST', `/v1/allocations/${address}/activate`, { generation: bound.generation }))
        .status,
      412,
    );
    assert.equal(
      (await ok(two, 'POST', `/v1/allocations/${address}/release`, { generation: moved.generation })).outcome,
      'free',
    );
    await eventually('the host that reserved it knows that it is free', 10_000, async () => {
      const { nodes } = await ok(one, 'POST', '/v1/capacity', { tenant: 't', kind: 'macvlan' });
      return nodes.every(({ available4 }: { available4: number }) => available4 === 100);
    });
    assert.deepEqual(
      (await ok(one, 'GET', '/v1/ipam/blocks')).items.filter(({ pool }: { pool: string }) => pool === 'lan'),
      [],
    );
  });

  test('a drained node gets nothing more; a fenced one’s fixed addresses move; forgotten only by its name', async () => {
    await all.join(two, 'own');
    const reserved = await ok(
      one,
      'POST',
      '/v1/reservations',
      wish({ id: 'fixed', app: 'fix', node: two.name, onRelease: 'immutable' }),
    );
    const [{ address }] = reserved.addresses;
    await ok(one, 'POST', `/v1/allocations/${address}/bind`, {
      generation: 1,
      container: 'c9',
      node: two.name,
    });
    const drained = await ok(one, 'POST', `/v1/nodes/${two.name}:drain`, {});
    assert.deepEqual(drained.items.map(({ state }: { state: string }) => state).toSorted(), [
      'active',
      'bound',
    ]);
    assert.deepEqual(code(await call(one, 'POST', '/v1/reservations', wish({ node: two.name }))), [
      409,
      'AFFINITY_MISMATCH',
    ]);
    const { nodes } = await ok(one, 'POST', '/v1/capacity', { tenant: 't', nodes: [two.name] });
    assert.deepEqual([nodes[0].available4, nodes[0].limitReason], [0, 'the node is drained']);
    await eventually('an ADD there is refused', 10_000, async () => {
      const { code: exit, stderr } = await two.netctl(['ipam', 'reserve', '--node', two.name]);
      return exit === 1 && /is drained: it gets no addresses/.test(stderr);
    });
    await ok(one, 'POST', `/v1/nodes/${two.name}/readmit`, {});
    const before = await eventually('the block is known', 10_000, async () =>
      (await ok(one, 'GET', `/v1/ipam/blocks?node=${two.name}`)).items.some(
        ({ shared }: { shared: boolean }) => !shared,
      )
        ? true
        : null,
    );
    assert.ok(before);
    await two.kill('SIGKILL');
    const fenced = await ok(one, 'POST', `/v1/nodes/${two.name}/fence`, {});
    assert.equal(fenced.items.length, 2);
    assert.ok(
      (await ok(one, 'GET', `/v1/ipam/blocks?node=${two.name}`)).items.every(
        ({ shared }: { shared: boolean }) => shared,
      ),
    );
    const moved = await ok(one, 'POST', `/v1/allocations/${address}/transfer`, {
      generation: 2,
      toNode: one.name,
    });
    await ok(one, 'POST', `/v1/allocations/${address}/bind`, {
      generation: moved.generation,
      container: 'c10',
      node: one.name,
    });
    assert.equal((await call(one, 'POST', `/v1/nodes/${one.name}/fence`, {})).status, 409);
    assert.equal((await call(one, 'POST', '/v1/nodes/none/fence', {})).status, 404);
    const wrong = await call(one, 'POST', `/v1/nodes/${two.name}/forget`, { confirm: one.name });
    assert.deepEqual(code(wrong), [400, 'INVALID']);
    const forgotten = await eventually('the agent counts as gone', 40_000, async () => {
      const answer = await call(one, 'POST', `/v1/nodes/${two.name}/forget`, { confirm: two.name });
      return answer.status === 200 ? answer.body : null;
    });
    assert.ok(forgotten.registered);
    assert.deepEqual((await ok(one, 'GET', `/v1/allocations?node=${two.name}`)).items, []);
    await all.start(two);
    await eventually('it came back empty', 30_000, async () => (await all.links(two)).length === 0);
    await eventually(
      'and is in use again',
      20_000,
      async () => (await ok(one, 'GET', '/v1/nodes')).items.length === 2,
    );
    await ok(one, 'POST', '/v1/allocations/release', { owner: { tenant: 't', app: 'fix', instance: '0' } });
    await ok(one, 'POST', `/v1/allocations/${address}/unbind`, { container: 'c10' });
  });

  test('a leak is shown by a plan, and freed by applying it once it was seen twice', async () => {
    const reserved = await ok(
      one,
      'POST',
      '/v1/reservations',
      wish({ app: 'leak', node: one.name, pools: ['lan'] }),
    );
    const [{ address }] = reserved.addresses;
    await ok(one, 'POST', `/v1/allocations/${address}/bind`, {
      generation: 1,
      container: 'gone',
      node: one.name,
    });
    const record = JSON.parse(
      (await all.etcd.ctl('get', `/netctl/v1/addresses/${address}`, '--print-value-only')).trim(),
    );
    await all.etcd.ctl(
      'put',
      `/netctl/v1/addresses/${address}`,
      JSON.stringify({ ...record, state: 'active', endpoint: 'feedfacefeedface' }),
    );
    const plan = await eventually('the leak is confirmed', 20_000, async () => {
      const planned = await ok(one, 'POST', '/v1/gc:plan', {});
      const mine = planned.items.find((item: { address: string }) => item.address === address);
      return mine?.verdict === 'confirmed' ? planned : null;
    });
    assert.match(plan.items[0].evidence, /has no such link/);
    assert.deepEqual(code(await call(one, 'POST', '/v1/gc/apply', { planId: 'x' })), [404, 'NOT_FOUND']);
    const applied = await ok(one, 'POST', '/v1/gc:apply', { planId: plan.planId });
    assert.deepEqual(
      applied.items.map((item: { address: string; outcome: string }) => [item.address, item.outcome]),
      [[address, 'freed']],
    );
    await eventually(
      'it is free',
      10_000,
      async () => (await ok(one, 'GET', `/v1/allocations?ip=${address}`)).items.length === 0,
    );
  });

  test('a conflict quarantines the address and offers another; repeated, the same one', async () => {
    const reserved = await ok(
      one,
      'POST',
      '/v1/reservations',
      wish({ app: 'dad', pools: ['lan'], node: one.name }),
    );
    const [{ address }] = reserved.addresses;
    const report = { address, mac: '02:00:00:00:00:99', at: '2026-01-02T03:04:05Z' };
    const first = await ok(one, 'POST', '/v1/conflicts', report);
    assert.deepEqual(
      [first.state, first.conflict.mac, first.conflict.node],
      ['quarantined', report.mac, one.name],
    );
    assert.notEqual(first.alternate.address, address);
    assert.deepEqual((await ok(one, 'POST', '/v1/conflicts', report)).alternate, first.alternate);
    const explicit = await call(one, 'POST', '/v1/reservations', wish({ addresses: [address] }));
    assert.deepEqual(code(explicit), [409, 'ADDRESS_QUARANTINED']);
    assert.equal(explicit.body.error.details.mac, report.mac);
    const bound = await ok(one, 'POST', `/v1/allocations/${first.alternate.address}/bind`, {
      generation: 1,
      container: 'd',
    });
    await ok(one, 'POST', `/v1/allocations/${first.alternate.address}/unbind`, {
      container: 'd',
      generation: bound.generation,
    });
    await ok(one, 'POST', `/v1/allocations/${address}/release`, { force: true });
  });

  test('capacity tells where sticky instances could run', async () => {
    await ok(
      one,
      'POST',
      '/v1/reservations',
      wish({ id: 'sticky', app: 'db', pools: ['lan'], node: two.name, onRelease: 'immutable' }),
    );
    const { sticky } = await ok(one, 'POST', '/v1/capacity', {
      tenant: 't',
      app: 'db',
      stickyInstances: ['0', '9'],
      kind: 'macvlan',
    });
    assert.deepEqual(
      sticky.map(({ instance, nodes }: { instance: string; nodes: string[] }) => [
        instance,
        nodes.toSorted(),
      ]),
      [
        ['0', [two.name]],
        ['9', [one.name, two.name].toSorted()],
      ],
    );
    await ok(one, 'POST', '/v1/reservations/sticky:cancel', {});
  });

  test('exported lines import elsewhere; so do plain lists, and what contradicts is named', async () => {
    const lines = [
      '# from another system',
      '10.70.0.150 shop/web/0 02:00:00:00:00:50',
      '10.70.0.151,k8s-pod-network.4711',
      '{"ip":"10.70.0.152","owner":"web/1"}',
      '10.70.0.150 other/web/0',
      '10.99.0.1 x',
      '10.70.0.7 y',
      'nonsense',
    ];
    const answer = await ok(one, 'POST', '/v1/import?tenant=old', lines.join('\n'));
    assert.deepEqual([answer.imported, answer.refused], [3, 4], JSON.stringify(answer));
    assert.deepEqual(
      answer.refusals.map(({ line, code: why }: { line: number; code: string }) => [line, why]),
      [
        [5, 'ADDRESS_IN_USE'],
        [6, 'OUT_OF_RANGE'],
        [7, 'ADDRESS_EXCLUDED'],
        [8, 'INVALID'],
      ],
    );
    const { items } = await ok(one, 'GET', '/v1/allocations?tenant=old');
    assert.deepEqual(
      items.map(
        ({
          address,
          owner,
          state,
          onRelease,
        }: {
          address: string;
          owner: { app: string; instance: string };
          state: string;
          onRelease: string;
        }) => [address, `${owner.app}/${owner.instance}`, state, onRelease],
      ),
      [
        ['10.70.0.151', 'imported/k8s-pod-network.4711', 'retained', 'immutable'],
        ['10.70.0.152', 'web/1', 'retained', 'immutable'],
      ],
    );
    const exported = await call(one, 'GET', '/v1/export');
    assert.match(String(exported.headers['content-type']), /x-ndjson/);
    assert.ok(exported.body.split('\n').length > 5);
    const again = await two.netctl(['ipam', 'import', '-o', 'json'], { stdin: exported.body });
    assert.deepEqual([again.code, JSON.parse(again.stdout).imported], [0, 0], again.stderr);
    for (const [address, owner] of [
      ['10.70.0.150', 'shop/web/0'],
      ['10.70.0.151', 'old/imported/k8s-pod-network.4711'],
      ['10.70.0.152', 'old/web/1'],
    ] as const) {
      const released = await one.netctl(['ipam', 'release', '--owner', owner]);
      assert.match(released.stdout, new RegExp(address));
    }
    const restored = await one.netctl(['ipam', 'import'], { stdin: exported.body });
    assert.match(restored.stdout, /^imported 3, /, restored.stderr);
    assert.deepEqual((await ok(one, 'GET', '/v1/ipam/check')).items, []);
  });

  test('If-Match, budgets, broken records', async () => {
    const made = await ok(one, 'POST', '/v1/reservations', wish({ app: 'pre', pools: ['lan'] }));
    const [{ address }] = made.addresses;
    const shown = await call(one, 'GET', `/v1/ipam/addresses/${address}`);
    const etag = String(shown.headers['etag']);
    const path = `/v1/allocations/${address}/transfer`;
    const stale = await call(one, 'POST', path, { generation: 1 }, { 'if-match': '"1"' });
    assert.deepEqual(code(stale), [412, 'PRECONDITION_FAILED']);
    assert.equal((await call(one, 'POST', path, { generation: 1 }, { 'if-match': etag })).status, 200);
    const kept = await call(one, 'GET', `/v1/reservations/${made.id}`);
    const cancel = `/v1/reservations/${made.id}/cancel`;
    assert.deepEqual(code(await call(one, 'POST', cancel, {}, { 'if-match': '"1"' })), [
      412,
      'PRECONDITION_FAILED',
    ]);
    assert.equal(
      (await call(one, 'POST', cancel, {}, { 'if-match': String(kept.headers['etag']) })).status,
      200,
    );

    const late = await call(one, 'POST', '/v1/reservations', wish(), { 'x-request-timeout-ms': '0' });
    assert.deepEqual([...code(late), late.body.error.retryable], [408, 'BUDGET_INSUFFICIENT', true]);
    assert.equal(
      (await call(one, 'POST', '/v1/reservations', wish(), { 'x-request-timeout-ms': 'soon' })).status,
      400,
    );
    assert.equal(
      (await call(one, 'POST', '/v1/reservations', wish(), { 'x-request-timeout-ms': '20000' })).status,
      201,
    );
    await all.wire(two, 'down');
    try {
      await eventually(
        'the host knows that it is cut off',
        30_000,
        async () => (await ok(two, 'GET', '/v1/status')).store.cluster.reachable === false,
      );
      const began = performance.now();
      const short = await call(two, 'POST', '/v1/reservations', wish(), { 'x-request-timeout-ms': '500' });
      assert.deepEqual(code(short), [408, 'BUDGET_INSUFFICIENT']);
      assert.ok(performance.now() - began < 400, 'at once');
    } finally {
      await all.wire(two, 'up');
    }

    await all.etcd.ctl('put', '/netctl/v1/pools/torn', '{"cidr":1}');
    await all.etcd.ctl('put', '/netctl/v1/profiles/torn', '[]');
    for (const torn of ['/v1/pools/torn', '/v1/profiles/torn']) {
      const answer = await eventually('it is there', 10_000, async () => {
        const got = await call(one, 'GET', torn);
        return got.status === 404 ? null : got;
      });
      assert.deepEqual(code(answer), [409, 'RECORD_BROKEN']);
      assert.match(answer.body.error.message, /torn.*delete it/);
    }
    assert.equal((await ok(one, 'GET', '/v1/pools')).broken.length, 1);
  });
});
