/**
 * The etcd store on three members: one is killed or frozen, or the majority is gone.
 *
 * In: a real cluster of three. Out: what was acknowledged is there once, the watch goes on at another member. Never: the test's own
 * retry hiding a loss: after an error whose outcome is unknown it reads what is there.
 */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { NetctlError } from '../../src/lib/errors.ts';
import type { EtcdStore } from '../../src/store/etcd.ts';
import { absent, commit, put, Recorder } from '../unit/store/support.ts';
import { type Cluster, healthy, type Member, startEtcd, waitFor } from './etcd-harness.ts';

describe('etcd store on three members', () => {
  let etcd: Cluster;
  beforeEach(async () => {
    etcd = await startEtcd(3);
  });
  afterEach(() => etcd.dispose());

  /** The one that the store is connected to. */
  const memberOf = (store: EtcdStore): Member => {
    const { endpoint } = store.status();
    return etcd.members.find((member) => member.endpoint === `http://${endpoint}`)!;
  };

  test('kill -9 of a member during writes: each acknowledged write is there once, the watch sees each once', async () => {
    const store = etcd.open();
    const { revision } = await store.list('');
    const recorder = new Recorder();
    store.watch('', revision, recorder);
    const acknowledged: string[] = [];
    const counts = { unknown: 0, nothing: 0 };
    let writing = true;
    const write = async (name: string) => {
      for (let count = 0; writing; count++) {
        const key = `${name}/${count}`;
        for (;;) {
          try {
            const result = await store.transact([absent(key)], [put(key)]);
            assert.ok(result.committed, `${key} is there, but no call said so`);
            break;
          } catch (error) {
            assert.ok(error instanceof NetctlError, String(error));
            assert.equal(error.code, 'STORE_UNAVAILABLE');
            if (error.details['outcome'] !== 'unknown') counts.nothing += 1;
            else counts.unknown += 1;
            await sleep(20);
            if (error.details['outcome'] === 'unknown' && (await isThere(key))) break;
          }
        }
        acknowledged.push(key);
      }
    };
    const isThere = async (key: string): Promise<boolean> => {
      for (;;) {
        try {
          return (await store.get(key)) !== null;
        } catch {
          await sleep(20);
        }
      }
    };
    const writers = ['a', 'b', 'c', 'd'].map(write);
    const more = (than: number) => waitFor(() => acknowledged.length > than + 100, 'writes');
    await more(0);
    const killed = memberOf(store);
    await killed.kill();
    // What was under way is over, one way or another.
    await sleep(2500);
    await more(acknowledged.length);
    killed.start();
    await sleep(500);
    writing = false;
    await Promise.all(writers);
    assert.ok(counts.unknown > 0, 'nothing was under way when the member was killed');

    const keys = (await store.list('')).entries.map((entry) => entry.key);
    assert.deepEqual(keys, acknowledged.toSorted());
    await waitFor(() => recorder.changeSets.length >= keys.length, 'the watch');
    assert.deepEqual(recorder.keys().toSorted(), keys);
    assert.deepEqual(
      recorder.revisions(),
      recorder.revisions().toSorted((a, b) => a - b),
    );
    assert.deepEqual(recorder.ends, []);
  });

  test('a frozen member: calls and watches move to another within the time of one call', async () => {
    const store = etcd.open();
    const recorder = new Recorder();
    store.watch('', await commit(store, put('a')), recorder);
    await sleep(200);
    const frozen = memberOf(store);
    await frozen.freeze();
    const start = performance.now();
    // A read is asked again of another member; a write is not.
    assert.equal((await Promise.allSettled([store.transact([], [put('b')])]))[0]!.status, 'rejected');
    assert.ok(performance.now() - start < 5500);
    assert.equal((await store.get('a'))?.value, 'a');
    await commit(store, put('c'));
    await waitFor(() => recorder.keys().includes('c'), 'the watch at another member');
    assert.ok(performance.now() - start < 8000, `${performance.now() - start} ms`);
    frozen.thaw();
  });

  test('without a majority: refused soon, watches kept, and all well when it is back', async () => {
    const store = etcd.open();
    const recorder = new Recorder();
    store.watch('', await commit(store, put('a')), recorder);
    await sleep(100);
    const left = memberOf(store);
    const others = etcd.members.filter((member) => member !== left);
    await Promise.all(others.map((member) => member.kill()));
    await sleep(1500);
    const start = performance.now();
    // The member that is left knows that it has no leader: no call waits for its deadline.
    const nothingDone = { code: 'STORE_UNAVAILABLE', details: { outcome: 'not-sent' } };
    await assert.rejects(store.transact([], [put('lost')]), nothingDone);
    const alone = etcd.open({ endpoints: [left.endpoint] });
    await assert.rejects(alone.get('a'), { ...nothingDone, message: /no leader/ });
    assert.ok(performance.now() - start < 3000, `${performance.now() - start} ms`);
    for (const member of others) member.start();
    await healthy(etcd);
    await waitFor(() => store.status().connected, 'the connection');
    await commit(store, put('b'));
    await waitFor(() => recorder.keys().includes('b'), 'the watch');
    assert.deepEqual(recorder.ends, []);
  });
});
