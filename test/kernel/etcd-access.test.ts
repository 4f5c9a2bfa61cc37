/**
 * Who may talk to etcd: certificates, users, tokens that expire; and a bundled program that opens the store.
 *
 * In: real etcds with TLS or authentication. Out: access where it is due, a reason where it is not. Never: a password or key in
 * an error.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { EtcdOptions } from '../../src/store/etcd.ts';
import { commit, hasCode, put, Recorder } from '../unit/store/support.ts';
import { startEtcd, TcpProxy, waitFor } from './etcd-harness.ts';

const inDirectory = (body: (directory: string) => Promise<void>) => async () => {
  const directory = mkdtempSync(join(tmpdir(), 'netctl-etcd-'));
  try {
    await body(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
};

describe('access to etcd', { concurrency: 2 }, () => {
  test(
    'mutual TLS: with a certificate of the authority, and no other way',
    inDirectory(async (directory) => {
      const path = (name: string) => join(directory, name);
      for (const name of ['ours', 'theirs']) makeAuthority(path, name);
      for (const [name, authority] of [
        ['server', 'ours'],
        ['client', 'ours'],
        ['stranger', 'theirs'],
      ] as const)
        makeCertificate(path, name, authority);
      const trusted = [
        '--cert',
        path('client.crt'),
        '--key',
        path('client.key'),
        '--cacert',
        path('ours.crt'),
      ];
      const etcd = await startEtcd(1, {
        scheme: 'https',
        flags: [
          ...['--cert-file', path('server.crt'), '--key-file', path('server.key')],
          ...['--client-cert-auth', '--trusted-ca-file', path('ours.crt')],
        ],
        ctl: trusted,
      });
      try {
        const read = (name: string) => readFileSync(path(name));
        const [ca, cert, key] = [read('ours.crt'), read('client.crt'), read('client.key')];
        const store = etcd.open({ tls: { ca, cert, key } });
        const recorder = new Recorder();
        store.watch('', await commit(store, put('a', 1)), recorder);
        await commit(store, put('a', 2));
        await waitFor(() => recorder.changeSets.length === 1, 'the change');
        const strangers: [string, Partial<EtcdOptions>, RegExp][] = [
          ['no client certificate', { tls: { ca } }, /certificate|alert|cannot be connected|lost/],
          [
            'a client certificate of another authority',
            { tls: { ca, cert: read('stranger.crt'), key: read('stranger.key') } },
            /certificate|alert|cannot be connected|lost/,
          ],
          ['another authority for the server', { tls: { ca: read('theirs.crt'), cert, key } }, /certificate/],
          ['no TLS', { endpoints: etcd.endpoints.map((one) => one.replace('https', 'http')) }, /etcd 127/],
        ];
        for (const [name, options, message] of strangers) {
          const { tls: _, ...rest } = { tls: undefined, ...options };
          const stranger = etcd.open(options.tls ? options : rest);
          await assert.rejects(
            stranger.get('a'),
            (error) => hasCode('STORE_UNAVAILABLE')(error) && message.test((error as Error).message),
            name,
          );
        }
        assert.throws(() => etcd.open({ tls: { ca, cert } }), hasCode('INVALID'));
        assert.throws(() => etcd.open({ tls: { ca, cert, key: ca } }), hasCode('INVALID'));
      } finally {
        await etcd.dispose();
      }
    }),
  );

  test('user and password: tokens that expire are renewed, for calls and for watches', async () => {
    const etcd = await startEtcd(1, { flags: ['--auth-token-ttl', '3'] });
    const root = ['--user', 'root:rootword'];
    try {
      await etcd.ctl('user', 'add', 'root:rootword');
      await etcd.ctl('user', 'grant-role', 'root', 'root');
      await etcd.ctl('role', 'add', 'netctl');
      await etcd.ctl('role', 'grant-permission', 'netctl', '--prefix=true', 'readwrite', '/test/');
      await etcd.ctl('user', 'add', 'netctl:secretword');
      await etcd.ctl('user', 'grant-role', 'netctl', 'netctl');
      const login = { username: 'netctl', password: 'secretword' };
      // Configured before authentication is switched on.
      const early = etcd.open(login);
      await commit(early, put('early'));
      await etcd.ctl('auth', 'enable');
      await commit(early, put('early'));

      const proxy = await TcpProxy.to(etcd.endpoints[0]!);
      const store = etcd.open({ ...login, endpoints: [proxy.endpoint()] });
      const writer = etcd.open(login);
      const recorder = new Recorder();
      const first = await commit(store, put('a', 1));
      store.watch('', first, recorder);
      await commit(writer, put('a', 2));
      await waitFor(() => recorder.changeSets.length === 1, 'the first change');

      await sleep(4500);
      const late = new Recorder();
      // With an expired token, the new watch comes first: nothing else has renewed it.
      const watching = etcd.open(login);
      store.watch('', first, late);
      await waitFor(() => late.changeSets.length === 1, 'a watch with an expired token');
      await sleep(4500);
      proxy.cut();
      await commit(writer, put('a', 3));
      await waitFor(() => recorder.changeSets.length === 2 && late.changeSets.length === 2, 'both watches');
      await sleep(4500);
      assert.equal((await store.get('a'))?.value, 3);
      assert.deepEqual([recorder.ends, late.ends], [[], []]);

      const wrong = etcd.open({ ...login, password: 'otherword' });
      await assert.rejects(wrong.get('a'), (error) => {
        const message = (error as Error).message;
        return (
          /login of user netctl failed: authentication failed/.test(message) && !/otherword/.test(message)
        );
      });
      const outside = etcd.open({ ...login, prefix: '/other/' });
      await assert.rejects(outside.transact([], [put('a')]), { details: { outcome: 'refused' } });
      const refused = new Recorder();
      outside.watch('', 1, refused);
      await waitFor(() => refused.ends.length === 1, 'the end of a watch that is not permitted');
      assert.match(refused.ends[0]!.message, /permission denied/);
      await assert.rejects(etcd.open().get('a'), hasCode('STORE_UNAVAILABLE'));
      assert.match(await etcd.ctl(...root, 'get', '/test/a'), /3/);
      await watching.close();
      await store.close();
      await proxy.close();
    } finally {
      await etcd.dispose();
    }
  });

  test(
    'a program in one file opens the store',
    inDirectory(async (directory) => {
      const root = resolve(import.meta.dirname, '../..');
      const program = join(directory, 'program.ts');
      const bundle = join(directory, 'program.mjs');
      writeFileSync(
        program,
        `import { EtcdStore } from ${JSON.stringify(join(root, 'src/store/etcd.ts'))};
        import { systemClock } from ${JSON.stringify(join(root, 'src/lib/clock.ts'))};
        const nothing = () => {};
        const logger = { debug: nothing, info: nothing, warn: nothing, error: nothing };
        const store = new EtcdStore({ endpoints: [process.argv[2]!], prefix: '/test/', clock: systemClock, logger });
        const result = await store.transact([], [{ kind: 'put', key: 'bundled', value: 1 }]);
        const seen = new Promise((onChanges, onEnd) =>
          store.watch('', (result as { revision: number }).revision - 1, { onChanges, onEnd }));
        console.log(JSON.stringify(await seen));
        await store.close();`,
      );
      // As scripts/bundle makes the agent.
      execFileSync(join(root, 'node_modules/.bin/esbuild'), [
        ...['--bundle', '--platform=node', '--target=node24', '--log-level=error', '--format=esm'],
        '--banner:js=import { createRequire as makeRequire } from "node:module"; const require = makeRequire(import.meta.url);',
        `--outfile=${bundle}`,
        program,
      ]);
      const etcd = await startEtcd();
      try {
        const output = execFileSync(process.execPath, [bundle, etcd.endpoints[0]!], {
          cwd: directory,
          timeout: 10_000,
          encoding: 'utf8',
        });
        assert.equal(JSON.parse(output).changes[0].key, 'bundled');
      } finally {
        await etcd.dispose();
      }
    }),
  );

  test('options that cannot work are refused', async () => {
    const etcd = await startEtcd();
    try {
      const wrong: [Partial<EtcdOptions>, RegExp][] = [
        [{ endpoints: [] }, /etcd\.endpoints/],
        [{ endpoints: ['127.0.0.1:2379'] }, /"127\.0\.0\.1:2379" is not valid: expected http:\/\/HOST:PORT/],
        [{ endpoints: ['http://a:1', 'https://b:1'] }, /the same for all/],
        [{ endpoints: ['http://a:1/path'] }, /etcd\.endpoints/],
        [{ username: 'a' }, /username and password together/],
        [{ tls: {} }, /endpoints with https/],
        [{ prefix: '' }, /etcd\.prefix/],
      ];
      for (const [options, message] of wrong) {
        assert.throws(
          () => etcd.open(options),
          (error) => hasCode('INVALID')(error) && message.test(String(error)),
        );
      }
      const byName = etcd.endpoints[0]!.replace('127.0.0.1', 'localhost');
      await commit(etcd.open({ endpoints: [byName] }), put('a'));
    } finally {
      await etcd.dispose();
    }
  });
});

type Path = (name: string) => string;

const openssl = (...args: string[]) => execFileSync('/usr/bin/openssl', args, { stdio: 'ignore' });

function makeAuthority(path: Path, name: string): void {
  const key = [
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-keyout',
    path(`${name}.key`),
  ];
  openssl('req', '-x509', ...key, '-days', '2', '-subj', `/CN=${name}`, '-out', path(`${name}.crt`));
}

function makeCertificate(path: Path, name: string, authority: string): void {
  const key = [
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-keyout',
    path(`${name}.key`),
  ];
  openssl('req', ...key, '-subj', `/CN=${name}`, '-out', path(`${name}.csr`));
  writeFileSync(
    path(`${name}.ext`),
    'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n',
  );
  const signer = ['-CA', path(`${authority}.crt`), '-CAkey', path(`${authority}.key`), '-CAcreateserial'];
  const request = ['-in', path(`${name}.csr`), '-extfile', path(`${name}.ext`)];
  openssl('x509', '-req', ...request, ...signer, '-days', '2', '-out', path(`${name}.crt`));
}
