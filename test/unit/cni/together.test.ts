/** Requests that come together begin together; one alone does not wait. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Together } from '../../../src/cni/together.ts';

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await nextTurn();
}

test('a request alone begins at once, and so does the next one after its end', () => {
  const together = new Together();
  const begun: number[] = [];
  for (const number of [1, 2]) {
    together.arrive();
    together.begin(() => begun.push(number));
    assert.equal(begun.length, number);
    together.leave();
  }
});

test('what comes while connections come begins together, in order, a turn after the last of them', async () => {
  const together = new Together();
  const begun: number[] = [];
  const at: number[] = [];
  let turn = 0;
  together.arrive();
  for (turn = 0; turn < 5; turn++) {
    together.arrive();
    const number = turn;
    together.begin(() => {
      begun.push(number);
      at.push(turn);
    });
    await nextTurn();
  }
  for (; begun.length === 0 && turn < 20; turn++) await nextTurn();
  assert.deepEqual(begun, [0, 1, 2, 3, 4]);
  assert.equal(new Set(at).size, 1, 'all in one turn');
});

test('eight do not wait for a ninth, and no more begin together', () => {
  const together = new Together();
  let begun = 0;
  for (let i = 0; i < 12; i++) together.arrive();
  for (let i = 0; i < 12; i++) {
    together.begin(() => begun++);
    assert.equal(begun, i < 7 ? 0 : 8);
  }
});

test('connections that go on coming hold a request up for some turns only; one that says nothing, for none', async () => {
  const together = new Together();
  let begun = 0;
  together.arrive();
  together.arrive();
  together.begin(() => begun++);
  await turns(4);
  assert.equal(begun, 1);
  together.begin(() => begun++);
  for (let turn = 0; turn < 40 && begun < 2; turn++) {
    together.arrive();
    await nextTurn();
  }
  assert.equal(begun, 2);
});
