/**
 * What a macvlan endpoint is besides an endpoint: the wire it sits on, and the subnet of each of its addresses.
 *
 * In: JSON of the store, texts of a network configuration. Out: checked values. Never: a mode or parent that the kernel does not know.
 */
import { z } from 'zod';
import { invalid } from '../lib/errors.ts';
import { type Address, type Cidr, everything, families, familyOf, parseAddress, parseCidr } from './ip.ts';
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

/** Of one address; what a DHCP server can say in its options is less. */
export const mostRoutes = 256;

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

const cidr = z.string().superRefine((text, context) => {
  try {
    if (parseCidr(text, 'value') !== text) context.addIssue('expected the canonical form');
  } catch (error) {
    context.addIssue((error as Error).message.replace(/^value: /, ''));
  }
}) as unknown as z.ZodType<Cidr>;

/** A gateway on the wire; null: what is reached is itself on the wire. */
export interface WireRoute {
  readonly destination: Cidr;
  readonly gateway: Address | null;
}

/** In the record of an endpoint. */
export const macvlanSchema = z.strictObject({
  parent: interfaceName,
  vlan: z.int().min(1).max(4094).nullable(),
  mode: z.enum(macvlanModes),
  hostAccess: z.enum(hostAccesses),
  duplicateDetection: z.enum(duplicateDetections),
  gatewayCheck: z.enum(gatewayChecks).default('off'),
  defaultRoute: z.boolean(),
  /**
   * Of each address, in their order: the subnet on the wire, its gateway if there is one, and what whoever gave the address has said of
   * routes; where nothing was said, all is reached by the gateway.
   */
  subnets: z.array(
    z.strictObject({
      prefixLength: z.int().min(0).max(128),
      gateway,
      routes: z
        .array(z.strictObject({ destination: cidr, gateway }))
        .max(mostRoutes)
        .nullable()
        .default(null),
    }),
  ),
});
export type MacvlanRecord = z.infer<typeof macvlanSchema>;

/** What the endpoint reaches by whom, beside its subnets. @param addresses of the endpoint */
export function routesOf(
  addresses: readonly Address[],
  { subnets, defaultRoute }: Pick<MacvlanRecord, 'subnets' | 'defaultRoute'>,
): WireRoute[] {
  return families.flatMap((family): readonly WireRoute[] => {
    const own = subnets.filter((_, at) => addresses[at] !== undefined && familyOf(addresses[at]) === family);
    const gateway = own.find((subnet) => subnet.gateway !== null)?.gateway ?? null;
    const byGateway = gateway === null ? [] : [{ destination: everything[family], gateway }];
    const routes = own.find((subnet) => subnet.routes !== null)?.routes ?? byGateway;
    return defaultRoute ? routes : routes.filter(({ destination }) => destination !== everything[family]);
  });
}

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
