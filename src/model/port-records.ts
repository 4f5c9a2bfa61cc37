/**
 * Records of ports of a node: one for each port that something holds, and one for each reservation of some.
 *
 * In: JSON from the store. Out: typed values. Never: a port that its record alone says is taken: that its holder is there decides
 * (src/ipam/ports.ts).
 */
import { z } from 'zod';
import { portNumber, portProtocols } from './port-mapping.ts';
import { address, ownerPart } from './records.ts';

/** Whoever has a port: an endpoint of the node that publishes it, or a reservation on the node. */
const holder = z.strictObject({
  kind: z.enum(['endpoint', 'reservation']),
  id: z.string().min(1).max(64),
  /** Only on this address of the host; null: on all. */
  hostIP: address.nullable(),
});
export type PortHolder = z.output<typeof holder>;

/** Several holders where each has it on another address, or an endpoint publishes what its owner has reserved. */
export const portSchema = z.strictObject({ holders: z.array(holder).min(1).max(64) });
export type PortRecord = z.output<typeof portSchema>;

export const portRangeSchema = z.strictObject({
  protocol: z.enum(portProtocols, 'tcp, udp or sctp'),
  from: portNumber,
  to: portNumber,
});
export type NodePorts = z.output<typeof portRangeSchema>;

/** Ports of one node that a scheduler holds for a container of the host's network (or one that will publish them). */
export const portReservationSchema = z.strictObject({
  tenant: ownerPart,
  app: ownerPart,
  instance: ownerPart,
  ports: z.array(portRangeSchema).min(1),
  /** Goes up by one with each change; a change names the generation that it means. */
  generation: z.int().min(1),
  /** null: until it is released. */
  ttlSeconds: z.int().min(1).max(86400).nullable(),
  createdAt: z.iso.datetime(),
  expiresAt: z.iso.datetime().nullable(),
});
export type PortReservation = z.output<typeof portReservationSchema>;
