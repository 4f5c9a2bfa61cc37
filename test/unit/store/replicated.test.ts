/** The replicated store: who decides what, what waits for whom, and what a node does when it is alone. */
import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { MemoryStore } from '../../../src/store/memory.ts';
import type { Json, Write } from '../../../src/store/store.ts';
import { ManualClock } from './manual-clock.ts';
import { agrees, claim, eventually, TestNode, visible } from './replicated-fixture.ts';
import { absent, aWhile, commit, hasCode, modified, present, put, Recorder, remove } from './support.ts';

let cluster: MemoryStore;
let clock: ManualClock;

beforeEach(() => {
  cluster = new MemoryStore();
  clock = new ManualClock();
});

const inCluster = async (): Promise<Record<string, Json>> => visible(await cluster.list(''));
const isLive = (one: TestNode) =>
  eventually(clock, () => one.store.status().clusterReachable && one.store.status().held === null, 'cluster');
/** Lets timers and turns run while the promise is under way. */
async function running<T>(promise: Promise<T>): Promise<T> {
  let ended = false;
  const end = () => {
    ended = true;
  };
  promise.then(end, end);
  await eventually(clock, () => ended, 'an answer');
  return promise;
}

/** A registered node with a block of its own (by default 10.0.0.0/26) and a pool in the picture. */
async function settled(name = 'n1', block = '10.0.0.0-26', gatherMilliseconds = 0): Promise<TestNode> {
  await commit(cluster, put('pools/p', {}), put(`nodes/${name}`, {}));
  const one = await new TestNode(name, cluster, clock, { gatherMilliseconds }).open();
  await isLive(one);
  await running(one.put(`blocks/${block}`, claim(name)));
  await agrees(one);
  return one;
}

describe('records of the node', () => {
  test('are acknowledged without the cluster, and arrive there once and in order', async () => {
    const one = await settled();
    const recorder = new Recorder();
    cluster.watch('', (await cluster.list('')).revision, recorder);
    one.wire.cut('silent');
    const before = one.wire.transactions;
    await one.put('endpoints/n1/a', 1);
    await one.put('addresses/10.0.0.5', { node: 'n1' });
    await commit(one.store, put('owners/t/a/i/10.0.0.5'), remove('endpoints/n1/a'));
    await one.put('endpoints/n1/bgp', 'up');
    await aWhile();
    assert.equal(one.wire.transactions, before);
    assert.equal(one.store.status().waiting, 4);
    assert.deepEqual(recorder.changeSets, []);
    one.wire.mend();
    await agrees(one);
    const keys = recorder.keys().filter((key) => !key.startsWith('replication/'));
    assert.deepEqual(keys, ['addresses/10.0.0.5', 'endpoints/n1/bgp', 'owners/t/a/i/10.0.0.5']);
  });

  test('of one turn share a transaction; more than one takes goes in parts, in order', async () => {
    const one = await settled();
    const recorder = new Recorder();
    cluster.watch('endpoints/', (await cluster.list('')).revision, recorder);
    await Promise.all(
      Array.from({ length: 250 }, (_, i) => one.put(`endpoints/n1/${String(i).padStart(3, '0')}`)),
    );
    const many = Array.from({ length: 250 }, (_, i) => put(`endpoints/n1/x${String(i).padStart(3, '0')}`));
    await commit(one.store, ...many);
    await agrees(one);
    assert.deepEqual(recorder.keys(), recorder.keys().toSorted());
    assert.equal(recorder.keys().length, 500);
    assert.ok(recorder.changeSets.length <= 6, `${recorder.changeSets.length} transactions`);
    assert.ok(recorder.changeSets.every(({ changes }) => changes.length <= 120));
  });

  test('wait for more of them where that is asked for, and are sent together', async () => {
    const one = await settled('n1', '10.0.0.0-26', 10);
    const before = one.wire.transactions;
    for (const name of ['a', 'b', 'c']) {
      await one.put(`endpoints/n1/${name}`);
      await aWhile();
    }
    assert.equal(one.wire.transactions, before);
    // More had come: it waits on, until nothing has.
    clock.advance(10);
    await aWhile();
    assert.equal(one.wire.transactions, before);
    clock.advance(10);
    await aWhile();
    assert.equal(one.wire.transactions, before + 1);
    assert.ok('endpoints/n1/c' in (await inCluster()));
    await one.put('endpoints/n1/d');
    await aWhile();
    clock.advance(10);
    await aWhile();
    assert.equal(one.wire.transactions, before + 2);
  });

  test('do not wait for long where there is always more', async () => {
    const one = await settled('n1', '10.0.0.0-26', 10);
    const before = one.wire.transactions;
    await one.put('endpoints/n1/a');
    await aWhile();
    for (const name of ['b', 'c', 'd']) {
      assert.equal(one.wire.transactions, before);
      await one.put(`endpoints/n1/${name}`);
      await aWhile();
      clock.advance(10);
      await aWhile();
    }
    assert.equal(one.wire.transactions, before + 1);
    assert.ok('endpoints/n1/d' in (await inCluster()));
  });

  test('do not wait for more when a decision waits for them', async () => {
    const one = await settled('n1', '10.0.0.0-26', 10);
    await one.put('endpoints/n1/a', 1);
    await aWhile();
    const known = (await one.store.get('endpoints/n1/a'))!;
    // The clock stands: nothing here comes from a timer.
    const { committed } = await one.store.transact(
      [modified('endpoints/n1/a', known.modified)],
      [put('endpoints/n1/a', 2), put('profiles/x')],
    );
    assert.ok(committed);
    assert.equal((await inCluster())['endpoints/n1/a'], 2);
  });

  test('their echo changes nothing here', async () => {
    const one = await settled();
    await one.put('endpoints/n1/a', 1);
    await aWhile();
    const recorder = new Recorder();
    one.store.watch('', (await one.store.list('')).revision, recorder);
    await one.put('endpoints/n1/b', 1);
    await agrees(one);
    await aWhile();
    assert.deepEqual(
      recorder.keys().filter((key) => !key.startsWith('local/')),
      ['endpoints/n1/b'],
    );
  });

  test('an echo that comes late does not bring back what was before', async () => {
    const one = await settled();
    const recorder = new Recorder();
    one.wire.late = [];
    for (const value of [1, 2]) {
      await one.put('endpoints/n1/a', value);
      await eventually(
        clock,
        async () =>
          (await cluster.get('endpoints/n1/a'))?.value === value && one.store.status().waiting === 0,
        'the cluster',
      );
    }
    one.store.watch('endpoints/', (await one.store.list('')).revision, recorder);
    one.wire.catchUp();
    await aWhile();
    assert.deepEqual(recorder.keys(), []);
    await agrees(one);
  });

  test('a block lost at the last moment: nothing is written into it', async () => {
    const one = await settled();
    one.wire.before = () =>
      commit(cluster, put('blocks/10.0.0.0-26', claim('n2')), put('addresses/10.0.0.1', { node: 'n2' }));
    await one.put('addresses/10.0.0.1', { node: 'n1' });
    await eventually(clock, () => one.lost.length > 0, 'the loss');
    await agrees(one);
    assert.deepEqual((await cluster.get('addresses/10.0.0.1'))?.value, { node: 'n2' });
  });

  test('compares on the cluster’s records are evaluated on the mirror', async () => {
    const one = await settled();
    const pool = (await one.store.get('pools/p'))!;
    one.wire.cut();
    const held = await one.store.transact(
      [modified('pools/p', pool.modified), present('pools/p')],
      [put('addresses/10.0.0.1')],
    );
    assert.ok(held.committed);
    const lost = await one.store.transact([absent('pools/p')], [put('addresses/10.0.0.2')]);
    assert.deepEqual(lost, { committed: false, failed: 'pools/p' });
  });

  test('an answer that got lost: the batch is not sent twice', async () => {
    const one = await settled();
    const recorder = new Recorder();
    cluster.watch('endpoints/', (await cluster.list('')).revision, recorder);
    one.wire.loseAnswers = 2;
    await one.put('endpoints/n1/a', 1);
    await agrees(one);
    await one.put('endpoints/n1/a', 2);
    await agrees(one);
    assert.deepEqual(
      recorder.changeSets.map(({ changes }) => changes[0]?.entry?.value),
      [1, 2],
    );
  });

  test('killed between the local commit and replication, and after the cluster’s commit: each arrives once', async () => {
    const one = await settled();
    const recorder = new Recorder();
    cluster.watch('endpoints/', (await cluster.list('')).revision, recorder);
    await one.put('endpoints/n1/a', 1);
    one.kill();
    await one.open({}, true);
    await one.put('endpoints/n1/b', 2);
    await aWhile();
    assert.equal(one.store.status().waiting, 2);
    assert.equal(one.store.status().clusterReachable, false);
    one.wire.mend();
    await agrees(one);
    // The note of progress is not written yet: the log has all of it still.
    one.kill();
    await one.open();
    await isLive(one);
    await agrees(one);
    assert.deepEqual(recorder.keys(), ['endpoints/n1/a', 'endpoints/n1/b']);
  });

  test('a gap in the log: states are compared, also what is gone', async () => {
    const one = await settled();
    await one.put('endpoints/n1/old');
    await one.put('addresses/10.0.0.1');
    await agrees(one);
    clock.advance(2000);
    await aWhile();
    one.kill();
    await one.open({}, true);
    await commit(one.store, remove('endpoints/n1/old'));
    for (let i = 0; i < 20; i++) await one.put('endpoints/n1/new', i);
    one.kill();
    (one.localStore as MemoryStore).compact();
    await one.open({}, true);
    await aWhile();
    await one.put('endpoints/n1/last');
    one.wire.mend();
    await agrees(one);
    const records = await inCluster();
    assert.equal(records['endpoints/n1/new'], 19);
    assert.ok(!('endpoints/n1/old' in records) && 'endpoints/n1/last' in records);
  });

  test('more waits than is kept: states are compared', async () => {
    const one = await settled();
    one.kill();
    await one.open({ mostWaiting: 10 }, true);
    for (let i = 0; i < 35; i++) await one.put(`endpoints/n1/${i % 7}`, i);
    await commit(one.store, remove('endpoints/n1/3'));
    await aWhile();
    assert.ok(one.store.status().waiting >= 30, String(one.store.status().waiting));
    one.wire.mend();
    await agrees(one);
    assert.equal((await inCluster())['endpoints/n1/6'], 34);
    assert.ok(!('endpoints/n1/3' in (await inCluster())));
  });

  test('somebody else deletes one: it is put back', async () => {
    const one = await settled();
    await one.put('endpoints/n1/a', 1);
    await agrees(one);
    await commit(cluster, remove('endpoints/n1/a'));
    await eventually(clock, async () => (await cluster.get('endpoints/n1/a')) !== null, 'the endpoint');
    await agrees(one);
    assert.deepEqual(one.lost, []);
  });
});

describe('records of the cluster', () => {
  test('are decided there and mirrored down before the answer, with local revisions', async () => {
    const one = await settled();
    const two = await settled('n2', '10.0.0.64-26');
    const result = await running(one.store.transact([absent('profiles/x')], [put('profiles/x', 1)]));
    assert.ok(result.committed);
    assert.equal((await one.store.get('profiles/x'))?.modified, result.revision);
    await agrees(two);
    const known = (await two.store.get('profiles/x'))!;
    const second = await running(
      two.store.transact([modified('profiles/x', known.modified)], [put('profiles/x', 2)]),
    );
    assert.ok(second.committed);
    await agrees(one);
    assert.equal((await one.store.get('profiles/x'))?.value, 2);
  });

  test('need no flush of the disk here, where the node’s own word does', async () => {
    const one = await settled();
    one.local.unflushed.length = 0;
    await running(one.put('pools/q', {}));
    await one.put('endpoints/n1/a');
    await agrees(one);
    const keys = one.local.unflushed.filter((key) => !key.startsWith('local/'));
    assert.deepEqual(keys, ['pools/q']);
  });

  test('of two that compare the same state one wins; the other finds in its mirror what beat it', async () => {
    const one = await settled();
    const two = await settled('n2', '10.0.0.64-26');
    const results = await running(
      Promise.all(
        [one, two].map(async (each) => {
          const result = await each.store.transact(
            [absent('blocks/10.0.1.0-26')],
            [put('blocks/10.0.1.0-26', claim(each.name))],
          );
          return [result.committed, (await each.store.get('blocks/10.0.1.0-26'))?.value];
        }),
      ),
    );
    assert.equal(results.filter(([won]) => won).length, 1);
    assert.deepEqual(results[0]![1], results[1]![1]);
  });

  test('a stale revision is lost without asking the cluster', async () => {
    const one = await settled();
    const stale = (await one.store.get('pools/p'))!.modified;
    await running(one.put('pools/p', { changed: true }));
    const before = one.wire.transactions;
    const result = await running(one.store.transact([modified('pools/p', stale)], [put('pools/p', 3)]));
    assert.deepEqual(result, { committed: false, failed: 'pools/p' });
    assert.equal(one.wire.transactions, before);
  });

  test('without the cluster they are refused within 3 s, naming it, then at once; the rest goes on', async () => {
    for (const state of ['cut', 'silent'] as const) {
      const one = await settled(`n-${state}`, `10.0.${state === 'cut' ? 2 : 3}.0-26`);
      one.wire.cut(state);
      const started = clock.now();
      await assert.rejects(running(one.put('profiles/y')), {
        code: 'STORE_UNAVAILABLE',
        message: /^cluster: /,
      });
      assert.ok(clock.now() - started <= 3100, `${clock.now() - started} ms`);
      clock.advance(3000);
      await aWhile();
      const later = clock.now();
      await assert.rejects(one.put('profiles/y'), hasCode('STORE_UNAVAILABLE'));
      assert.equal(clock.now(), later);
      await one.put(`endpoints/${one.name}/a`);
      const status = one.store.status();
      assert.equal(status.clusterReachable, false);
      assert.ok(status.since! >= started - 20 && status.since! <= started + 3100);
      assert.match(status.error!, /./);
      one.wire.mend();
      await agrees(one);
      const { clusterReachable, since, error, waiting, oldest } = one.store.status();
      assert.deepEqual([clusterReachable, since, error, waiting, oldest], [true, null, null, 0, null]);
      await running(one.put('profiles/y'));
    }
  });

  test('a mixed transaction is decided as a whole, after what waits about its keys', async () => {
    const one = await settled();
    const recorder = new Recorder();
    cluster.watch('', (await cluster.list('')).revision, recorder);
    await one.put('endpoints/n1/e', 1);
    const known = (await one.store.get('endpoints/n1/e'))!;
    const result = await running(
      one.store.transact(
        [modified('endpoints/n1/e', known.modified), absent('blocks/10.0.1.0-26')],
        [put('endpoints/n1/e', 2), put('blocks/10.0.1.0-26', claim('n1')), put('addresses/10.0.1.1')],
      ),
    );
    assert.ok(result.committed);
    assert.equal((await one.store.get('addresses/10.0.1.1'))?.modified, result.revision);
    await agrees(one);
    const domain = recorder.changeSets.map(({ changes }) =>
      changes.map(({ key }) => key).filter((key) => !key.startsWith('replication/')),
    );
    assert.deepEqual(domain, [
      ['endpoints/n1/e'],
      ['addresses/10.0.1.1', 'blocks/10.0.1.0-26', 'endpoints/n1/e'],
    ]);
    one.wire.cut();
    await one.put('addresses/10.0.1.2');
  });

  test('who waits for one about its records may be overtaken by others: only what is awaited is in order', async () => {
    const one = await settled();
    one.wire.late = [];
    const decided = one.store.transact([], [put('endpoints/n1/a', 1), put('profiles/x')]);
    await eventually(clock, async () => 'profiles/x' in (await inCluster()), 'the decision');
    const first = one.store.transact([], [put('endpoints/n1/a', 2), put('endpoints/n1/sequence', 1)]);
    await one.put('endpoints/n1/sequence', 2);
    one.wire.catchUp();
    await running(Promise.all([decided, first]));
    await agrees(one);
    const { 'endpoints/n1/a': a, 'endpoints/n1/sequence': sequence } = await inCluster();
    assert.deepEqual({ a, sequence }, { a: 2, sequence: 1 });
  });

  test('a lost answer is found out: the caller gets the true one', async () => {
    const one = await settled();
    one.wire.loseAnswers = 1;
    const result = await running(one.store.transact([absent('profiles/x')], [put('profiles/x', 1)]));
    assert.ok(result.committed);
  });

  test('decided, answer lost, then cut off: its records are refused until it is known, and then as decided', async () => {
    const one = await settled();
    one.wire.loseAnswers = 1;
    const attempt = one.store.transact(
      [absent('endpoints/n1/e'), absent('blocks/10.0.1.0-26')],
      [put('endpoints/n1/e', 1), put('blocks/10.0.1.0-26', claim('n1')), put('addresses/10.0.1.1')],
    );
    attempt.catch(() => undefined);
    await eventually(clock, () => one.wire.loseAnswers === 0, 'the transaction');
    one.wire.cut();
    await assert.rejects(running(attempt), hasCode('STORE_UNAVAILABLE'));
    await assert.rejects(
      one.store.transact([absent('endpoints/n1/e')], [put('endpoints/n1/e', 2)]),
      hasCode('STORE_UNAVAILABLE'),
    );
    await one.put('endpoints/n1/other');
    one.wire.mend();
    await agrees(one);
    await eventually(clock, async () => (await one.records())['endpoints/n1/e'] === 1, 'the decision');
    await eventually(
      clock,
      async () =>
        one.put('endpoints/n1/e', 3).then(
          () => true,
          () => false,
        ),
      'the lock to end',
    );
    await agrees(one);
  });

  test('a claim is given back by its node alone, also cut off', async () => {
    const one = await settled();
    await one.put('addresses/10.0.0.1');
    one.wire.cut();
    const known = (await one.store.get('blocks/10.0.0.0-26'))!;
    const given = await one.store.transact(
      [modified('blocks/10.0.0.0-26', known.modified)],
      [remove('addresses/10.0.0.1'), remove('blocks/10.0.0.0-26')],
    );
    assert.ok(given.committed);
    // Not its own any more: only the cluster could decide.
    await assert.rejects(running(one.put('addresses/10.0.0.2')), hasCode('STORE_UNAVAILABLE'));
    one.wire.mend();
    await agrees(one);
    assert.deepEqual(Object.keys(await inCluster()), ['nodes/n1', 'pools/p']);
  });
});

describe('a block that becomes shared', () => {
  const shared = { ...(claim('n1') as object), shared: true } as Json;
  const share = (one: TestNode, ...others: Write[]) =>
    one.store.transact([present('blocks/10.0.0.0-26')], [put('blocks/10.0.0.0-26', shared), ...others]);

  test('what waits about it is sent first; from then on the cluster decides about its addresses', async () => {
    const one = await settled();
    const recorder = new Recorder();
    cluster.watch('', (await cluster.list('')).revision, recorder);
    await one.put('addresses/10.0.0.1');
    assert.ok((await running(share(one, put('addresses/10.0.0.2')))).committed);
    const domain = recorder.keys().filter((key) => !key.startsWith('replication/'));
    assert.deepEqual(domain, ['addresses/10.0.0.1', 'addresses/10.0.0.2', 'blocks/10.0.0.0-26']);
    await agrees(one);
    one.wire.cut();
    await assert.rejects(running(one.put('addresses/10.0.0.3')), hasCode('STORE_UNAVAILABLE'));
  });

  for (const end of ['cut off', 'killed'] as const) {
    test(`${end} before the answer: nothing is decided in it until the outcome is known`, async () => {
      const one = await settled();
      one.wire.loseAnswers = 1;
      const attempt = share(one);
      attempt.catch(() => undefined);
      await eventually(clock, () => one.wire.loseAnswers === 0, 'the transaction');
      if (end === 'killed') {
        one.kill();
        await one.open({}, true);
      } else {
        one.wire.cut();
        await assert.rejects(running(attempt), hasCode('STORE_UNAVAILABLE'));
      }
      await assert.rejects(running(one.put('addresses/10.0.0.3')), hasCode('STORE_UNAVAILABLE'));
      one.wire.mend();
      await agrees(one);
      assert.deepEqual((await one.records())['blocks/10.0.0.0-26'], shared);
      assert.deepEqual(one.lost, []);
      one.wire.cut();
      await assert.rejects(running(one.put('addresses/10.0.0.3')), hasCode('STORE_UNAVAILABLE'));
    });
  }

  test('refused: it is this node’s alone again', async () => {
    const one = await settled();
    one.wire.cut();
    await assert.rejects(running(share(one)), hasCode('STORE_UNAVAILABLE'));
    one.wire.mend();
    await isLive(one);
    const lost = await running(one.store.transact([absent('pools/p')], [put('blocks/10.0.0.0-26', shared)]));
    assert.deepEqual(lost, { committed: false, failed: 'pools/p' });
    await agrees(one);
    one.wire.cut();
    await one.put('addresses/10.0.0.3');
  });
});

describe('a new start', () => {
  test('without the cluster: the last known picture, and the node goes on', async () => {
    const one = await settled();
    await commit(cluster, put('profiles/x', 1));
    await agrees(one);
    one.kill();
    await one.open({}, true);
    assert.deepEqual(Object.keys(await one.records()), [
      'blocks/10.0.0.0-26',
      'nodes/n1',
      'pools/p',
      'profiles/x',
    ]);
    await one.put('addresses/10.0.0.9');
    await commit(cluster, remove('profiles/x'));
    one.wire.mend();
    await agrees(one);
    assert.ok(!('profiles/x' in (await one.records())));
  });

  test('with an empty local store: the node’s records come back from the cluster', async () => {
    const one = await settled();
    await one.put('endpoints/n1/a', 1);
    await agrees(one);
    one.kill();
    const again = await new TestNode('n1', cluster, clock).open();
    await agrees(again);
    await again.put('addresses/10.0.0.1');
    await again.put('endpoints/n1/a', 2);
    await agrees(again);
    assert.equal((await inCluster())['endpoints/n1/a'], 2);
    assert.deepEqual(again.lost, []);
  });
});

describe('a claim that is gone', () => {
  /** As `node remove` does: everything of the node, and the block for somebody else. */
  const removeNode = () =>
    commit(
      cluster,
      remove('nodes/n1'),
      put('blocks/10.0.0.0-26', claim('n2')),
      put('addresses/10.0.0.1', { node: 'n2' }),
      remove('addresses/10.0.0.2'),
      remove('endpoints/n1/a'),
      remove('endpoints/n1/b'),
    );
  const endpoint = (...addresses: string[]): Json => ({ addresses });

  for (const when of ['while the node is cut off', 'at the last moment'] as const) {
    test(`an address is taken out of it by force ${when}: what the node wrote there is lost, and said to be`, async () => {
      const one = await settled();
      await one.put('addresses/10.0.0.1', { node: 'n1' });
      await agrees(one);
      // As a transfer does that an operator forces.
      const force = () =>
        commit(
          cluster,
          put('blocks/10.0.0.0-26', { ...(claim('n1') as object), shared: true } as Json),
          put('addresses/10.0.0.1', { node: 'n2' }),
        );
      if (when === 'at the last moment') one.wire.before = force;
      else one.wire.cut();
      await commit(one.store, put('endpoints/n1/c', endpoint('10.0.0.3')), put('addresses/10.0.0.3', {}));
      await one.put('endpoints/n1/d');
      if (when !== 'at the last moment') await force();
      one.wire.mend();
      await agrees(one);
      assert.equal(one.store.status().dropped, 1);
      const records = await one.records();
      assert.deepEqual(records['addresses/10.0.0.1'], { node: 'n2' });
      assert.equal(records['addresses/10.0.0.3'], undefined, 'and its endpoint gives way');
      assert.ok('endpoints/n1/d' in records);
    });
  }

  test('made shared by force while the node gives it back: the node sees it as the cluster has it', async () => {
    const one = await settled();
    await one.put('addresses/10.0.0.1', { node: 'n1' });
    await agrees(one);
    one.wire.cut();
    await commit(one.store, remove('addresses/10.0.0.1'));
    await commit(one.store, remove('blocks/10.0.0.0-26'));
    const shared = { ...(claim('n1') as object), shared: true } as Json;
    await commit(cluster, put('blocks/10.0.0.0-26', shared), put('addresses/10.0.0.1', { node: 'n2' }));
    one.wire.mend();
    await agrees(one);
    assert.deepEqual((await one.records())['blocks/10.0.0.0-26'], shared);
  });

  for (const when of ['while it follows', 'while it is cut off', 'while it is down'] as const) {
    test(`${when}: the records are dropped, the loss reported, nothing of another node overwritten`, async () => {
      const one = await settled();
      await commit(
        one.store,
        put('endpoints/n1/a', endpoint('10.0.0.1')),
        put('addresses/10.0.0.1', { node: 'n1' }),
      );
      await commit(
        one.store,
        put('endpoints/n1/b', endpoint('10.0.0.2')),
        put('addresses/10.0.0.2', { node: 'n1' }),
      );
      await agrees(one);
      if (when === 'while it is cut off') {
        one.wire.cut();
        await one.put('addresses/10.0.0.1', { node: 'n1', again: true });
        await commit(one.store, put('endpoints/n1/c', endpoint('10.0.0.3')), put('addresses/10.0.0.3', {}));
      }
      if (when === 'while it is down') one.kill();
      await removeNode();
      if (when === 'while it is down') await one.open();
      one.wire.mend();
      await eventually(clock, () => one.lost.length > 0, 'the loss');
      await agrees(one);
      const lostEndpoints = when === 'while it is cut off' ? ['a', 'b', 'c'] : ['a', 'b'];
      assert.deepEqual(one.lost, [
        { blocks: ['10.0.0.0/26'], endpoints: lostEndpoints.map((id) => `endpoints/n1/${id}`) },
      ]);
      assert.deepEqual(await one.records(), {
        'addresses/10.0.0.1': { node: 'n2' },
        'blocks/10.0.0.0-26': claim('n2'),
        'pools/p': {},
      });
      await assert.rejects(
        running(one.store.transact([absent('addresses/10.0.0.1')], [put('addresses/10.0.0.1')])).then(
          (result) => {
            if (!result.committed) throw new Error('lost');
          },
        ),
        /lost/,
      );
    });
  }
});

describe('a cluster that is not what it was', () => {
  const wipe = async () => {
    const { entries } = await cluster.list('');
    await commit(cluster, ...entries.map(({ key }) => remove(key)));
  };

  for (const when of ['while it follows', 'while it is down'] as const) {
    test(`wiped ${when}: nothing is dropped, the node goes on, status says why; accepted, its picture is taken over`, async () => {
      const one = await settled();
      await commit(one.store, put('endpoints/n1/a', { addresses: ['10.0.0.1'] }), put('addresses/10.0.0.1'));
      await agrees(one);
      const before = await one.records();
      if (when === 'while it is down') one.kill();
      await wipe();
      if (when === 'while it is down') await one.open();
      await eventually(clock, () => one.store.status().held !== null, 'held');
      assert.match(one.store.status().held!, /wiped/);
      assert.deepEqual(await one.records(), before);
      await one.put('addresses/10.0.0.2');
      await assert.rejects(one.put('profiles/x'), { code: 'STORE_UNAVAILABLE', message: /wiped/ });
      assert.deepEqual(one.lost, []);
      one.store.acceptCluster();
      await eventually(clock, () => one.lost.length > 0, 'the loss');
      await agrees(one);
      assert.deepEqual(await one.records(), {});
      await running(one.put('profiles/x'));
    });
  }

  test('wiped and put back: goes on where it stood', async () => {
    const one = await settled();
    await one.put('endpoints/n1/a', 1);
    await agrees(one);
    const copy = (await cluster.list('')).entries;
    await wipe();
    await eventually(clock, () => one.store.status().held !== null, 'held');
    await one.put('endpoints/n1/b', 2);
    await commit(cluster, ...copy.map(({ key, value }) => put(key, value)));
    await agrees(one);
    assert.equal(one.store.status().held, null);
    assert.deepEqual(one.lost, []);
    assert.equal((await inCluster())['endpoints/n1/b'], 2);
  });

  test('put back from an older copy: what it lacks of this node is sent again', async () => {
    const one = await settled();
    await one.put('endpoints/n1/a', 1);
    await agrees(one);
    const copy = (await cluster.list('')).entries;
    await one.put('endpoints/n1/b', 2);
    await commit(one.store, remove('endpoints/n1/a'));
    await agrees(one);
    one.kill();
    const older = new MemoryStore();
    await commit(older, ...copy.map(({ key, value }) => put(key, value)));
    const again = await new TestNode('n1', older, clock, {}, one.localStore).open();
    await agrees(again);
    assert.ok('endpoints/n1/b' in visible(await older.list('')));
    assert.ok(!('endpoints/n1/a' in visible(await older.list(''))));
  });

  test('the local store is an older copy of itself: what the cluster has is taken over', async () => {
    const one = await settled();
    await one.put('endpoints/n1/old', 1);
    await agrees(one);
    clock.advance(2000);
    await aWhile();
    const old = new MemoryStore();
    for (const { key, value } of (await one.localStore.list('')).entries) await commit(old, put(key, value));
    for (let i = 0; i < 40; i++) await one.put('endpoints/n1/new', i);
    await commit(one.store, remove('endpoints/n1/old'));
    await agrees(one);
    one.kill();
    const again = await new TestNode('n1', cluster, clock, {}, old).open();
    await agrees(again);
    const keys = Object.keys(await again.records());
    assert.ok(keys.includes('endpoints/n1/new') && !keys.includes('endpoints/n1/old'), keys.join(' '));
    await again.put('endpoints/n1/next');
    await agrees(again);
    again.kill();
    await again.open();
    await agrees(again);
    assert.ok('endpoints/n1/next' in (await inCluster()));
  });

  test('a second agent of the same name: one of them is held', async () => {
    const one = await settled();
    const two = await new TestNode('n1', cluster, clock).open();
    await isLive(two);
    await two.put('endpoints/n1/two');
    await eventually(clock, () => one.store.status().held !== null, 'held');
    assert.match(one.store.status().held!, /another agent writes to the cluster as node n1/);
  });
});

test('idle: no timers, no transactions; cut off: a try every few seconds', async () => {
  const one = await settled();
  clock.advance(2000);
  await aWhile();
  const before = one.wire.transactions;
  await aWhile();
  assert.equal(one.wire.transactions, before);
  assert.deepEqual(clock.waiting(), []);
  one.wire.cut();
  await one.put('endpoints/n1/a');
  let fired = 0;
  for (let i = 0; i < 600; i++) {
    fired += clock.waiting().filter((delay) => delay <= 100).length;
    clock.advance(100);
    await aWhile();
  }
  assert.ok(fired <= 30, `${fired} timers in a minute`);
});
