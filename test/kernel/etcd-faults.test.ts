/**
 * The etcd store on a bad day: a frozen server, cut connections, lost answers, compaction, a wiped keyspace, an outage.
 *
 * In: a real etcd each, some behind a proxy. Out: nothing lost, nothing twice, an error within the deadline, little work while
 * nothing can be done. Never: a verdict from the store alone: etcdctl says what was written.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../../src/lib/clock.ts';
import { NetctlError } from '../../src/lib/errors.ts';
import type { EtcdStore } from '../../src/store/etcd.ts';
import type { Json } from '../../src/store/store.ts';
import { Syncer } from '../../src/store/syncer.ts';
import { absent, commit, hasCode, modified, put, Recorder, remove } from '../unit/store/support.ts';
import { type Cluster, healthy, startEtcd, TcpProxy, waitFor } from './etcd-harness.ts';

const withEtcd = (body: (etcd: Cluster) => Promise<void>) => async () => {
  const etcd = await startEtcd();
  try {
    await body(etcd);
  } finally {
    await etcd.dispose();
  }
};

const withProxy = (body: (etcd: Cluster, proxy: TcpProxy, store: EtcdStore) => Promise<void>) =>
  withEtcd(async (etcd) => {
    const proxy = await TcpProxy.to(etcd.endpoints[0]!);
    const store = etcd.open({ endpoints: [proxy.endpoint()] });
    try {
      await body(etcd, proxy, store);
    } finally {
      await store.close();
      await proxy.close();
    }
  });

/** Milliseconds until it failed, and how. */
async function failure(call: Promise<unknown>): Promise<{ after: number; error: NetctlError }> {
  const start = performance.now();
  const error = await call.then(
    () => assert.fail('the call succeeded'),
    (thrown) => thrown,
  );
  assert.ok(error instanceof NetctlError, String(error));
  return { after: performance.now() - start, error };
}

const wholeNumbers = (count: number, from = 1) => Array.from({ length: count }, (_, index) => from + index);

describe('etcd store on a bad day', { concurrency: 3 }, () => {
  test(
    'a frozen server: calls end in time, the loss is noticed, the watch goes on where it stood',
    withEtcd(async (etcd) => {
      const [store, other] = [etcd.open(), etcd.open()];
      const recorder = new Recorder();
      const first = await commit(store, put('a'));
      await commit(other, put('b'));
      store.watch('', first - 1, recorder);
      await waitFor(() => recorder.changeSets.length === 2, 'two change sets');
      // A connection whose only use is the watch: its keepalive has to notice.
      const quiet = etcd.open();
      quiet.watch('', first + 1, new Recorder());
      await waitFor(() => quiet.status().connected, 'the quiet connection');
      await sleep(200);

      await etcd.members[0]!.freeze();
      const stopped = performance.now();
      const [read, write] = await Promise.all([
        failure(store.get('a')),
        failure(store.transact([absent('c')], [put('c')])),
      ]);
      assert.ok(read.after < 5500 && write.after < 5500, `${read.after} and ${write.after} ms`);
      assert.equal(write.error.code, 'STORE_UNAVAILABLE');
      assert.equal(write.error.details['outcome'], 'unknown');
      assert.match(write.error.message, /not known whether it was carried out/);
      assert.equal(store.status().connected, false);
      const { after, error } = await failure(store.get('a'));
      assert.ok(after < 2500 && error.details['outcome'] === 'not-sent', `${after} ms, ${error.message}`);
      await waitFor(() => !quiet.status().connected, 'the quiet connection to be given up', 9000);
      assert.ok(performance.now() - stopped < 8500, `${performance.now() - stopped} ms`);
      assert.match(quiet.status().error ?? '', /etcd 127/);

      etcd.members[0]!.thaw();
      await waitFor(() => store.status().connected, 'the connection', 12_000);
      await commit(store, put('d'));
      await waitFor(() => recorder.keys().includes('d'), 'the watch', 12_000);
      // The frozen server had the write of c in its socket: it was carried out once, as its error said it might be.
      const { entries } = await store.list('');
      const expected = entries.toSorted((a, b) => a.modified - b.modified).map((entry) => entry.key);
      assert.deepEqual(recorder.keys(), expected);
      assert.ok(expected.includes('d'));
      assert.deepEqual(recorder.ends, []);
    }),
  );

  test(
    'connections cut in mid-backlog: 20,000 changes arrive once and in order',
    withProxy(async (etcd, proxy, store) => {
      const writer = etcd.open();
      const total = 20_000;
      const first = await commit(writer, put('k0', 0));
      const value = 'x'.repeat(240);
      let next = 1;
      const write = async () => {
        for (let mine = next++; mine < total; mine = next++) await commit(writer, put(`k${mine}`, value));
      };
      await Promise.all(Array.from({ length: 100 }, write));

      // etcd sends a backlog in batches of 1,000 revisions, here of about 300 kB: each connection gets on by two.
      proxy.cutEach = 700_000;
      proxy.cuts = 6;
      const recorder = new Recorder();
      store.watch('k', first - 1, recorder);
      await waitFor(
        () => recorder.changeSets.length >= total,
        () => `all changes; ${recorder.changeSets.length} arrived`,
      );
      await sleep(300);
      assert.deepEqual(recorder.revisions(), wholeNumbers(total, first));
      assert.equal(new Set(recorder.keys()).size, total);
      assert.deepEqual(recorder.ends, []);
      assert.ok(
        proxy.cuts === 0 && proxy.accepted >= 7,
        `${proxy.cuts} cuts left, ${proxy.accepted} connections`,
      );
    }),
  );

  test(
    'cuts while others write: nothing is skipped or repeated',
    withProxy(async (etcd, proxy, store) => {
      const writer = etcd.open();
      const recorder = new Recorder();
      const { revision } = await store.list('');
      store.watch('', revision, recorder);
      let writing = true;
      let written = 0;
      const write = (async () => {
        for (; writing; written++)
          await commit(writer, put(`k${written % 7}`, written), remove('gone'), put(`${written}`));
      })();
      for (let cut = 0; cut < 12; cut++) {
        // The last cut has to be noticed first; then some cuts come before the watch stands again, most after.
        await sleep(40);
        await waitFor(() => store.status().connected, 'a connection to cut');
        await sleep(37 * (1 + (cut % 4)));
        proxy.cut();
      }
      writing = false;
      await write;
      await waitFor(() => recorder.changeSets.length >= written, 'the last change');
      assert.deepEqual(recorder.revisions(), wholeNumbers(written, revision + 1));
      assert.ok(proxy.accepted >= 9, `${proxy.accepted} connections`);
    }),
  );

  test(
    'a transaction whose answer is lost: one error, one write, and the watch tells it',
    withProxy(async (etcd, proxy, store) => {
      const base = await commit(store, put('counter', 1));
      proxy.dropAnswers = true;
      const failing = failure(store.transact([], [put('counter', 2)]));
      await waitFor(() => proxy.dropped > 0, 'the answer');
      proxy.dropAnswers = false;
      proxy.cut();
      const { after, error } = await failing;
      assert.ok(after < 2500, `${after} ms`);
      assert.equal(error.code, 'STORE_UNAVAILABLE');
      assert.equal(error.details['outcome'], 'unknown');
      assert.match(error.message, /transaction of 0 compares and 1 writes failed: .*not known whether/);
      await sleep(1000);
      const record = JSON.parse(await etcd.ctl('get', '/test/counter', '-w', 'json')).kvs[0];
      assert.equal(record.version, 2, 'the transaction was sent again');
      const entry = await store.get('counter');
      assert.deepEqual([entry?.value, entry?.modified], [2, base + 1]);
      const recorder = new Recorder();
      store.watch('', base - 1, recorder);
      await waitFor(() => recorder.changeSets.length >= 2, 'both changes');
      assert.deepEqual(recorder.revisions(), [base, base + 1]);
      assert.ok((await store.transact([modified('counter', base + 1)], [put('counter', 3)])).committed);
    }),
  );

  test(
    'compacted while disconnected: the watch says so, and a syncer is whole again',
    withProxy(async (etcd, proxy, store) => {
      const writer = etcd.open();
      await commit(writer, put('a', 1), put('b', 1));
      const seen = follow(store);
      await waitFor(() => seen.inSync === 1 && seen.now['b'] === 1, 'the first snapshot');
      const recorder = new Recorder();
      store.watch('', (await store.list('')).revision, recorder);
      await sleep(100);
      proxy.refuse = true;
      proxy.cut();
      await commit(writer, remove('a'), put('c', 2));
      const last = await commit(writer, put('b', 3));
      await etcd.ctl('compaction', String(last));
      proxy.refuse = false;
      await waitFor(() => recorder.ends.length === 1, 'the end of the watch');
      assert.ok(hasCode('STORE_COMPACTED')(recorder.ends[0]), String(recorder.ends[0]));
      assert.deepEqual(recorder.changeSets, []);
      await waitFor(() => seen.now['b'] === 3, 'the new snapshot');
      assert.deepEqual(seen.now, { b: 3, c: 2 });
      assert.equal(seen.inSync, 1);
      seen.stop();
    }),
  );

  for (const [name, refilled] of [
    ['wiped', 0],
    ['wiped and filled beyond the old revision', 40],
  ] as const) {
    test(
      `a keyspace that was ${name}: STORE_COMPACTED, and a syncer takes the new one`,
      withEtcd(async (etcd) => {
        const proxy = await TcpProxy.to(etcd.endpoints[0]!);
        const store = etcd.open({ endpoints: [proxy.endpoint()] });
        const direct = etcd.open();
        for (let count = 0; count < 20; count++) await commit(direct, put('old', count));
        const recorder = new Recorder();
        store.watch('', (await store.list('')).revision, recorder);
        const seen = follow(store);
        await waitFor(() => seen.now['old'] === 19, 'the first snapshot');
        proxy.refuse = true;
        proxy.cut();
        const [member] = etcd.members;
        await member!.kill();
        await member!.wipe();
        member!.start();
        await healthy(etcd);
        const fresh = etcd.open();
        await commit(fresh, put('new', 1));
        for (let count = 0; count < refilled; count++) await commit(fresh, put('new', count));
        proxy.refuse = false;
        await waitFor(() => recorder.ends.length === 1, 'the end of the watch');
        assert.ok(hasCode('STORE_COMPACTED')(recorder.ends[0]), String(recorder.ends[0]));
        assert.match(recorder.ends[0]!.message, /another history|future revision/);
        assert.deepEqual(recorder.changeSets, []);
        const expected = { new: refilled === 0 ? 1 : refilled - 1 };
        await waitFor(
          () => 'new' in seen.now && !('old' in seen.now),
          () => `the new keyspace, not ${JSON.stringify(seen.now)}`,
        );
        assert.deepEqual(seen.now, expected);
        await commit(fresh, put('new', 'later'));
        await waitFor(() => seen.now['new'] === 'later', 'a later change');
        seen.stop();
        await store.close();
        await proxy.close();
      }),
    );
  }

  test(
    'what etcd refuses is told from what is unknown',
    withEtcd(async (etcd) => {
      const store = etcd.open();
      const many = await failure(
        store.transact(
          [],
          wholeNumbers(129).map((index) => put(`k${index}`)),
        ),
      );
      assert.equal(many.error.code, 'INVALID');
      assert.match(many.error.message, /0 compares and 129 writes: too many operations/);
      for (const megabytes of [1.6, 3]) {
        const large = await failure(store.transact([], [put('large', 'x'.repeat(megabytes * 1024 * 1024))]));
        assert.deepEqual([large.error.code, large.error.details['outcome']], ['INVALID', 'refused']);
      }
      assert.deepEqual((await store.list('')).entries, []);
      assert.ok(store.status().connected);

      // A page of such values is larger than what gRPC takes at once; a watch gets them in fragments.
      const value = 'x'.repeat(1024 * 1024);
      for (const index of wholeNumbers(7)) await commit(store, put(`large${index}`, value));
      assert.deepEqual(
        (await store.list('')).entries.map((entry) => [entry.key, entry.value === value]),
        wholeNumbers(7).map((index) => [`large${index}`, true]),
      );

      const recorder = new Recorder();
      store.watch('large', 1, recorder);
      await waitFor(() => recorder.changeSets.length === 7, 'the large values');
      assert.ok(recorder.changeSets.every(({ changes }) => changes[0]?.entry?.value === value));

      await etcd.ctl('put', '/test/x', '{half');
      const { error } = await failure(store.list('x'));
      assert.match(error.message, /value of \/test\/x is not JSON/);
      // Outside the prefix anything may be.
      await etcd.ctl('put', '/test0', '{half');
      assert.equal((await store.list('large')).entries.length, 7);
    }),
  );

  test(
    'an outage: calls fail at once, the processor idles, all watches come back',
    withProxy(async (etcd, proxy, store) => {
      const { revision } = await store.list('');
      const recorders = wholeNumbers(20).map(() => new Recorder());
      for (const recorder of recorders) store.watch('', revision, recorder);
      await sleep(300);
      const before = systemClock.now();
      proxy.refuse = true;
      proxy.cut();
      await sleep(1000);
      const accepted = proxy.accepted;
      const status = store.status();
      assert.equal(status.connected, false);
      assert.ok(Math.abs(status.since - before) < 900, `${status.since - before} ms`);
      assert.match(status.error ?? '', /cannot be connected to|lost/);
      const call = await failure(store.transact([], [put('a')]));
      assert.ok(call.after < 2500, `${call.after} ms`);
      assert.equal(call.error.details['outcome'], 'not-sent');
      await sleep(4000);
      assert.ok(proxy.accepted - accepted <= 15, `${proxy.accepted - accepted} attempts in 4 s`);
      proxy.refuse = false;
      await commit(etcd.open(), put('b'));
      await waitFor(() => recorders.every((recorder) => recorder.changeSets.length === 1), 'all watches');
      assert.ok(store.status().connected);
    }),
  );
});

interface Followed {
  now: Record<string, Json>;
  inSync: number;
  stop(): void;
}

/** What a syncer on the store has said. */
function follow(store: EtcdStore): Followed {
  const seen: Followed = { now: {}, inSync: 0, stop: () => syncer.stop() };
  const syncer = new Syncer({
    store,
    prefix: '',
    clock: systemClock,
    listener: {
      onUpdates: (updates) => {
        for (const { key, entry } of updates) {
          if (entry) seen.now[key] = entry.value;
          else delete seen.now[key];
        }
      },
      onInSync: () => {
        seen.inSync += 1;
      },
      onStatus: () => {},
    },
  });
  return seen;
}
