/** What ends while a host with etcd is cut off: addresses of its own are free again, and it starts after a reboot, with blocks to start containers from. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { type Conflist, Container } from '../../lab/container.ts';
import type { Host } from '../../lab/host.ts';
import { eventually, mustRun, run } from '../../lab/run.ts';
import { EtcdHosts } from './etcd-hosts.ts';
import { enterSandbox } from './linux-contract-sandbox.ts';

// What is mounted here is gone with the process.
enterSandbox(import.meta.url);

const edge: Conflist = { cniVersion: '1.1.0', name: 'edge', plugins: [{ type: 'netctl' }] };
const wire: Conflist = {
  cniVersion: '1.1.0',
  name: 'wire',
  plugins: [{ type: 'netctl', mode: 'macvlan', parent: 'eth0' }],
};
const bootId = '/proc/sys/kernel/random/boot_id';

let lab: EtcdHosts;
let host: Host;
let containers: Container[];

beforeEach(async () => {
  lab = await EtcdHosts.create('co', 1);
  host = lab.hosts[0]!;
  const cooldown = ['--cooldown', '5'];
  await lab.ok(host, 'pool', 'add', '10.65.0.0/16', '--name', 'own', ...cooldown);
  const lan = ['--name', 'lan', '--kind', 'macvlan', '--gateway', '10.66.0.1'];
  await lab.ok(host, 'pool', 'add', '10.66.0.0/24', ...lan, ...cooldown);
  containers = [await Container.create(host, 'a'), await Container.create(host, 'b')];
});
afterEach(async () => {
  for (const container of containers) await container.close();
  await lab.close();
});

interface Usage {
  readonly pool: string;
  readonly used: number;
  readonly cooldown: number;
  readonly blocks: number;
}

/** Of the pool of this node's own blocks. */
async function usage(): Promise<Usage> {
  return (await lab.json<Usage[]>(host, 'ipam', 'show')).find(({ pool }) => pool === 'own')!;
}

const cutOff = async (): Promise<void> => {
  await lab.wire(host, 'down');
  await eventually('the outage is noticed', 30_000, async () =>
    /not reachable since/.test((await host.netctl(['node', 'status'])).stdout),
  );
};

test('what the cluster must decide holds up none of the node’s own, which keeps its block', async () => {
  const [a, b] = containers as [Container, Container];
  await a.cniAdd(edge);
  await b.cniAdd(wire);
  await b.cniDel(wire);
  await cutOff();
  await a.cniDel(edge);
  assert.equal((await usage()).cooldown, 1);
  const free = await eventually('its address is free', 20_000, async () => {
    const now = await usage();
    return now.cooldown === 0 && now;
  });
  assert.deepEqual([free.used, free.blocks], [0, 1]);
  await a.cniAdd(edge);
  await a.cniDel(edge);
});

test('after a reboot without etcd: the agent starts, releases what is its own, and starts containers', async () => {
  const [a, b] = containers as [Container, Container];
  await a.cniAdd(edge);
  await b.cniAdd(wire);
  await b.cniDel(wire);
  await cutOff();
  await eventually('an address of the wire is to be freed, which only the cluster can', 20_000, async () =>
    /some of what is over cannot be freed yet/.test(host.log()),
  );
  await host.kill('SIGKILL');
  await a.close();
  const directory = mkdtempSync(join(tmpdir(), 'netctl-boot-'));
  writeFileSync(join(directory, 'id'), '11111111-2222-3333-4444-555555555555\n');
  await mustRun(['mount', '--bind', join(directory, 'id'), bootId]);
  try {
    await host.restart();
    assert.deepEqual(JSON.parse(await host.mustNetctl(['endpoint', 'show', '-o', 'json'])), []);
    const c = await Container.create(host, 'c');
    containers.push(c);
    await c.cniAdd(edge);
    await c.cniDel(edge);
  } finally {
    await run(['umount', bootId]);
    rmSync(directory, { recursive: true });
  }
});
