/**
 * One node of ipam-thousand.test.ts, as an agent is: a process, a local store, a connection to etcd, an agent's patience.
 *
 * In: name, etcd's endpoint, prefix, kind of addresses; the messages `assign` and `settle`. Out: the messages `ready`, its 100 addresses or
 * the error, `settled`. Never: a request before all nodes are ready.
 */
import { startNodes } from '../../lab/ipam-cluster.ts';
import { silent } from '../../lab/ipam-node.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { EtcdStore } from '../../src/store/etcd.ts';

const [name = '', endpoint = '', prefix = '', kind = ''] = process.argv.slice(2);
const agentsPatience = 3000;

const etcd = new EtcdStore({ endpoints: [endpoint], prefix, clock: systemClock, logger: silent });
const { nodes, settled, close } = await startNodes([name], () => etcd, {
  patienceMilliseconds: agentsPatience,
});
const { ipam } = nodes[0]!;
process.on('message', async (message) => {
  if (message === 'assign') process.send!(await assignHundred());
  else {
    await settled();
    process.send!('settled');
    await close();
    process.disconnect();
  }
});
process.send!('ready');

async function assignHundred(): Promise<{ addresses: string[] } | { error: string }> {
  const wanted = Array.from({ length: 100 }, (_, number) =>
    ipam.assign(`${name}-${number}`, { kind: kind as 'routed' | 'macvlan' }),
  );
  try {
    return { addresses: (await Promise.all(wanted)).flat() };
  } catch (error) {
    return { error: `${name}: ${String(error)}` };
  }
}
