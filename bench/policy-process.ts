/**
 * Run inside a network namespace: policy of a world as an agent has it, in the kernel, then ends and leaves it there.
 *
 * In, as JSON in the argument: see Order. Out: the CPU time that it took, in milliseconds. Never: an end before the kernel has all of it.
 */
import { parseCidr } from '../src/model/ip.ts';
import { ownCpu } from './cpu-time.ts';
import { type BackendName, startPolicy } from './policy-part.ts';
import { makeWorld, tell } from './policy-world.ts';

export interface Order {
  readonly backend: BackendName;
  readonly endpoints: number;
  readonly lists: number;
  readonly members: number;
  /** The pool asks for NAT. */
  readonly nat: boolean;
}

const order = JSON.parse(process.argv[2]!) as Order;
const { engine, dataplane, linux } = await startPolicy(order.backend);
const world = makeWorld(order);
const took = await ownCpu(async () => {
  tell(engine, world);
  engine.onPool('all', { cidr: parseCidr('10.0.0.0/8'), natOutgoing: order.nat });
  await dataplane.start();
});
linux.close();
console.log(took);
