/** What may be deleted without asking. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judgeDeletion } from '../../../src/agent/mass-deletion-guard.ts';

const names = (count: number): string[] => Array.from({ length: count }, (_, i) => `nctl${i}`);

for (const [standing, unknown, confirmed, removed] of [
  [100, 0, false, 0],
  [3, 3, false, 3],
  [100, 25, false, 25],
  [100, 26, false, 0],
  [100, 100, false, 0],
  [4, 4, false, 0],
  [100, 100, true, 100],
] as const) {
  test(`${unknown} unknown of ${standing}${confirmed ? ', confirmed' : ''}: ${removed} go`, () => {
    const { remove, held } = judgeDeletion(standing, names(unknown), confirmed);
    assert.deepEqual([remove.length, held.length], [removed, unknown - removed]);
  });
}
