/**
 * What is common to the kinds of endpoints: how the links of one are made, taken away, and looked at.
 *
 * In: endpoints as the store has them, an open namespace. Out: nothing; what the kernel refuses is thrown. Never: policy (it is in the
 * kernel before `make` is called).
 */
import type { Netns } from '../linux/ports.ts';
import type { Endpoint } from '../model/records.ts';

export interface Wiring {
  /** Resolves when the container can talk. What is left after a failure, `unmake` takes away. @throws LINK, INTERFACE_EXISTS, … */
  make(endpoint: Endpoint, netns: Netns): Promise<void>;
  /** Resolves when the links are gone, or were not there. */
  unmake(endpoint: Endpoint): Promise<void>;
  /** Whether the endpoint's link stands in the given namespace. */
  stands(endpoint: Endpoint, netns: Netns): boolean;
  /** What is missing or wrong of the endpoint in the kernel, in words; empty when all is right. */
  inspect(endpoint: Endpoint, netns: Netns): Promise<string[]>;
  close(): void;
}
