/**
 * What a macvlan endpoint is besides an endpoint: the wire it sits on, and the subnet of each of its addresses.
 *
 * In: JSON of the store, texts of a network configuration. Out: checked values. Never: a mode or parent that the kernel does not know.
 */
import { z } from 'zod';
import { invalid } from '../lib/errors.ts';
import { type Address, parseAddress } from './ip.ts';
import { parseInterfaceName } from './names.ts';

/** macvlan(8): what children of one parent may send to each other. `passthru`: one child, with the parent's own MAC. */
export const macvlanModes = ['bridge', 'private', 'vepa', 'passthru'] as const;
export type MacvlanMode = (typeof macvlanModes)[number];

/**
 * How the host and the container reach each other, which macvlan itself does not let them: `veth` a pair beside the macvlan, `shim` a
 * macvlan of the host's own on the same parent.
 */
export const hostAccesses = ['none', 'veth', 'shim'] as const;
export type HostAccess = (typeof hostAccesses)[number];

/** Whether somebody else has the address is asked before it is used: not, for 200 ms, or as RFC 5227 says (up to 7 s). */
export const duplicateDetections = ['off', 'fast', 'rfc5227'] as const;
export type DuplicateDetection = (typeof duplicateDetections)[number];

/** Whether the gateway is asked, by ARP or neighbour solicitation, before an ADD answers; `warn` only logs that it is silent. */
export const gatewayChecks = ['off', 'warn', 'require'] as const;
export type GatewayCheck = (typeof gatewayChecks)[number];

export interface MacvlanAttachment {
  readonly parent: string;
  /** An 802.1Q id on the parent. */
  readonly vlan: number | null;
  readonly mode: MacvlanMode;
  readonly hostAccess: HostAccess;
  readonly duplicateDetection: DuplicateDetection;
  readonly gatewayCheck: GatewayCheck;
  /** Whether the pool's gateway becomes the container's default route. */
  readonly defaultRoute: boolean;
}

const interfaceName = z.string().superRefine((text, context) => {
  try {
    parseInterfaceName(text, 'value');
  } catch (error) {
    context.addIssue((error as Error).message.replace(/^value: /, ''));
  }
});

const gateway = z
  .string()
  .superRefine((text, context) => {
    try {
      if (parseAddress(text, 'value') !== text) context.addIssue('expected the canonical form');
    } catch (error) {
      context.addIssue((error as Error).message.replace(/^value: /, ''));
    }
  })
  .nullable() as unknown as z.ZodType<Address | null>;

/** In the record of an endpoint. */
export const macvlanSchema = z.strictObject({
  parent: interfaceName,
  vlan: z.int().min(1).max(4094).nullable(),
  mode: z.enum(macvlanModes),
  hostAccess: z.enum(hostAccesses),
  duplicateDetection: z.enum(duplicateDetections),
  gatewayCheck: z.enum(gatewayChecks).default('off'),
  defaultRoute: z.boolean(),
  /** Of each address, in their order: the subnet on the wire, and its gateway if the pool has one. */
  subnets: z.array(z.strictObject({ prefixLength: z.int().min(0).max(128), gateway })),
});
export type MacvlanRecord = z.infer<typeof macvlanSchema>;

/** One of the words, or the default where there is none. @throws INVALID */
export function parseWord<T extends string>(
  words: readonly T[],
  text: string | null | undefined,
  field: string,
  fallback: T,
): T {
  if (text === null || text === undefined || text === '') return fallback;
  const word = words.find((candidate) => candidate === text);
  if (word === undefined) throw invalid(field, text, words.join(', '));
  return word;
}
