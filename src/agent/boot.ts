/**
 * Closed from boot on: policy without any endpoint, in which everything from and to interfaces of containers is dropped. The agent finds it
 * at its start and replaces it, as it does with whatever an agent before it has left.
 *
 * In: the kernel of a host that has just started. Out: our base rules. Never: a change where rules of ours are already: they know
 * the endpoints, and hold until the agent is back.
 */
import { Backends } from '../dataplane/choose-backend.ts';
import { PolicyDataplane } from '../dataplane/policy-dataplane.ts';
import type { Logger } from '../lib/logger.ts';
import type { Linux } from '../linux/ports.ts';
import { PolicyEngine } from '../policy/engine.ts';
import type { Config } from './config.ts';
import { policyOptions } from './policy-options.ts';

/** Returns whether it wrote anything. @throws KernelError */
export async function closeUntilSync(linux: Linux, config: Config, logger: Logger): Promise<boolean> {
  const backends = new Backends(linux, config.dataplane, logger);
  const { wanted } = await backends.look();
  const { backend, other } = backends.make(wanted);
  if ((await backend.isThere()) || (await other.isThere())) {
    logger.info({}, 'policy is in the kernel already');
    return false;
  }
  const dataplane = new PolicyDataplane({ backend, other: null }, logger);
  // Tells the base chains by itself.
  new PolicyEngine(policyOptions(config), dataplane);
  await dataplane.start();
  return true;
}
