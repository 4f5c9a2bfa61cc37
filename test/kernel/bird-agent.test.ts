/**
 * An agent whose BIRD refuses a configuration: the one before stays in force, the status says why, and what heals it is taken.
 *
 * The program that the agent is given is the real one, but for one thing: of a configuration that names one certain pool it is shown a
 * text with a mistake in it, since no record is known that passes netctl's own checks and not BIRD's.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { getPriority, tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Host } from '../../lab/host.ts';
import { eventually } from '../../lab/run.ts';
import type { StatusItem } from '../../src/api/schemas.ts';

const refusing = `#!/bin/sh
if [ "$1" = -p ] && grep -q 10.77.0.0 "$3"; then
  sed -i 's/10\\.77\\.0\\.0/10.77.0.300/' "$3"
fi
exec /usr/sbin/bird "$@"
`;

test('a configuration that BIRD refuses changes nothing, is named, and is left behind', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'refusing-'));
  const program = join(directory, 'bird');
  writeFileSync(program, refusing, { mode: 0o755 });
  const host = await Host.create({ name: `bf${process.pid}`, address: '192.0.2.1' });
  const bgp = async () => {
    const { code, stdout } = await host.netctl(['node', 'status', '-o', 'json']);
    return { code, ...(JSON.parse(stdout) as StatusItem).bgp! };
  };
  const inForce = () => host.mustExec(['birdc', '-s', `${host.runDirectory}/bird.ctl`, 'eval netctl_stamp']);
  const text = () => readFileSync(`${host.runDirectory}/bird.conf`, 'utf8');
  const settled = (what: string) =>
    eventually(what, 10_000, async () => {
      const { inSync, error } = await bgp();
      return inSync && error === null;
    });
  try {
    const flags = ['--bird-path', program];
    await host.start(flags);
    await host.mustNetctl(['pool', 'add', '10.65.0.0/16']);
    await host.mustNetctl(['bgp', 'peer', 'add', 'tor', '--address', '192.0.2.254', '--as', '65001']);
    await settled('BIRD has its configuration');
    await eventually('with the pool', 5000, async () => text().includes('10.65.0.0/16+'));
    const [before, stamp, pid] = [text(), await inForce(), host.birdPid];
    assert.ok(pid !== null);
    assert.deepEqual(
      [getPriority(host.agentPid!), getPriority(pid)],
      [-10, 0],
      'only the agent goes before others',
    );

    await host.mustNetctl(['pool', 'add', '10.77.0.0/16', '--name', 'wrong']);
    const refused = () =>
      eventually('the status names it', 10_000, async () => {
        const { code, inSync, error } = await bgp();
        return (
          !inSync && code === 4 && /^BIRD refuses the configuration: line .*\d/.test(error ?? '') && error
        );
      });
    const complaint = await refused();
    assert.doesNotMatch(complaint, /bird\.conf/, 'no file that is gone by now');
    assert.match((await host.netctl(['node', 'status'])).stdout, /refuses the configuration/);
    assert.match((await host.netctl(['check'])).stdout, /refuses the configuration/);
    assert.deepEqual([text(), await inForce(), host.birdPid], [before, stamp, pid]);

    await host.kill('SIGKILL');
    await host.start(flags);
    await refused();
    assert.deepEqual([text(), await inForce(), host.birdPid], [before, stamp, pid]);

    await host.mustNetctl(['pool', 'remove', 'wrong']);
    await settled('what BIRD takes is in force again');
    assert.deepEqual([text(), await inForce(), host.birdPid], [before, stamp, pid]);
    await host.mustNetctl(['pool', 'add', '10.78.0.0/16']);
    await eventually('the next change is taken', 10_000, async () => text().includes('10.78.0.0/16+'));
    await settled('and loaded');
    assert.notEqual(await inForce(), stamp);
  } finally {
    await host.close();
    rmSync(directory, { recursive: true, force: true });
  }
});
