/** An agent whose disk is full: ADD and DEL say so, STATUS keeps the runtime from trying, and finds out by itself when there is room. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { test } from 'node:test';
import { type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { eventually, mustRun, type Result, run } from '../../lab/run.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';

// What is mounted here is gone with the process.
enterSandbox(import.meta.url);

const network: Conflist = { cniVersion: '1.1.0', name: 'edge', plugins: [{ type: 'netctl' }] };

test('no space is left for the store of a host', async () => {
  const host = await Host.create({ name: 'full', address: '192.0.2.1' });
  const { stateDirectory } = host;
  const [a, b] = [await Container.create(host, 'a'), await Container.create(host, 'b')];
  const status = (): Promise<Result> => a.cni('STATUS', network);
  try {
    await mustRun(['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', stateDirectory]);
    await host.start();
    await host.mustNetctl(['pool', 'add', '10.65.0.0/16', '--cooldown', '0']);
    await a.cniAdd(network);
    assert.equal((await status()).code, 0);
    await run(['dd', 'if=/dev/zero', `of=${stateDirectory}/filling`, 'bs=4k']);
    await assert.rejects(b.cniAdd(network), /"code":100,.*no space is left/);
    assert.match(
      (await status()).stdout,
      /"code":50,"msg":"the last change was not taken: .*no space is left/,
    );
    await assert.rejects(a.cniDel(network), /"code":100,/);
    rmSync(`${stateDirectory}/filling`);
    await eventually('STATUS knows that there is room', 15_000, async () => (await status()).code === 0);
    await b.cniAdd(network);
    for (const each of [a, b]) await each.cniDel(network);
    assert.equal((await host.netctl(['ipam', 'check'])).code, 0);
  } finally {
    await host.kill('SIGKILL');
    await run(['umount', stateDirectory]);
    await host.close();
  }
});
