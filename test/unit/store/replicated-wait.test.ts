/** Deadlines: silence ends them, slowness does not, and who did not run cannot tell. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Deadline } from '../../../src/store/replicated-wait.ts';
import { ManualClock } from './manual-clock.ts';

const late = (): Error => new Error('late');

test('nothing is heard: it runs out after its time', () => {
  const clock = new ManualClock();
  const deadline = new Deadline(clock, 3000, late);
  clock.advance(2999);
  assert.equal(deadline.expired, false);
  clock.advance(1);
  assert.equal(deadline.expired, true);
});

test('the time runs from what was heard last, ten times as long at most', async () => {
  const clock = new ManualClock();
  let heardAt = 0;
  const deadline = new Deadline(clock, 3000, late, () => heardAt);
  const waiting = assert.rejects(deadline.race(new Promise(() => undefined)), /late/);
  for (let second = 0; second < 29; second++) {
    heardAt = clock.monotonic();
    clock.advance(1000);
    assert.equal(deadline.expired, false);
  }
  clock.advance(1000);
  assert.equal(deadline.expired, true);
  await waiting;
});

test('a process that did not run waits anew', () => {
  const clock = new ManualClock();
  let stalled = 0;
  const slow = {
    now: () => clock.now(),
    monotonic: () => clock.monotonic() + stalled,
    setTimer: (delay: number, call: () => void) => clock.setTimer(delay, call),
  };
  const deadline = new Deadline(slow, 3000, late);
  clock.advance(1000);
  stalled = 5000;
  clock.advance(2000);
  assert.equal(deadline.expired, false);
  clock.advance(3000);
  assert.equal(deadline.expired, true);
});
