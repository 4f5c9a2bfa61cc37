/** Who asks before the work begins is served by it; when it begins, with others at work and without. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { SharedWork } from '../../../src/lib/shared-work.ts';
import { ManualClock } from '../store/manual-clock.ts';

function rig(work: (run: number) => Promise<void> = async () => undefined) {
  const clock = new ManualClock();
  const state = { runs: 0, atWork: 0 };
  const shared = new SharedWork({
    clock,
    atWork: () => state.atWork,
    work: () => work(++state.runs),
  });
  return { clock, state, shared };
}

test('one run for all who ask in the same turn, another for who asks while it runs', async () => {
  const end = Promise.withResolvers<void>();
  const { shared, state } = rig((run) => (run === 1 ? end.promise : Promise.resolve()));
  const first = [shared.ask(), shared.ask()];
  await setImmediate();
  assert.equal(state.runs, 1);
  const second = [shared.ask(), shared.ask()];
  await setImmediate();
  assert.equal(state.runs, 1);
  end.resolve();
  await Promise.all([...first, ...second]);
  assert.equal(state.runs, 2);
});

test('a run that fails, fails for those who asked for it, and for nobody else', async () => {
  const { shared } = rig(async (run) => assert.notEqual(run, 1, 'no'));
  const results = await Promise.allSettled([shared.ask(), shared.ask()]);
  assert.deepEqual(
    results.map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  await shared.ask();
});

test('while others are at work it waits for them, at most four times as long as it took', async () => {
  const rigged: ReturnType<typeof rig> = rig(async () => rigged.clock.advance(10));
  const { clock, shared, state } = rigged;
  state.atWork = 3;
  await shared.ask();
  const waiting = shared.ask();
  clock.advance(39);
  await setImmediate();
  assert.equal(state.runs, 1);
  clock.advance(1);
  await waiting;
  assert.equal(state.runs, 2);
  const all = [shared.ask(), shared.ask(), shared.ask()];
  await Promise.all(all);
  assert.equal(state.runs, 3);
});

test('nobody else is at work: it waits for nobody', async () => {
  const rigged: ReturnType<typeof rig> = rig(async () => rigged.clock.advance(10));
  rigged.state.atWork = 1;
  for (const run of [1, 2, 3]) {
    await rigged.shared.ask();
    assert.equal(rigged.state.runs, run);
  }
});
