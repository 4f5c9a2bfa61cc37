/** A macvlan endpoint as the store has it, for tests: what is not said is usual. */
import type { Netns } from '../../../src/linux/ports.ts';
import type { Address } from '../../../src/model/ip.ts';
import { type Endpoint, endpointSchema } from '../../../src/model/records.ts';

export const bootId = 'now';

export function macvlanEndpoint(
  path: string,
  netns: Netns,
  words: { hostInterface: string; mac: string; parent: string; addresses: readonly Address[] },
): Endpoint {
  const { parent, ...more } = words;
  return endpointSchema.parse({
    network: 'wire',
    containerId: path,
    interface: 'eth0',
    kind: 'macvlan',
    macvlan: {
      parent,
      vlan: null,
      mode: 'bridge',
      hostAccess: 'none',
      duplicateDetection: 'off',
      defaultRoute: false,
      subnets: more.addresses.map(() => ({ prefixLength: 24, gateway: null })),
    },
    ...more,
    mtuBytes: 1500,
    profiles: [],
    netns: { path, ...netns.identity },
    bootId,
    createdAt: new Date(0).toISOString(),
  });
}
