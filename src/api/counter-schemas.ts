/**
 * The shape of what went through endpoints' interfaces.
 *
 * In: nothing. Out: schemas for routes and clients. Never: a default that hides a missing counter.
 */
import { z } from 'zod';
import { nodeName } from '../model/records.ts';

const count = z.number();
/** `in` is what the container received. Counted since the interface was made. */
const counters = z.object({
  inPackets: count,
  inBytes: count,
  inDropped: count,
  outPackets: count,
  outBytes: count,
  outDropped: count,
});

const counterItem = z.object({
  endpoint: z.string(),
  network: z.string(),
  containerId: z.string(),
  interface: z.string(),
  addresses: z.array(z.string()),
  ...counters.shape,
});
export type CounterItem = z.output<typeof counterItem>;
export const counterList = z.object({
  node: nodeName,
  seconds: z.number().meta({ description: 'When they were read, on a clock that only goes forward' }),
  items: z.array(counterItem),
});
export type CounterList = z.output<typeof counterList>;
