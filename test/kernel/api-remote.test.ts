/**
 * The API over TCP with mutual TLS, against real agents and certificates made by openssl: who gets in, what each certificate may do, what
 * a tenant sees of another. With the embedded store and with etcd.
 */

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { Host } from '../../lab/host.ts';
import { eventually, mustRun } from '../../lab/run.ts';
import { ApiClient } from './api-client.ts';
import { EtcdHosts } from './etcd-hosts.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';
import { type Files, Pki } from './pki.ts';

// The addresses of the hosts are the same in every file that has some.
enterSandbox(import.meta.url);

const port = 7443;

interface Site {
  readonly host: Host;
  readonly pki: Pki;
  close(): Promise<void>;
}

async function flagsOf(pki: Pki, address: string): Promise<string[]> {
  const { cert, key, ca } = await pki.issue('agent', [`IP:${address}`]);
  const files = ['--api-cert', cert, '--api-key', key, '--api-client-ca', ca];
  return ['--api-listen', `${address}:${port}`, ...files, '--metrics-listen', '127.0.0.1:9191'];
}

async function embedded(): Promise<Site> {
  const pki = await Pki.create();
  const address = '198.18.7.1';
  const host = await Host.create({ name: `ra${process.pid}`, address });
  await mustRun(['ip', 'address', 'add', '198.18.7.254/24', 'dev', `up-${host.name}`]);
  await host.start(await flagsOf(pki, address));
  return {
    host,
    pki,
    async close() {
      await host.close();
      await pki.dispose();
    },
  };
}

async function onEtcd(): Promise<Site> {
  const pki = await Pki.create();
  const hosts = await EtcdHosts.create('rb', 1, await flagsOf(pki, '198.18.0.1'));
  return {
    host: hosts.hosts[0]!,
    pki,
    async close() {
      await hosts.close();
      await pki.dispose();
    },
  };
}

for (const [store, make] of [
  ['the embedded store', embedded],
  ['etcd', onEtcd],
] as const) {
  describe(`the API over TLS, on ${store}`, () => {
    let site: Site;
    const clients = new Map<string, ApiClient>();
    const scopes: Record<string, string[]> = {
      operator: ['operator'],
      acme: ['reserve:acme'],
      rival: ['reserve:rival', 'read:shared'],
      reader: ['read:acme'],
      nobody: [],
    };
    const as = (name: string): ApiClient => clients.get(name)!;

    before(async () => {
      site = await make();
      scopes['node'] = [`bind:${site.host.name}`];
      scopes['elsewhere'] = ['bind:node-elsewhere'];
      for (const [name, own] of Object.entries(scopes)) {
        const files = await site.pki.issue(
          name,
          own.map((scope) => `URI:netctl:scope:${scope}`),
        );
        clients.set(name, new ApiClient(site.host.address, port, files));
      }
      const added = await as('operator').send('POST', '/v1/pools', {
        cidr: '10.65.0.0/24',
        cooldownSeconds: 0,
      });
      assert.equal(added.status, 201, JSON.stringify(added.body));
      await as('operator').send('POST', '/v1/pools', {
        name: 'gold',
        cidr: '10.66.0.0/24',
        tenants: ['acme'],
      });
    });
    after(async () => {
      for (const client of clients.values()) client.close();
      await site?.close();
    });

    const wish = (tenant: string, more: object = {}) => ({
      tenant,
      app: 'web',
      instances: ['0'],
      ipv4: 1,
      ...more,
    });
    const code = ({ status, body }: { status: number; body: { error?: { code: string } } }) => [
      status,
      body.error?.code,
    ];

    async function reserved(tenant: string, more: object = {}) {
      const { status, body } = await as(tenant).send('POST', '/v1/reservations', wish(tenant, more));
      assert.equal(status, 201, JSON.stringify(body));
      return { id: body.id as string, address: body.addresses[0].address as string };
    }

    test('without a certificate, with one of another authority, and in the clear there is no answer', async () => {
      const { ca } = await site.pki.issue('x', []);
      const anonymous = new ApiClient(site.host.address, port, { ca });
      await assert.rejects(anonymous.send('GET', '/v1/version'));
      const other = await Pki.create();
      try {
        const forged: Files = { ...(await other.issue('operator', ['URI:netctl:scope:operator'])), ca };
        await assert.rejects(new ApiClient(site.host.address, port, forged).send('GET', '/v1/version'));
      } finally {
        await other.dispose();
      }
      const plain = await new Promise<string>((resolve) => {
        const socket = connect(port, site.host.address, () =>
          socket.write('GET /v1/version HTTP/1.1\r\n\r\n'),
        );
        let text = '';
        socket.on('data', (part) => {
          text += part;
        });
        socket.on('error', () => undefined).on('close', () => resolve(text));
      });
      assert.doesNotMatch(plain, /version/);
      await eventually('the log tells of them', 5000, async () =>
        /a client of the API was refused/.test(site.host.log()),
      );
    });

    test('a certificate without scopes learns the version and nothing else', async () => {
      assert.equal((await as('nobody').send('GET', '/v1/version')).status, 200);
      for (const path of [
        '/v1/allocations',
        '/v1/pools',
        '/v1/nodes',
        '/v1/status',
        '/v1/config',
        '/v1/endpoints',
        '/metrics',
        '/v1/watch',
        '/v1/none',
      ])
        assert.equal((await as('nobody').send('GET', path)).status, 403, path);
      assert.deepEqual(code(await as('nobody').send('POST', '/v1/reservations', wish('acme'))), [
        403,
        'FORBIDDEN',
      ]);
    });

    test('what only operators may do is refused to tenants and nodes, by the name of the scope', async () => {
      for (const who of ['acme', 'node']) {
        for (const [method, path] of [
          ['POST', '/v1/pools'],
          ['DELETE', '/v1/pools/default'],
          ['GET', '/v1/profiles'],
          ['GET', '/v1/ipam/addresses'],
          ['POST', '/v1/ipam/check'],
          ['GET', '/v1/nodes'],
        ] as const) {
          const { status, body } = await as(who).send(method, path, method === 'POST' ? {} : undefined);
          assert.deepEqual(
            [status, body.error.code, body.error.details.scope],
            [403, 'FORBIDDEN', 'operator'],
            path,
          );
        }
      }
    });

    test('a tenant reserves and sees for itself; another can neither see nor take it', async () => {
      const mine = await reserved('acme');
      const theirs = await reserved('rival');
      assert.deepEqual(code(await as('acme').send('POST', '/v1/reservations', wish('rival'))), [
        403,
        'FORBIDDEN',
      ]);
      const seen = async (who: string, query = '') =>
        (await as(who).send('GET', `/v1/allocations${query}`)).body.items.map(
          (item: { address: string }) => item.address,
        );
      assert.ok((await seen('acme')).includes(mine.address));
      assert.ok(!(await seen('acme')).includes(theirs.address));
      assert.ok((await seen('reader', '?tenant=acme')).includes(mine.address));
      assert.ok(!(await seen('rival', '?tenant=rival')).includes(mine.address));
      assert.deepEqual(code(await as('rival').send('GET', '/v1/allocations?tenant=acme')), [
        403,
        'FORBIDDEN',
      ]);
      assert.equal((await as('rival').send('GET', '/v1/allocations')).status, 400, 'which of its tenants?');
      const items = (await as('rival').send('GET', '/v1/reservations?tenant=rival')).body.items;
      assert.deepEqual(
        items.map((item: { id: string }) => item.id),
        [theirs.id],
      );
      assert.equal((await as('rival').send('GET', `/v1/reservations/${mine.id}`)).status, 404);
      assert.equal((await as('rival').send('GET', `/v1/ipam/addresses/${mine.address}`)).status, 404);
      for (const [path, body] of [
        [`/v1/allocations/${mine.address}/release`, { generation: 1 }],
        [`/v1/allocations/${mine.address}/transfer`, { generation: 1 }],
        [`/v1/reservations/${mine.id}/cancel`, {}],
        [`/v1/reservations/${mine.id}/extend`, { ttlSeconds: 9 }],
      ] as const) {
        const answer = await as('rival').send('POST', path, body);
        assert.deepEqual(code(answer), [403, 'NOT_OWNER'], path);
        assert.doesNotMatch(JSON.stringify(answer.body), /acme|web/, path);
      }
      const forced = { generation: 1, force: true };
      assert.deepEqual(
        code(await as('acme').send('POST', `/v1/allocations/${mine.address}/release`, forced)),
        [403, 'FORBIDDEN'],
      );
      const explicit = await as('rival').send(
        'POST',
        '/v1/reservations',
        wish('rival', { addresses: [mine.address] }),
      );
      assert.deepEqual(code(explicit), [409, 'ADDRESS_IN_USE']);
      assert.doesNotMatch(JSON.stringify(explicit.body), /acme/);
      assert.equal((await as('reader').send('POST', `/v1/reservations/${mine.id}/cancel`, {})).status, 403);
      assert.equal((await as('acme').send('POST', `/v1/reservations/${mine.id}/cancel`, {})).status, 200);
    });

    test('a pool for others is not there', async () => {
      const names = async (who: string) =>
        (await as(who).send('GET', '/v1/pools')).body.items.map((pool: { name: string }) => pool.name);
      assert.deepEqual([await names('acme'), await names('rival')], [['default', 'gold'], ['default']]);
      assert.equal((await as('rival').send('GET', '/v1/pools/gold')).status, 404);
      const wanted = wish('rival', { addresses: ['10.66.0.9'] });
      assert.deepEqual(code(await as('rival').send('POST', '/v1/reservations', wanted)), [
        422,
        'OUT_OF_RANGE',
      ]);
      assert.deepEqual(
        code(await as('rival').send('POST', '/v1/reservations', wish('rival', { pools: ['gold'] }))),
        [404, 'POOL_NOT_FOUND'],
      );
    });

    test('a quota is set by an operator, seen by the tenant, and holds', async () => {
      const api = ['--api', `unix:${site.host.runDirectory}/api.sock`];
      await reserved('rival');
      const has = (await as('rival').send('GET', '/v1/allocations?tenant=rival')).body.items.length as number;
      const set = await site.host.netctl(['tenant', 'set', 'rival', '--max-addresses', String(has), ...api]);
      assert.match(set.stdout, /tenant rival may have \d+ addresses/, set.stderr);
      assert.equal((await as('rival').send('PUT', '/v1/tenants/rival', { maxAddresses: 9 })).status, 403);
      const { items } = (await as('rival').send('GET', '/v1/tenants')).body;
      assert.deepEqual(
        items.map(({ name, maxAddresses, used }: { name: string; maxAddresses: number; used: number }) => [
          name,
          maxAddresses,
          used,
        ]),
        [['rival', has, has]],
      );
      assert.deepEqual((await as('acme').send('GET', '/v1/tenants')).body.items, []);
      const more = await as('rival').send('POST', '/v1/reservations', wish('rival'));
      assert.deepEqual(code(more), [403, 'QUOTA_EXCEEDED']);
      assert.equal((await site.host.netctl(['tenant', 'remove', 'rival', ...api])).code, 0);
      assert.equal((await as('rival').send('POST', '/v1/reservations', wish('rival'))).status, 201);
      const affinity = await site.host.netctl(['ipam', 'strict-affinity', 'off', ...api]);
      assert.equal(affinity.stdout, 'strict affinity is off\n', affinity.stderr);
      assert.equal((await site.host.netctl(['ipam', 'strict-affinity', 'on', ...api])).code, 0);
      const { strictAffinity } = (await as('operator').send('GET', '/v1/settings')).body;
      assert.equal(strictAffinity, true);
    });

    test('a node binds what is meant for it, and nothing else', async () => {
      const { id, address } = await reserved('acme');
      const bind = { generation: 1, container: 'c1', node: site.host.name };
      const path = `/v1/allocations/${address}/bind`;
      assert.deepEqual(
        code(await as('acme').send('POST', path, bind)),
        [403, 'FORBIDDEN'],
        'reserving is not binding',
      );
      assert.deepEqual(
        code(await as('node').send('POST', path, bind)),
        [403, 'NOT_OWNER'],
        'not yet for any node',
      );
      await as('acme').send('POST', `/v1/reservations/${id}/commit`, { node: site.host.name });
      assert.deepEqual(code(await as('elsewhere').send('POST', path, bind)), [403, 'FORBIDDEN']);
      assert.deepEqual(code(await as('elsewhere').send('POST', path, { ...bind, node: 'node-elsewhere' })), [
        403,
        'NOT_OWNER',
      ]);
      const bound = await as('node').send('POST', path, bind);
      assert.deepEqual([bound.status, bound.body.generation], [200, 2], JSON.stringify(bound.body));
      assert.equal(
        (await as('node').send('POST', `/v1/allocations/${address}/activate`, { generation: 2 })).status,
        200,
      );
      const unbind = (who: string) =>
        as(who).send('POST', `/v1/allocations/${address}/unbind`, { container: 'c1' });
      assert.equal((await unbind('elsewhere')).body.outcome, 'unknown');
      assert.equal((await unbind('node')).body.outcome, 'free');
      assert.equal((await unbind('node')).body.outcome, 'unknown', 'repeated');
    });

    test('what is forced is logged with who did it', async () => {
      const { address } = await reserved('acme');
      assert.equal(
        (await as('operator').send('POST', `/v1/allocations/${address}/release`, { force: true })).status,
        200,
      );
      await eventually('the log has it', 5000, async () => {
        const line = site.host
          .log()
          .split('\n')
          .find((text) => text.includes('forced change') && text.includes(address));
        return line !== undefined && JSON.parse(line).actor === 'CN=operator';
      });
      const again = await reserved('acme');
      await site.host.netctl(['ipam', 'release', '--ip', again.address, '--force']);
      await eventually('and who came over the socket', 5000, async () =>
        site.host
          .log()
          .split('\n')
          .some((text) => text.includes(again.address) && /"actor":"uid 0, process \d+"/.test(text)),
      );
    });

    test('an idempotency key is its caller’s own', async () => {
      const key = { 'idempotency-key': 'deploy-1' };
      const first = await as('acme').send('POST', '/v1/reservations', wish('acme'), key);
      const replay = await as('acme').send('POST', '/v1/reservations', wish('acme'), key);
      assert.deepEqual([replay.headers['idempotency-replayed'], replay.body], ['true', first.body]);
      const other = await as('rival').send('POST', '/v1/reservations', wish('rival'), key);
      assert.deepEqual([other.status, other.headers['idempotency-replayed']], [201, undefined]);
      assert.deepEqual(
        code(await as('acme').send('POST', '/v1/reservations', wish('acme', { ipv4: 2 }), key)),
        [422, 'IDEMPOTENCY_MISMATCH'],
      );
    });

    test('the command line with a certificate', async () => {
      const { cert, key, ca } = await site.pki.issue('cli', ['URI:netctl:scope:operator']);
      const api = ['--api', `https://${site.host.address}:${port}`, '--cert', cert, '--key', key, '--ca', ca];
      const { code: exit, stdout, stderr } = await site.host.netctl(['pool', 'show', '-o', 'name', ...api]);
      assert.deepEqual([exit, stdout], [0, 'pool/default\npool/gold\n'], stderr);
      const env = { NETCTL_API: `https://${site.host.address}:${port}`, NETCTL_CA: ca };
      assert.equal((await site.host.netctl(['pool', 'show'], { env })).code, 3, 'without a certificate');
    });

    test('a watch shows a tenant its own, from where it left off', async () => {
      const stream = await as('acme').watch('?kinds=address,reservation');
      const { revision } = (await stream.until('a bookmark', ({ type }) => type === 'bookmark')).data;
      assert.ok(revision > 0);
      const mine = await reserved('acme');
      const theirs = await reserved('rival');
      const later = await reserved('acme');
      await stream.until('the later one', ({ data }) => data.name === later.address);
      const all = await as('operator').watch(`?since=${revision}`);
      await all.until('the rival’s', ({ data }) => data.name === theirs.address);
      await all.until('the later one', ({ data }) => data.name === later.address);
      all.close();
      const text = JSON.stringify(stream.events);
      assert.ok(
        !text.includes('rival') && !text.includes(theirs.id) && !text.includes(`"${theirs.address}"`),
        text,
      );
      const first = stream.events.find(({ data }) => data.name === mine.address)!;
      assert.deepEqual(
        [first.type, first.data.kind, first.data.object.state],
        ['put', 'address', 'reserved'],
      );
      const from = stream.last;
      stream.close();
      await as('acme').send('POST', `/v1/reservations/${mine.id}/cancel`, {});
      await as('rival').send('POST', `/v1/reservations/${theirs.id}/cancel`, {});
      await as('acme').send('POST', `/v1/reservations/${later.id}/cancel`, {});
      const resumed = await as('acme').watch(`?since=${from}&kinds=address,reservation`);
      await resumed.until('the end of the later one', ({ data }) => data.name === later.id);
      const gone = resumed.events.filter(({ type }) => type === 'delete').map(({ data }) => data.name);
      assert.deepEqual(gone.sort(), [mine.address, mine.id, later.address, later.id].sort());
      resumed.close();
      await assert.rejects(as('acme').watch('?since=another-node:5'), /410/);
      await assert.rejects(as('acme').watch('?since=999999999'), /410/);
      await assert.rejects(as('acme').watch('?since=x'), /400/);
      await assert.rejects(as('acme').watch('?tenant=rival'), /403/);
    });

    test('200 containers in two round trips: reserved by four, bound in one batch', async (t) => {
      const reserve = Array.from({ length: 4 }, (_, i) => ({
        op: 'reserve',
        ...wish('acme', {
          id: `many-${i}`,
          pools: ['gold'],
          instances: Array.from({ length: 50 }, (_, n) => `${i}-${n}`),
          node: site.host.name,
        }),
      }));
      const made = await as('acme').send('POST', '/v1/allocations:batch', { operations: reserve });
      assert.equal(made.body.failed, 0, JSON.stringify(made.body).slice(0, 500));
      const addresses = made.body.items.flatMap(
        ({ result }: { result: { addresses: { address: string }[] } }) => result.addresses,
      );
      assert.equal(addresses.length, 200);
      const bind = addresses.map(({ address }: { address: string }) => ({
        op: 'bind',
        address,
        generation: 1,
        container: `c-${address}`,
        node: site.host.name,
      }));
      const began = performance.now();
      const bound = await as('node').send('POST', '/v1/allocations/batch', {
        operations: [...bind, bind[0], { op: 'release', address: addresses[0].address, generation: 2 }],
      });
      assert.equal(bound.status, 200, JSON.stringify(bound.body).slice(0, 500));
      const { items } = bound.body;
      t.diagnostic(`200 binds in one batch: ${Math.round(performance.now() - began)} ms`);
      assert.ok(
        items
          .slice(0, 201)
          .every(
            ({ status, result }: { status: number; result: { generation: number } }) =>
              status === 200 && result.generation === 2,
          ),
        JSON.stringify(items.filter((i: { status: number }) => i.status !== 200).slice(0, 3)),
      );
      assert.deepEqual(
        [items[201].status, items[201].error.code],
        [403, 'FORBIDDEN'],
        'a node does not release',
      );
      const some = addresses
        .slice(0, 40)
        .map(({ address }: { address: string }) => ({ op: 'unbind', address, container: `c-${address}` }));
      const stale = { op: 'activate', address: addresses[60].address, generation: 9 };
      const none = await as('node').send('POST', '/v1/allocations/batch', {
        atomic: true,
        operations: [...some, stale],
      });
      assert.deepEqual(code(none), [412, 'STALE_GENERATION']);
      assert.equal(none.body.error.details.operation, 40);
      const still = await as('acme').send('GET', '/v1/allocations?state=bound&limit=1000');
      assert.equal(still.body.items.length, 200, 'nothing was unbound');
      const all = await as('node').send('POST', '/v1/allocations/batch', { atomic: true, operations: some });
      assert.deepEqual([all.status, all.body.failed], [200, 0], JSON.stringify(all.body).slice(0, 300));
      const check = await as('operator').send('GET', '/v1/ipam/check');
      assert.deepEqual(
        check.body.items.filter(({ kind }: { kind: string }) => kind !== 'leaked'),
        [],
      );
    });

    test('SIGHUP: new files count from the next connection on, broken ones do not', async () => {
      const serial = () =>
        new Promise<string>((resolve, reject) => {
          const { cert, key, ca } = files;
          const [certificate, secret, authority] = [cert, key, ca].map((path) => readFileSync(path));
          const socket = connectTls(
            { host: site.host.address, port, cert: certificate, key: secret, ca: authority },
            () => {
              resolve(socket.getPeerCertificate().serialNumber);
              socket.destroy();
            },
          );
          socket.on('error', reject);
        });
      const files = await site.pki.issue('hup', ['URI:netctl:scope:operator']);
      const before = await serial();
      const { cert } = await site.pki.issue('agent', [`IP:${site.host.address}`]);
      process.kill(site.host.agentPid!, 'SIGHUP');
      const renewed = await eventually('the new certificate', 10_000, async () => {
        const now = await serial();
        return now === before ? null : now;
      });
      writeFileSync(cert, 'torn');
      process.kill(site.host.agentPid!, 'SIGHUP');
      await eventually('the log says so', 10_000, async () => /not read anew/.test(site.host.log()));
      assert.equal(await serial(), renewed);
    });

    test('health and metrics, on their own listener and for operators', async () => {
      const page = (path: string) => site.host.mustExec(['curl', '-sS', `http://127.0.0.1:9191${path}`]);
      assert.equal(await page('/healthz'), 'ok\n');
      assert.equal(await page('/readyz'), 'ready\n');
      const text = await page('/metrics');
      assert.match(text, /^netctl_request_seconds_count\{operation="POST \/v1\/reservations"\} [1-9]/m);
      assert.match(text, /^netctl_ipam_addresses\{pool="gold",state="bound"\} 160$/m);
      assert.match(text, /^netctl_ipam_lost_races_total \d+$/m);
      if (store === 'etcd') assert.match(text, /^netctl_replication_waiting \d+$/m);
      assert.equal((await as('operator').send('GET', '/metrics')).status, 200);
    });

    test('a stream ends with its agent, which does not wait for it', async () => {
      const stream = await as('acme').watch('');
      await stream.until('a bookmark', ({ type }) => type === 'bookmark');
      const began = performance.now();
      await site.host.kill('SIGTERM');
      assert.ok(performance.now() - began < 8000, 'the agent ended by itself');
      await eventually('the stream has ended', 5000, async () => stream.ended);
    });
  });
}
