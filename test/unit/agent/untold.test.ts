/**
 * What one call may take away of what another was told: who asked is gone before the answer, a DEL is older than the container, GC's list
 * is another engine's.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Delegate } from '../../../src/model/delegate.ts';
import type { Address } from '../../../src/model/ip.ts';
import { Rig, request } from './rig.ts';

const refuse = (): never => {
  throw new Error('nobody hears');
};

describe('an ADD whose answer nobody hears', () => {
  test('leaves nothing', async () => {
    const rig = new Rig();
    const attachments = await rig.start();
    await assert.rejects(attachments.attach(request('a'), refuse), /nobody hears/);
    assert.deepEqual(await rig.keys('endpoints/'), []);
    assert.doesNotMatch(rig.linux.toString(), /nctl[0-9a-f]{11}/);
  });

  test('does not undo what the one beside it was told of', async () => {
    const rig = new Rig();
    const attachments = await rig.start();
    const [first, second] = await Promise.allSettled([
      attachments.attach(request('a'), refuse),
      attachments.attach(request('a')),
    ]);
    assert.deepEqual([first.status, second.status], ['rejected', 'fulfilled']);
    assert.equal((await rig.keys('endpoints/')).length, 1);
    assert.match(rig.linux.toString(), /nctl[0-9a-f]{11}/);
  });

  test('does not undo what one before it was told of', async () => {
    const rig = new Rig();
    const attachments = await rig.start();
    await attachments.attach(request('a'));
    await assert.rejects(attachments.attach(request('a'), refuse), /nobody hears/);
    assert.equal((await rig.keys('endpoints/')).length, 1);
    assert.match(rig.linux.toString(), /nctl[0-9a-f]{11}/);
  });
});

describe('who gave the addresses is told of a DEL', () => {
  const delegate: Delegate = { type: 'host-local', path: '/x', args: '', config: '{}' };
  const address = '10.9.0.2' as Address;
  const allocate = async () => [{ address, prefixLength: 24, gateway: null }];
  const given = { ...request('a'), foreignIpam: { allocate, delegate } };

  test('not by one that was queued before the container was made anew', async () => {
    const rig = new Rig();
    const attachments = await rig.start();
    const { createdAt } = await made();
    let told = 0;
    const tell = async (): Promise<void> => void told++;
    await attachments.detach(given, new Date(Date.parse(createdAt) - 1), tell);
    assert.equal(told, 0, 'its address is in use');
    await attachments.detach(given, new Date(Date.parse(createdAt) + 1), tell);
    assert.equal(told, 0, 'its record says who to tell');
    await attachments.detach(given, undefined, tell);
    assert.equal(told, 1, 'nothing is known of it');

    async function made(): Promise<{ createdAt: string }> {
      await attachments.attach(given);
      const { entries } = await rig.store.list('endpoints/');
      return entries[0]!.value as { createdAt: string };
    }
  });
});

test('GC of a network leaves what Docker has on it', async () => {
  const rig = new Rig();
  rig.linux.addNetns('/ns/b');
  const attachments = await rig.start();
  await attachments.attach({ ...request('docker'), isHanded: true });
  await attachments.attach(request('cni', '/ns/b'));
  await attachments.collect('edge', []);
  const left = (await rig.store.list('endpoints/')).entries.map(
    ({ value }) => value as { containerId: string },
  );
  assert.deepEqual(
    left.map(({ containerId }) => containerId),
    ['docker'],
  );
});
