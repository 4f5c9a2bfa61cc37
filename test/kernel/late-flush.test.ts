/** Connections of containers that went, on the kernel: deleted a moment after the answer, of all at once; by the next agent, if need be. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type Conflist, Container } from '../../lab/container.ts';
import { Host } from '../../lab/host.ts';
import { eventually } from '../../lab/run.ts';

const conflist: Conflist = { cniVersion: '1.0.0', name: 'edge', plugins: [{ type: 'netctl' }] };
const other = '10.99.0.9';

let host: Host;
let containers: Container[];

before(async () => {
  host = await Host.create({ name: `lf${process.pid}`, address: '192.0.2.1' });
  await host.start(['--no-bgp']);
  await host.mustNetctl(['pool', 'add', '10.66.0.0/24', '--cooldown', '60']);
  containers = await Promise.all([0, 1, 2, 3, 4].map((i) => Container.create(host, `f${i}`)));
});

after(() => host.close());

/** Adds the container; it has a connection then. */
async function added(container: Container): Promise<string> {
  const { ips } = await container.cniAdd(conflist);
  const address = ips[0]!.address.split('/')[0]!;
  await track(address);
  return address;
}

async function track(address: string): Promise<void> {
  const first = ['-s', address, '-d', other, '--sport', '1000', '--dport', '2000'];
  const answer = ['-r', other, '-q', address, '--reply-port-src', '2000', '--reply-port-dst', '1000'];
  await host.mustExec(['conntrack', '-I', '-p', 'udp', '-t', '300', ...first, ...answer]);
}

async function tracked(): Promise<string[]> {
  const list = await host.mustExec(['conntrack', '-L', '-p', 'udp', '-d', other]);
  return Array.from(list.matchAll(/src=(10\.66\.\S+) dst=10\.99/g), ([, address]) => address!).sort();
}

test('many DELs: all of theirs go, the others stay', async () => {
  const [staying, ...going] = containers as [Container, ...Container[]];
  const address = await added(staying);
  for (const container of going) await added(container);
  assert.equal((await tracked()).length, containers.length);
  await Promise.all(going.map((container) => container.cniDel(conflist)));
  await eventually('they are gone', 10_000, async () => (await tracked()).length === 1);
  assert.deepEqual(await tracked(), [address]);
  await staying.cniDel(conflist);
  await eventually('that of the last one, too', 10_000, async () => (await tracked()).length === 0);
});

test('an agent that is killed right after its answer leaves them to the next one', async () => {
  const [container] = containers as [Container];
  let left: string[] = [];
  for (let attempt = 0; attempt < 20 && left.length === 0; attempt++) {
    await added(container);
    await container.cniDel(conflist);
    await host.kill('SIGKILL');
    left = await tracked();
    await host.start(['--no-bgp']);
    assert.deepEqual(await tracked(), []);
  }
  assert.equal(left.length, 1, 'one of the kills came before the flush');
});

test('an orderly end waits for it', async () => {
  const [container] = containers as [Container];
  await added(container);
  await container.cniDel(conflist);
  await host.kill('SIGTERM');
  assert.deepEqual(await tracked(), []);
  await host.start(['--no-bgp']);
});
