/** ADD and DEL go on while the disk works, and are answered when it has what they committed. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { NetctlError } from '../../../src/lib/errors.ts';
import type { Store } from '../../../src/store/store.ts';
import { override, Rig, request } from './rig.ts';

/** An agent whose disk takes its time. */
function onSlowDisk(): { rig: Rig; end: (error?: Error) => void; hold: () => void } {
  let disk = Promise.withResolvers<void>();
  disk.resolve();
  const rig = new Rig((linux, store) => ({
    linux,
    store: override<Store>(store, { flush: () => disk.promise }),
  }));
  const hold = (): void => {
    disk = Promise.withResolvers();
    disk.promise.catch(() => undefined);
  };
  return { rig, hold, end: (error) => (error === undefined ? disk.resolve() : disk.reject(error)) };
}

describe('the disk', () => {
  test('the link stands before the disk has the record; the answer comes after', async () => {
    const { rig, hold, end } = onSlowDisk();
    const attachments = await rig.start();
    for (const act of ['attach', 'detach'] as const) {
      hold();
      let answered = false;
      const answer = attachments[act](request('a')).then(() => {
        answered = true;
      });
      for (let turn = 0; turn < 20; turn++) await nextTurn();
      assert.equal(/nctl[0-9a-f]{11}/.test(rig.linux.toString()), act === 'attach');
      assert.equal((await rig.keys('endpoints/')).length, act === 'attach' ? 1 : 0);
      assert.equal(answered, false, act);
      end();
      await answer;
    }
  });

  test('an ADD whose record the disk refuses is undone', async () => {
    const { rig, hold, end } = onSlowDisk();
    const attachments = await rig.start();
    hold();
    const answer = attachments.attach(request('a'));
    for (let turn = 0; turn < 20; turn++) await nextTurn();
    end(new NetctlError('STORE_UNAVAILABLE', 'local store: i/o error'));
    await assert.rejects(answer, /i\/o error/);
    assert.doesNotMatch(rig.linux.toString(), /nctl[0-9a-f]{11}|eth0/);
    assert.deepEqual(await rig.keys('endpoints/'), []);
  });
});
