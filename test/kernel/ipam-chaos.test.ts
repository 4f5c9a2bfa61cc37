/** Allocators killed at random on one etcd: the short form. `make test-long` has the one with 16 processes and 20,000 operations. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chaos } from './ipam-chaos.ts';

test('4 allocators, 2,000 operations, SIGKILL at random: no address twice, none lost, nothing to repair', async (t) => {
  const report = await chaos({ processes: 4, operations: 2000, killEach: 1000, odds: 1 / 15_000 });
  t.diagnostic(`${report.operations} operations, ${report.holds} addresses held, ${report.deaths} deaths`);
  assert.ok(report.kills > 5, `only ${report.kills} kills`);
  assert.ok(report.holds > 300, JSON.stringify([...report.outcomes]));
});
