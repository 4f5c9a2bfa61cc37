/** 16 allocators in processes of their own on one etcd, 20,000 operations, killed at random between any two lines. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chaos } from '../kernel/ipam-chaos.ts';

test('16 allocators, 20,000 operations: no address twice, none lost, nothing to repair', async (t) => {
  const report = await chaos({ processes: 16, operations: 20_000, killEach: 1500, odds: 1 / 200_000 });
  t.diagnostic(
    `${report.operations} operations, ${report.holds} addresses held, ${report.deaths} deaths (${report.kills} from outside)`,
  );
  for (const [outcome, count] of [...report.outcomes].sort()) t.diagnostic(`${outcome}: ${count}`);
  assert.ok(
    report.kills > 20 && report.deaths > report.kills,
    `${report.kills} kills, ${report.deaths} deaths`,
  );
  assert.ok(report.holds > 3000, `${report.holds} addresses held`);
});
