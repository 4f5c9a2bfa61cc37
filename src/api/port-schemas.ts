/**
 * The shapes of reservations of ports, and of the ports of a node.
 *
 * In: the model's records. Out: schemas for routes and clients. Never: a field that is accepted and ignored.
 */
import { z } from 'zod';
import { exactObject } from '../model/check.ts';
import { portNumber, portProtocols } from '../model/port-mapping.ts';
import { portRangeSchema, portReservationSchema } from '../model/port-records.ts';
import { address, nodeName } from '../model/records.ts';
import { listOf, namedTenant, nodeText, ownerText, revision, SWITCH } from './schemas.ts';

/** One transaction takes no more. */
const MOST = 100;
const COUNT = `a number from 1 to ${MOST}`;
const SECONDS = 'a whole number of seconds from 1 to 86400, or null for until it is released';
const ttlSeconds = z.int(SECONDS).min(1, SECONDS).max(86400, SECONDS).nullable();
const GENERATION = 'a generation from 1 on, as the reservation has it';
const generation = z.int(GENERATION).min(1, GENERATION);
const RESERVATION = '1 to 64 letters, digits, "-" or "_"';
const reservationId = z.string(RESERVATION).regex(/^[A-Za-z0-9_-]{1,64}$/, RESERVATION);
const tenant = ownerText
  .optional()
  .meta({ description: 'Act as this tenant: what belongs to others is refused with NOT_OWNER' });

const portWish = exactObject({
  protocol: z.enum(portProtocols, 'tcp, udp or sctp').default('tcp'),
  from: portNumber,
  to: portNumber.optional().meta({ description: 'The last of a range; only `from` when absent' }),
  count: z
    .int(COUNT)
    .min(1, COUNT)
    .max(MOST, COUNT)
    .nullable()
    .default(null)
    .meta({ description: 'So many of the range, the lowest free ones; all of it when null' }),
}).refine(({ from, to = from }) => from <= to, 'a range whose first port is not the higher one');

export const portReserveBody = exactObject({
  id: reservationId
    .optional()
    .meta({ description: 'Chosen by the caller, so that a repetition is recognised; made up when absent' }),
  node: nodeText,
  tenant: namedTenant,
  app: ownerText,
  instance: ownerText,
  ports: z
    .array(portWish, 'a list of ports')
    .min(1, 'at least one port')
    .max(MOST, `at most ${MOST} ports or ranges`)
    .meta({ description: `All of them or none; ${MOST} ports at most` }),
  ttlSeconds: ttlSeconds.default(300),
});
export type PortReserveBody = z.input<typeof portReserveBody>;

export const portReservationItem = z.object({
  node: nodeName,
  id: z.string(),
  ...portReservationSchema.shape,
});
export type PortReservationItem = z.output<typeof portReservationItem>;
const row = portReservationItem.extend({ revision });
export const portReservationList = listOf(row);
export const portReservationShown = row;
export const portReservationParams = exactObject({ node: nodeText, reservation: reservationId });
export const portReservationQuery = exactObject({
  node: nodeText.optional(),
  tenant: ownerText.optional(),
});
export const portExtendBody = exactObject({ generation, ttlSeconds, tenant });
export const portReleaseBody = exactObject({
  generation: generation.optional().meta({ description: 'May be absent with force only' }),
  force: z
    .boolean(SWITCH)
    .optional()
    .meta({ description: 'Whatever its generation. Not together with tenant' }),
  tenant,
});
export const portsReleased = z.object({
  freed: z.array(portRangeSchema).meta({ description: 'Empty also for a reservation that is gone already' }),
});
export type PortsReleased = z.output<typeof portsReleased>;

export const portQuery = exactObject({ node: nodeText.optional() });
export const portItem = z.object({
  node: nodeName,
  protocol: z.enum(portProtocols),
  port: portNumber,
  hostIP: address.nullable().meta({ description: 'Only on this address of the node; null: on all' }),
  holder: z.object({ kind: z.enum(['endpoint', 'reservation']), id: z.string() }),
  text: z.string().meta({ description: 'Who that is, for people' }),
});
export type PortItem = z.output<typeof portItem>;
export const portList = listOf(portItem);
