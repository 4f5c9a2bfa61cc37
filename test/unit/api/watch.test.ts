/**
 * Watching over a real connection: bookmarks, a log that is compacted, readers that do not read, too many of them.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mock, test } from 'node:test';
import { eventually } from '../../../lab/run.ts';
import { SqliteStore } from '../../../src/store/sqlite.ts';
import type { Json, Store } from '../../../src/store/store.ts';
import { addressRecord, makeApi } from './fixture.ts';

async function listening(store?: Store) {
  const fixture = makeApi(store === undefined ? {} : { store });
  await fixture.api.ready();
  await new Promise<void>((done) => fixture.api.server.listen(0, '127.0.0.1', done));
  const { port } = fixture.api.server.address() as AddressInfo;
  const open = (query: string): Promise<IncomingMessage> =>
    new Promise((resolve, reject) => {
      request({ port, host: '127.0.0.1', path: `/v1/watch${query}` })
        .on('response', resolve)
        .on('error', reject)
        .end();
    });
  const close = async () => {
    fixture.api.server.closeAllConnections();
    fixture.api.server.close();
    await fixture.api.close();
  };
  return { ...fixture, open, close };
}

const put = (store: Store, key: string, value: Json) => store.transact([], [{ kind: 'put', key, value }]);
const address = (tenant: string, state = 'active') =>
  addressRecord({
    owner: { tenant, app: 'a', instance: '0' },
    state,
    ...(state === 'cooldown' ? { cooldownUntil: '2026-01-02T03:05:05.000Z' } : {}),
  });

/** Only what is new is looked at, since the text may be long. */
async function textUntil(response: IncomingMessage, pattern: RegExp): Promise<string> {
  const parts: string[] = [];
  for await (const part of response.setEncoding('utf8')) {
    parts.push(part);
    if (pattern.test(parts.slice(-2).join(''))) break;
  }
  return parts.join('');
}

test('a bookmark every 30 s carries a quiet stream on, past what is not for it', async () => {
  mock.timers.enable({ apis: ['setInterval'] });
  const { store, open, close } = await listening();
  try {
    const response = await open('?since=0&kinds=pool');
    await put(store, 'addresses/10.0.0.1', address('t'));
    await put(store, 'addresses/10.0.0.2', address('t'));
    await eventually('both were passed over', 5000, async () => {
      mock.timers.tick(30_000);
      return true;
    });
    const ticking = setImmediate(() => mock.timers.tick(30_000));
    const text = await textUntil(response, /"revision":2,"type":"bookmark"/);
    clearImmediate(ticking);
    assert.match(
      text,
      /^event: bookmark\nid: node1:0\ndata: \{"revision":0,"type":"bookmark","node":"node1"\}\n\n/,
    );
    assert.doesNotMatch(text, /10\.0\.0\.1/);
  } finally {
    mock.timers.reset();
    await close();
  }
});

test('one transaction is events whose last alone has an id', async () => {
  const { store, open, close } = await listening();
  try {
    const response = await open('?since=0');
    await store.transact(
      [],
      [
        { kind: 'put', key: 'addresses/10.0.0.1', value: address('t') },
        { kind: 'put', key: 'addresses/10.0.0.2', value: address('t') },
        { kind: 'put', key: 'idempotency/x', value: {} },
      ],
    );
    const text = await textUntil(response, /10\.0\.0\.2/);
    const events = text.split('\n\n').filter((event) => event.startsWith('event: put'));
    assert.deepEqual(
      events.map((event) => /\nid: (.*)\n/.exec(event)?.[1] ?? null),
      [null, 'node1:1'],
    );
  } finally {
    await close();
  }
});

test('a tenant learns that an address is its no more, and nothing of what comes then', async () => {
  const { store, open, close } = await listening();
  const owner = (tenant: string) => `owners/${tenant}/a/0/10.0.0.1`;
  try {
    const response = await open('?since=0&tenant=t');
    const write = (writes: Parameters<Store['transact']>[1]) => store.transact([], writes);
    await write([
      { kind: 'put', key: 'addresses/10.0.0.1', value: address('t') },
      { kind: 'put', key: owner('t'), value: {} },
    ]);
    await write([
      { kind: 'put', key: 'addresses/10.0.0.1', value: address('t', 'cooldown') },
      { kind: 'delete', key: owner('t') },
    ]);
    await write([{ kind: 'delete', key: 'addresses/10.0.0.1' }]);
    await write([
      { kind: 'put', key: 'addresses/10.0.0.1', value: address('u') },
      { kind: 'put', key: owner('u'), value: {} },
    ]);
    await write([{ kind: 'put', key: 'pools/p', value: {} }]);
    await write([{ kind: 'put', key: 'addresses/10.0.0.9', value: address('t') }]);
    const text = await textUntil(response, /10\.0\.0\.9/);
    const seen = text
      .split('\n')
      .filter((line) => line.startsWith('data: '))
      .map((line) => JSON.parse(line.slice(6)));
    assert.deepEqual(
      seen
        .filter(({ type }) => type !== 'bookmark')
        .map(({ revision, type, name }) => [revision, type, name]),
      [
        [1, 'put', '10.0.0.1'],
        [2, 'delete', '10.0.0.1'],
        [6, 'put', '10.0.0.9'],
      ],
    );
  } finally {
    await close();
  }
});

test('what the log has no more is 410', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'netctl-watch-'));
  const store = new SqliteStore({ path: join(directory, 'x.db'), keepRevisions: 10 });
  const { open, close } = await listening(store);
  try {
    for (let i = 0; i < 300; i++) await put(store, 'pools/p', i);
    const refused = await eventually('the log is compacted', 10_000, async () => {
      await put(store, 'pools/p', null);
      const response = await open('?since=1');
      if (response.statusCode === 410) return response;
      response.destroy();
      return null;
    });
    const { error } = JSON.parse((await refused.setEncoding('utf8').toArray()).join(''));
    assert.deepEqual([error.code, error.retryable], ['REVISION_COMPACTED', false]);
  } finally {
    await close();
    await store.close();
    rmSync(directory, { recursive: true });
  }
});

test('a reader that does not read costs no more than a buffer, and gets everything when it does', async () => {
  const { api, store, open, close } = await listening();
  const sockets: Socket[] = [];
  api.server.on('connection', (socket: Socket) => sockets.push(socket));
  try {
    const response = await open('?since=0');
    response.pause();
    const filler = 'x'.repeat(32_768);
    const count = 600;
    let most = 0;
    for (let i = 1; i <= count; i++) {
      await put(store, 'pools/p', { i, filler });
      most = Math.max(most, sockets[0]!.writableLength);
    }
    assert.ok(most > 0, 'it was held up');
    assert.ok(most < 1 << 20, `${most} bytes of ${count * filler.length} waited in memory`);
    const text = await textUntil(response, new RegExp(`"i":${count},`));
    const seen = [...text.matchAll(/"i":(\d+),/g)].map(([, i]) => Number(i));
    assert.deepEqual(
      seen,
      Array.from({ length: count }, (_, i) => i + 1),
    );
  } finally {
    await close();
  }
});

test('more than 200 streams are refused for the moment', async () => {
  const { open, close } = await listening();
  try {
    const streams = await Promise.all(Array.from({ length: 200 }, () => open('')));
    assert.ok(streams.every(({ statusCode }) => statusCode === 200));
    const one = await open('');
    const { error } = JSON.parse((await one.setEncoding('utf8').toArray()).join(''));
    assert.deepEqual([one.statusCode, error.code, error.retryable], [429, 'RATE_LIMITED', true]);
    streams[0]!.destroy();
    await eventually('there is room again', 5000, async () => {
      const again = await open('');
      return again.statusCode === 200;
    });
  } finally {
    await close();
  }
});
