/** Killed after the cluster has decided and before the node heard of it: its next life believes the cluster. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryStore } from '../../../src/store/memory.ts';
import type { ChangeSet, TransactionResult } from '../../../src/store/store.ts';
import { ManualClock } from './manual-clock.ts';
import { agrees, eventually, TestNode } from './replicated-fixture.ts';
import { absent, aWhile, commit, modified, put, remove } from './support.ts';

const address = 'addresses/10.1.0.9';
const endpoint = 'endpoints/n1/a';

/** A node whose endpoint has an address that the cluster decides about, and others around it. */
async function attached(): Promise<{ node: TestNode; cluster: MemoryStore; clock: ManualClock }> {
  const cluster = new MemoryStore();
  await commit(cluster, put('pools/p', {}), put('nodes/n1', {}));
  const clock = new ManualClock();
  const node = await new TestNode('n1', cluster, clock).open();
  await agrees(node);
  await node.store.transact([absent(address)], [put(address, { node: 'n1' }), put(endpoint, {})]);
  await node.put('endpoints/n1/other');
  await agrees(node);
  return { node, cluster, clock };
}

/** Decides, and dies before the local store hears of it. */
async function killedAfterDeciding(node: TestNode, cluster: MemoryStore, act: () => void): Promise<void> {
  const { revision } = await cluster.list('');
  node.wire.late = [];
  act();
  await eventually(
    node.clock,
    async () => (await cluster.list('')).revision > revision,
    'the cluster to decide',
  );
  node.kill();
}

for (const compacted of [false, true]) {
  test(`a removal${compacted ? ', the local log gone meanwhile' : ''}: the endpoint does not come back without its address`, async () => {
    const { node, cluster } = await attached();
    const [one, two] = [await node.store.get(address), await node.store.get(endpoint)];
    await killedAfterDeciding(node, cluster, () => {
      void node.store.transact(
        [modified(address, one!.modified), modified(endpoint, two!.modified)],
        [remove(address), remove(endpoint)],
      );
    });
    if (compacted) (node.localStore as MemoryStore).compact();
    await node.open();
    await agrees(node);
    assert.deepEqual(Object.keys(await node.records()).sort(), ['endpoints/n1/other', 'nodes/n1', 'pools/p']);
    // Once its local store shows that, the endpoint is the node's own again.
    await node.put(endpoint, { again: true });
    await agrees(node);
    await commit(cluster, remove(endpoint));
    await agrees(node);
    assert.deepEqual((await node.records())[endpoint], { again: true }, 'removed by others, it is put back');
  });

  test(`an addition${compacted ? ', the local log gone meanwhile' : ''}: endpoint and address stay together`, async () => {
    const { node, cluster } = await attached();
    await killedAfterDeciding(node, cluster, () => {
      void node.store.transact(
        [absent('addresses/10.1.0.10')],
        [put('addresses/10.1.0.10', { node: 'n1' }), put('endpoints/n1/b', {})],
      );
    });
    if (compacted) (node.localStore as MemoryStore).compact();
    await node.open();
    await agrees(node);
    const records = Object.keys(await node.records());
    assert.ok(records.includes('addresses/10.1.0.10') && records.includes('endpoints/n1/b'), String(records));
  });
}

test('nothing is sent while a kill would undo what the last decision brought: only its own record names that', async () => {
  let settled = Promise.resolve();
  const local = Object.assign(new MemoryStore(), { settled: () => settled });
  const cluster = new MemoryStore();
  await commit(cluster, put('nodes/n1', {}));
  const node = await new TestNode('n1', cluster, new ManualClock(), {}, local).open();
  await agrees(node);
  const gate = Promise.withResolvers<void>();
  settled = gate.promise;
  await node.put('pools/first');
  const { revision } = await cluster.list('');
  const second = node.put('pools/second');
  await node.put('endpoints/n1/own');
  await aWhile();
  assert.equal((await cluster.list('')).revision, revision);
  gate.resolve();
  await second;
  await agrees(node);
});

for (const word of ['made anew', 'removed'] as const) {
  test(`what the next life says about the endpoint while it is cut off is later than the decision, the log gone meanwhile: ${word}`, async () => {
    const { node, cluster } = await attached();
    await killedAfterDeciding(node, cluster, () => {
      void node.store.transact(
        [absent('addresses/10.1.0.10')],
        [put('addresses/10.1.0.10', { node: 'n1' }), put('endpoints/n1/b', {})],
      );
    });
    (node.localStore as MemoryStore).compact();
    await node.open({}, true);
    await node.put('endpoints/n1/b', { again: true });
    if (word === 'removed') await commit(node.store, remove('endpoints/n1/b'));
    node.wire.mend();
    await agrees(node);
    assert.deepEqual(
      (await node.records())['endpoints/n1/b'],
      word === 'removed' ? undefined : { again: true },
    );
  });
}

for (const removal of [false, true]) {
  test(`${removal ? 'a removal' : 'a change'} that arrives with a new snapshot is answered with a revision that shows it`, async () => {
    const { node, clock } = await attached();
    const before = await node.store.get(address);
    // What brings the decision down fails, so everything is read anew.
    node.local.before = async () => {
      node.local.before = null;
      throw new Error('the disk is busy');
    };
    let changed = 0;
    const onChanges = ({ revision }: ChangeSet): void => {
      changed = revision;
    };
    node.store.watch(address, before!.modified, { onChanges, onEnd: assert.fail });
    let result: TransactionResult | undefined;
    const write = removal ? remove(address) : put(address, { node: null });
    void node.store.transact([modified(address, before!.modified)], [write]).then((answer) => {
      result = answer;
    });
    await eventually(clock, () => result !== undefined, 'the answer');
    await agrees(node);
    const entry = await node.store.get(address);
    assert.ok(result?.committed && changed > before!.modified);
    assert.equal(entry?.modified, removal ? undefined : changed);
    assert.ok(
      removal ? result.revision >= changed : result.revision === changed,
      `${result.revision}, ${changed}`,
    );
  });
}

test('a decision that arrives with a new snapshot: its revision is not younger than what the local store has', async () => {
  const { node, clock } = await attached();
  const key = 'addresses/10.1.0.11';
  // The node goes on by itself between the steps in which the snapshot is brought down.
  const goOn = async (): Promise<void> => {
    await node.put('endpoints/n1/busy', { at: clock.now() });
    node.local.before = goOn;
  };
  // What brings the decision down fails, so everything is read anew.
  node.local.before = async () => {
    node.local.before = goOn;
    throw new Error('the disk is busy');
  };
  let result: TransactionResult | undefined;
  void node.store.transact([absent(key)], [put(key, { node: 'n1' })]).then((answer) => {
    result = answer;
  });
  await eventually(clock, () => result !== undefined, 'the answer');
  node.local.before = null;
  const entry = await node.store.get(key);
  assert.ok(result?.committed && entry !== null);
  assert.ok(result.revision <= entry.modified, `${result.revision} is younger than ${entry.modified}`);
  await agrees(node);
});
