/** The agent on its embedded store, killed under the load of its API: the short form of what `make test-long` does. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { embeddedChaos } from './ipam-embedded-chaos.ts';

test('an agent killed 8 times under load: no address twice, none lost, nothing to repair', async (t) => {
  const report = await embeddedChaos({ name: 'ec', operations: 2000, kills: 8 });
  t.diagnostic(JSON.stringify(report));
  assert.ok(report.kills === 8 && report.held > 20, JSON.stringify(report));
});
