/** The example of docs/scheduler.md, run against two real agents on one real etcd, and against one on its embedded store. */

import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { test } from 'node:test';
import { Host } from '../../lab/host.ts';
import { run } from '../../lab/run.ts';
import { EtcdHosts } from './etcd-hosts.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';

// The addresses of the hosts are the same in every file that has some.
enterSandbox(import.meta.url);

const example = resolve(import.meta.dirname, '../../examples/scheduler.ts');

async function schedule(hosts: readonly Host[]): Promise<string> {
  const agents = hosts.map(({ name, runDirectory }) => `${name}=${runDirectory}`);
  const { code, stdout, stderr } = await run([process.execPath, example, ...agents], { deadlineMs: 60_000 });
  assert.equal(code, 0, `${stdout}${stderr}`);
  return stdout;
}

test('the scheduler of the example moves an instance with its address from host to host', async () => {
  const all = await EtcdHosts.create('ex', 2);
  try {
    const [one] = all.hosts as [Host, Host];
    await all.ok(one, 'pool', 'add', '10.65.0.0/24', '--cooldown', '0');
    const said = await schedule(all.hosts);
    assert.match(said, /is refused: STALE_GENERATION/);
    const [, from] = /instance 0 starts on (\S+) with its address/.exec(said) ?? [];
    const [, to] = /instance 0 starts on (\S+) with the same address/.exec(said) ?? [];
    assert.ok(from !== undefined && to !== undefined && from !== to, said);
    assert.deepEqual((await all.api(one, 'GET', '/v1/allocations?tenant=shop')).body.items, []);
    assert.deepEqual((await all.api(one, 'GET', '/v1/ipam/check')).body.items, []);
  } finally {
    await all.close();
  }
});

test('alone on its embedded store', async () => {
  const host = await Host.create({ name: `ey${process.pid}`, address: '198.18.9.1' });
  try {
    await host.start();
    assert.equal((await host.netctl(['pool', 'add', '10.65.0.0/24', '--cooldown', '0'])).code, 0);
    assert.match(await schedule([host]), /gone: the containers are stopped/);
  } finally {
    await host.close();
  }
});
