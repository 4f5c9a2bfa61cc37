/**
 * The shape of where policy is enforced.
 *
 * In: nothing. Out: schemas for routes and clients. Never: a default that hides that it is not.
 */
import { z } from 'zod';
import { nodeName } from '../model/records.ts';

const enforcementItem = z.object({
  endpoint: z.string(),
  where: z.string().meta({ description: '`host`, or `container and guard` (on the parent of a macvlan)' }),
  inSync: z.boolean(),
  notice: z
    .string()
    .nullable()
    .meta({ description: 'What keeps it from being all that it says, or was repaired last' }),
});
export type EnforcementItem = z.output<typeof enforcementItem>;
export const enforcementList = z.object({ node: nodeName, items: z.array(enforcementItem) });
export type EnforcementList = z.output<typeof enforcementList>;
