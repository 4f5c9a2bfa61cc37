/**
 * Run inside a network namespace: policy of a world as an agent has it, in the kernel, then ends and leaves it there.
 *
 * In, as JSON in the argument: see Order. Out: nothing. Never: an end before the kernel has all of it.
 */
import { parseCidr } from '../src/model/ip.ts';
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
tell(engine, makeWorld(order));
engine.onPool('all', { cidr: parseCidr('10.0.0.0/8'), natOutgoing: order.nat });
await dataplane.start();
linux.close();
