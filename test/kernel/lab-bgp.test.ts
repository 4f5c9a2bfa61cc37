/**
 * The lab as one network: reflectors instead of a mesh, a router of another AS in the middle, and traffic through all of it.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Container } from '../../lab/container.ts';
import { Lab } from '../../lab/lab.ts';
import { outside, routerAddresses } from '../../lab/network.ts';
import type { LabContainer } from '../../lab/node.ts';
import { eventually } from '../../lab/run.ts';
import { stateOf } from '../../lab/state.ts';

describe('a lab with a reflector and a router', () => {
  let lab: Lab;
  let web: Container;
  let db: LabContainer;

  before(async () => {
    lab = await Lab.up({ name: `r${process.pid}`, nodes: 3, reflectors: 1, router: 'bird' });
    await lab.node('node2').attach('web');
    web = lab.node('node2').container('web');
    db = await lab.node('node3').attach('db');
  });
  after(() => lab?.down());

  const reaches = (address: string) =>
    eventually(`web reaches ${address}`, 10_000, async () => {
      const { code } = await web.exec(['ping', '-c1', '-W1', address]);
      return code === 0;
    });

  test('a client has sessions with the reflector and the router only, the reflector with all', async () => {
    const counts = await Promise.all(lab.nodes.map(async (node) => (await stateOf(node)).sessions));
    assert.deepEqual(
      counts,
      // Of each family: the other two and the router; the reflector and the router.
      [6, 4, 4].map((all) => ({ established: all, all })),
    );
  });

  test('containers of two clients reach each other without a detour', async () => {
    for (const address of db.addresses) await reaches(address);
    const { address, address6 } = lab.node('node3');
    const [four = '', six = ''] = db.addresses;
    const way = (to: string) => lab.node('node2').mustExec(['ip', 'route', 'get', to]);
    assert.match(await way(four), new RegExp(`via ${address} `));
    assert.match(await way(six), new RegExp(`via ${address6} `));
  });

  test('what the router announces is reached, by the way that it announced', async () => {
    for (const address of [outside.address4, outside.address6]) await reaches(address);
    const way = await lab.node('node1').mustExec(['ip', 'route', 'get', outside.address4]);
    assert.match(way, new RegExp(`via ${routerAddresses.address4} `));
  });

  test('BIRD and agent of a node are killed; etcd is gone: traffic goes on', async () => {
    const node = lab.node('node3');
    const [target = ''] = db.addresses;
    const flow = web.exec(['ping', '-c30', '-i0.1', '-W1', target]);
    const bird = node.birdPid;
    await lab.etcd.kill('SIGKILL');
    await node.killBird('SIGKILL');
    await eventually(
      'the agent starts it again',
      10_000,
      async () => node.birdPid !== null && node.birdPid !== bird,
    );
    await node.kill('SIGKILL');
    assert.match((await flow).stdout, / 0% packet loss/);
    await lab.etcd.start();
    await node.start();
    await eventually('healthy again', 20_000, async () => (await stateOf(node)).healthy);
  });
});
