/**
 * Ports of the host that lead to a container's: in records, in requests, and as an operator writes them.
 *
 * In: JSON, `[ADDRESS:]HOST-PORT:PORT[/PROTOCOL]`. Out: mappings. Never: two of one list that speak of the same port of the host; an
 * address of the host that cannot be led elsewhere.
 */
import { z } from 'zod';
import { invalid } from '../lib/errors.ts';
import { type Address, type Family, families, familyOf, parseAddress } from './ip.ts';

/** Those that the kernel's address translation knows ports of. */
export const portProtocols = ['tcp', 'udp', 'sctp'] as const;
export type PortProtocol = (typeof portProtocols)[number];
export const portProtocolNumbers: Readonly<Record<PortProtocol, number>> = { tcp: 6, udp: 17, sctp: 132 };

/** In keys: `tcp-8080`. */
export const portName = (protocol: PortProtocol, port: number): string => `${protocol}-${port}`;

/** What `portName` wrote. */
export function parsePortName(name: string): { protocol: PortProtocol; port: number } {
  const [protocol, port] = name.split('-');
  return { protocol: protocol as PortProtocol, port: Number(port) };
}

/** One transaction of the store takes no more. */
export const mostPortMappings = 100;

const PORT = 'a port from 1 to 65535';
export const portNumber = z.int(PORT).min(1, PORT).max(65535, PORT);
const HOST_ADDRESS = 'an address of the host, or null for all';
const hostAddress = z
  .string(HOST_ADDRESS)
  .superRefine((text, context) => {
    try {
      checkHostAddress(text, 'hostIP');
    } catch (error) {
      context.addIssue((error as Error).message.replace(/^hostIP: /, ''));
    }
  })
  .nullable() as unknown as z.ZodType<Address | null>;

export const portMappingSchema = z.strictObject({
  protocol: z.enum(portProtocols, 'tcp, udp or sctp'),
  hostPort: portNumber,
  containerPort: portNumber,
  /** Only there; null: on all addresses of the host. `0.0.0.0` and `::`: on all of that family. */
  hostIP: hostAddress.default(null),
});
export type PortMapping = z.output<typeof portMappingSchema>;

export const portMappingsSchema = z
  .array(portMappingSchema, 'a list of mappings')
  .max(mostPortMappings, `at most ${mostPortMappings} mappings`)
  .superRefine((mappings, context) => {
    const twice = mappings.find((mapping, at) =>
      mappings.slice(0, at).some((other) => collide(mapping, other)),
    );
    if (twice !== undefined) context.addIssue(`each port of the host once, not ${mappingText(twice)} again`);
  });

export interface HostPort {
  readonly protocol: PortProtocol;
  readonly hostPort: number;
  readonly hostIP: Address | null;
}

/** Both speak of one port of the host. */
export function collide(a: HostPort, b: HostPort): boolean {
  return a.protocol === b.protocol && a.hostPort === b.hostPort && addressesMeet(a.hostIP, b.hostIP);
}

/** @param a, b as `hostIP` */
export function addressesMeet(a: Address | null, b: Address | null): boolean {
  const isOfOneFamily = hostFamilies(a).some((family) => hostFamilies(b).includes(family));
  return isOfOneFamily && (isEvery(a) || isEvery(b) || a === b);
}

/** In which the port is published. */
export function hostFamilies(hostIP: Address | null): readonly Family[] {
  return hostIP === null ? families : [familyOf(hostIP)];
}

/** No single one is named. */
export function isEvery(hostIP: Address | null): boolean {
  return hostIP === null || hostIP === '0.0.0.0' || hostIP === '::';
}

/** @throws INVALID */
export function checkHostAddress(text: unknown, field: string): Address {
  const address = parseAddress(text, field);
  // The kernel lets nothing from ::1 leave by another interface.
  if (address === '::1')
    throw invalid(field, text, 'another address: the IPv6 loopback cannot be led elsewhere');
  return address;
}

/** `8080:80/tcp`, `192.0.2.1:53:5353/udp`, `[2001:db8::1]:80:80/tcp`. */
export function mappingText({ protocol, hostPort, containerPort, hostIP }: PortMapping): string {
  return `${hostPortText({ protocol, hostPort, hostIP }, `:${containerPort}`)}`;
}

export function hostPortText({ protocol, hostPort, hostIP }: HostPort, more = ''): string {
  const address = hostIP === null ? '' : familyOf(hostIP) === 4 ? `${hostIP}:` : `[${hostIP}]:`;
  return `${address}${hostPort}${more}/${protocol}`;
}

/** What `mappingText` writes; without a protocol tcp. @throws INVALID */
export function parsePortMapping(text: string, field = 'port'): PortMapping {
  const parts = /^(?:(?:\[([^\]]+)\]|([\d.]+)):)?(\d{1,5}):(\d{1,5})(?:\/(\w+))?$/.exec(text);
  const [, address6, address4, hostPort, containerPort, protocol = 'tcp'] = parts ?? [];
  const address = address6 ?? address4;
  const parsed = portMappingSchema.safeParse({
    protocol: protocol.toLowerCase(),
    hostPort: Number(hostPort),
    containerPort: Number(containerPort),
    hostIP: address === undefined ? null : checkHostAddress(address, field),
  });
  if (!parsed.success) throw invalid(field, text, '[ADDRESS:]HOST-PORT:PORT[/tcp|udp|sctp]');
  return parsed.data;
}
