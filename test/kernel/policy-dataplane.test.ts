/** PolicyDataplane on the real Linux, with nftables and both variants of iptables, each in a network namespace of its own. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';

for (const backend of ['nftables', 'nft', 'legacy']) {
  test(`policy dataplane on the real Linux, ${backend === 'nftables' ? backend : `iptables-${backend}`}`, () => {
    const namespace = `nct-${randomBytes(4).toString('hex')}`;
    const script = new URL('./policy-dataplane-process.ts', import.meta.url).pathname;
    execFileSync('ip', ['netns', 'add', namespace]);
    try {
      // The runner's own variable would make the child report in a form for the runner only.
      const { NODE_TEST_CONTEXT: _, ...env } = process.env;
      const command = ['netns', 'exec', namespace, process.execPath, '--test-reporter=spec', script, backend];
      const { status, stdout, stderr } = spawnSync('ip', command, { encoding: 'utf8', env, timeout: 60_000 });
      assert.equal(status, 0, `${stdout}${stderr}`);
      assert.match(stdout, /pass [12][0-9]/);
    } finally {
      execFileSync('ip', ['netns', 'del', namespace]);
    }
  });
}
