/** Endpoints whose address is not theirs any more give way; what merely cannot be read, or vanished in great number, does not. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Attachments } from '../../../src/agent/attach.ts';
import { addressKey } from '../../../src/model/keys.ts';
import type { Json, Write } from '../../../src/store/store.ts';
import { Rig, request } from './rig.ts';

async function started(names: readonly string[]): Promise<{
  rig: Rig;
  attachments: Attachments;
  addresses: Map<string, string>;
}> {
  const rig = new Rig();
  const attachments = await rig.start();
  const addresses = new Map<string, string>();
  for (const name of names) {
    rig.linux.addNetns(`/ns/${name}`);
    const attached = await attachments.attach(request(name, `/ns/${name}`));
    addresses.set(name, attached.addresses[0]!);
  }
  return { rig, attachments, addresses };
}

/** Somebody else writes, and the agent has had its time to notice. */
async function write(rig: Rig, writes: readonly Write[]): Promise<void> {
  await rig.store.transact([], writes);
  for (let second = 0; second < 4; second++) {
    rig.clock.advance(1000);
    for (let turn = 0; turn < 30; turn++) await nextTurn();
  }
}

const links = (rig: Rig): number => new Set(rig.linux.toString().match(/nctl[0-9a-f]{11}/g)).size;
const keyOf = (address: string): string => addressKey(address as never);

describe('giving way', () => {
  test('to whoever has the address by now; what the new one has is left alone', async () => {
    const { rig, addresses } = await started(['x', 'y']);
    const key = keyOf(addresses.get('x')!);
    const record = (await rig.store.get(key))!.value as { generation: number };
    const moved = { ...record, node: 'n2', endpoint: 'other', generation: record.generation + 1 } as Json;
    await write(rig, [{ kind: 'put', key, value: moved }]);
    assert.equal(links(rig), 1);
    assert.equal((await rig.keys('endpoints/')).length, 1);
    assert.deepEqual((await rig.store.get(key))?.value, moved);
  });

  test('when the record is gone', async () => {
    const { rig, addresses } = await started(['x', 'y']);
    await write(rig, [{ kind: 'delete', key: keyOf(addresses.get('x')!) }]);
    assert.equal(links(rig), 1);
  });

  test('not when most records are gone at once: they are held, and the status says so', async () => {
    const names = Array.from({ length: 8 }, (_, i) => `c${i}`);
    const { rig, addresses } = await started(names);
    await write(
      rig,
      [...addresses.values()].slice(0, 6).map((address) => ({ kind: 'delete', key: keyOf(address) })),
    );
    assert.equal(links(rig), 8);
    assert.equal(rig.agent.status().guard.held.length, 6);
  });

  test('not for a record that cannot be read', async () => {
    const { rig, attachments, addresses } = await started(['x']);
    await write(rig, [{ kind: 'put', key: keyOf(addresses.get('x')!), value: { from: 'a newer version' } }]);
    assert.equal(links(rig), 1);
    assert.equal(rig.agent.status().records.broken.length, 1);
    const [endpoint] = await rig.keys('endpoints/');
    await write(rig, [{ kind: 'put', key: endpoint!, value: { from: 'a newer version' } }]);
    assert.equal(links(rig), 1);
    assert.equal(rig.agent.status().records.broken.length, 2);
    await attachments.detach(request('x'));
    assert.deepEqual([links(rig), await rig.keys('endpoints/')], [0, []]);
  });
});
