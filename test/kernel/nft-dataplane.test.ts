/** PolicyDataplane with nftables on the real Linux, in a network namespace of its own. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';

test('policy dataplane with nftables on the real Linux', () => {
  const namespace = `nct-${randomBytes(4).toString('hex')}`;
  const script = new URL('./nft-dataplane-process.ts', import.meta.url).pathname;
  execFileSync('ip', ['netns', 'add', namespace]);
  try {
    // The runner's own variable would make the child report in a form for the runner only.
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const command = ['netns', 'exec', namespace, process.execPath, '--test-reporter=spec', script];
    const { status, stdout, stderr } = spawnSync('ip', command, { encoding: 'utf8', env, timeout: 60_000 });
    assert.equal(status, 0, `${stdout}${stderr}`);
    assert.match(stdout, /pass [12][0-9]/);
  } finally {
    execFileSync('ip', ['netns', 'del', namespace]);
  }
});
