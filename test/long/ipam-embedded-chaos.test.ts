/** The agent on its embedded store under the load of its API, killed 60 times at any moment, 20,000 operations. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { embeddedChaos } from '../kernel/ipam-embedded-chaos.ts';

test('an agent killed 60 times, 20,000 operations: no address twice, none lost, nothing to repair', async (t) => {
  const report = await embeddedChaos({ name: 'el', operations: 20_000, kills: 60 });
  t.diagnostic(JSON.stringify(report));
  assert.ok(report.unknown > 30 && report.held > 20, JSON.stringify(report));
});
