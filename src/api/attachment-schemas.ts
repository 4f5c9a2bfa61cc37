/**
 * The shapes of attachments that an operator asks for.
 *
 * In: nothing. Out: schemas for routes and clients. Never: a field of CNI that the operator could not mean.
 */
import { z } from 'zod';
import { exactObject } from '../model/check.ts';
import { portMappingsSchema } from '../model/port-mapping.ts';

const NETNS = 'a process id, an absolute path, or a name below /run/netns';
const netns = z.string(NETNS).min(1, NETNS).max(4096, NETNS).meta({ description: NETNS });
const INTERFACE = 'a name of an interface';
const interfaceText = z.string(INTERFACE).min(1, INTERFACE).max(15, INTERFACE);
const NETWORK = 'a name of a network';

export const attachmentAdd = exactObject({
  netns,
  network: z.string(NETWORK).min(1, NETWORK).max(255, NETWORK),
  interface: interfaceText.optional().meta({ description: 'net1, net2, … when absent' }),
  profiles: z.array(z.string('a name')).max(64, 'at most 64 profiles').optional(),
  addresses: z.array(z.string('an address')).max(64, 'at most 64 addresses').optional(),
  portMappings: portMappingsSchema.optional().meta({ description: 'Ports of the host that lead to it' }),
});
export type AttachmentAdd = z.input<typeof attachmentAdd>;
export const attachmentQuery = exactObject({ netns, interface: interfaceText });

export const detachedItem = z.object({
  network: z.string(),
  containerId: z.string(),
  interface: z.string(),
});
export type DetachedItem = z.output<typeof detachedItem>;
export const attachmentItem = detachedItem.extend({
  addresses: z.array(z.string()),
  mac: z.string(),
  mtuBytes: z.number(),
  netns: z.string(),
});
export type AttachmentItem = z.output<typeof attachmentItem>;
