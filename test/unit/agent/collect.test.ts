/** Leaks and clocks on the agent itself: what it frees by its periodic work, and what neither a live link nor a jump of the clock lets go. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Attachments } from '../../../src/agent/attach.ts';
import { endpointId } from '../../../src/model/attachment.ts';
import { endpointKey } from '../../../src/model/keys.ts';
import { Rig, request } from './rig.ts';

/** Lets the agent do its periodic work for so long. */
async function work(rig: Rig, seconds: number, step = 60): Promise<void> {
  for (let passed = 0; passed < seconds; passed += step) {
    rig.clock.advance(Math.min(step, seconds - passed) * 1000);
    for (let turn = 0; turn < 50; turn++) await nextTurn();
  }
}

const states = async (rig: Rig): Promise<Record<string, string>> =>
  Object.fromEntries(
    (await rig.store.list('addresses/')).entries.map(({ key, value }) => [
      key.slice('addresses/'.length),
      (value as { state: string }).state,
    ]),
  );

async function attached(
  rig: Rig,
  name: string,
): Promise<{ attachments: Attachments; addresses: readonly string[] }> {
  const attachments = await rig.start();
  const { addresses } = await attachments.attach(request(name));
  return { attachments, addresses };
}

describe('collecting leaks', () => {
  test('an endpoint whose record somebody deleted: its addresses are free after two looks and the cooldown', async () => {
    const rig = new Rig();
    const { addresses } = await attached(rig, 'a');
    await rig.store.transact([], [{ kind: 'delete', key: endpointKey('n1', endpointId(request('a'))) }]);
    await work(rig, 600);
    assert.deepEqual(await states(rig), Object.fromEntries(addresses.map((each) => [each, 'active'])));
    const { leaks } = await rig.agent.collection.run({ dryRun: true, confirmed: false });
    assert.deepEqual(
      leaks.map(({ address, verdict, outcome }) => [address, verdict, outcome]),
      addresses.map((address) => [address, 'waiting', 'left']),
    );
    assert.match(
      leaks[0]!.evidence,
      /active for endpoint .* on node n1, which does not exist; seen so for \d+ s/,
    );
    await work(rig, 1200);
    assert.deepEqual(await states(rig), {});
  });

  test('what a standing link has stays, however long', async () => {
    const rig = new Rig();
    const { attachments, addresses } = await attached(rig, 'a');
    // The store forgets endpoint and three more at once: too many to believe it.
    for (const name of ['b', 'c', 'd', 'e']) {
      rig.linux.addNetns(`/ns/${name}`);
      await attachments.attach(request(name, `/ns/${name}`));
    }
    // The next agent begins with a store that has the addresses but none of the endpoints.
    const { entries } = await rig.store.list('');
    const again = new Rig((_, store) => ({ linux: rig.linux, store }));
    for (const { key, value } of entries)
      if (!key.startsWith('endpoints/')) await again.store.transact([], [{ kind: 'put', key, value }]);
    await rig.agent.stop();
    await again.agent.start();
    for (const at of [0, 1000, 2000]) {
      await work(again, at === 0 ? 0 : 1000);
      const { leaks } = await again.agent.collection.run({ dryRun: false, confirmed: true });
      assert.equal(leaks.length, 10);
      assert.ok(leaks.every(({ verdict, outcome }) => verdict === 'live' && outcome === 'left'));
    }
    assert.equal((await states(again))[addresses[0]!], 'active');
  });
});

describe('a clock that is set a day ahead frees nothing', () => {
  test('cooldown, reservation, retention, a leak that was seen once', async () => {
    const rig = new Rig();
    const { attachments } = await attached(rig, 'cools');
    await attachments.detach(request('cools'));
    const owned = { ...request('kept'), owner: { tenant: 't', app: 'a', instance: 'i' } };
    await attachments.attach({ ...owned, onRelease: 'ttl', retainSeconds: 43_200 });
    await attachments.detach(owned);
    await attachments.attach(request('leaks'));
    await rig.store.transact([], [{ kind: 'delete', key: endpointKey('n1', endpointId(request('leaks'))) }]);
    await rig.agent.ipam.reserve({
      id: 'r',
      tenant: 't',
      app: 'a',
      instances: ['0'],
      ipv4: 1,
      ipv6: 1,
      addresses: [],
      macs: [],
      kind: 'routed',
      pools: [],
      ranges: [],
      skip: [],
      node: null,
      onRelease: 'delete',
      retainSeconds: null,
      ttlSeconds: 3600,
      mode: 'all',
    });
    await work(rig, 10, 1);
    await rig.agent.collection.run({ dryRun: false, confirmed: false });
    const before = await states(rig);
    const count = (state: string) => Object.values(before).filter((each) => each === state).length;
    assert.deepEqual(['cooldown', 'retained', 'active', 'reserved'].map(count), [2, 2, 2, 2]);

    rig.clock.jump(86_400_000);
    await work(rig, 15, 1);
    await rig.agent.collection.run({ dryRun: false, confirmed: false });
    assert.deepEqual(await states(rig), before);
    // Longer than the grace time of leaks: only what is leaked whatever the clock says goes, and what has really cooled down.
    await work(rig, 2000);
    const after = Object.values(await states(rig));
    assert.deepEqual(after.sort(), ['reserved', 'reserved', 'retained', 'retained']);
    // What ends by itself ends when it has been over for its own interval since the jump.
    await work(rig, 3600);
    assert.deepEqual(Object.values(await states(rig)), ['retained', 'retained']);
    await work(rig, 43_200, 600);
    assert.deepEqual(Object.values(await states(rig)), []);
  });
});
