/** Deltas against the plain definition: compare two maps. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Deltas } from '../../../src/lib/deltas.ts';

const key = fc.constantFrom('a', 'b', 'c', 'd');
const value = fc.integer({ min: 0, max: 2 });
const step = fc.oneof(
  fc.record({ kind: fc.constantFrom('want' as const, 'wrote' as const), key, value }),
  fc.record({ kind: fc.constantFrom('unwant' as const, 'erased' as const), key }),
  fc.record({
    kind: fc.constant('observe' as const),
    entries: fc.uniqueArray(fc.tuple(key, value), { selector: ([k]) => k }),
  }),
);

test('pending is what lies between desired and actual, after every step', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const deltas = new Deltas<string, number>();
      const desired = new Map<string, number>();
      const actual = new Map<string, number>();
      for (const each of steps) {
        if (each.kind === 'observe') {
          actual.clear();
          for (const [k, v] of each.entries) actual.set(k, v);
          deltas.observe(each.entries);
        } else if (each.kind === 'want' || each.kind === 'wrote') {
          (each.kind === 'want' ? desired : actual).set(each.key, each.value);
          deltas[each.kind](each.key, each.value);
        } else {
          (each.kind === 'unwant' ? desired : actual).delete(each.key);
          deltas[each.kind](each.key);
        }
        const updates = new Map([...desired].filter(([k, v]) => actual.get(k) !== v));
        const deletes = new Set([...actual.keys()].filter((k) => !desired.has(k)));
        assert.deepEqual(deltas.pendingUpdates, updates);
        assert.deepEqual(deltas.pendingDeletes, deletes);
        assert.deepEqual(deltas.desired, desired);
        assert.deepEqual(deltas.actual, actual);
        assert.equal(deltas.isClean, updates.size + deletes.size === 0);
      }
    }),
  );
});
