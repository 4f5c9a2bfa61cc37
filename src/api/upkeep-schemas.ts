/**
 * The schemas of what an operator, or a scheduler that speaks for one, does about nodes and leaks.
 *
 * In: the model's records. Out: zod schemas and their types, as in schemas.ts. Never: a field that is accepted and ignored.
 */
import { z } from 'zod';
import { exactObject } from '../model/check.ts';
import { address, addressSchema, ownerSchema } from '../model/records.ts';
import { count, SWITCH } from './schemas.ts';

const SECONDS = 'a whole number of seconds from 0 to 86400';

// nodes out of use

const CONFIRM = 'the name of the node, as in the path';
export const forgetBody = exactObject({
  confirm: z.string(CONFIRM).meta({ description: CONFIRM }),
  force: z.boolean(SWITCH).default(false).meta({ description: 'Also when its agent runs' }),
});
export const stateBody = exactObject({});
export const nodeAffected = z.object({
  node: z.string(),
  state: z.enum(['drained', 'fenced']),
  items: z.array(
    z.object({
      address,
      owner: ownerSchema,
      state: addressSchema.shape.state,
      onRelease: addressSchema.shape.onRelease,
      container: z.string().nullable(),
      generation: count.meta({ description: 'What a transfer has to name' }),
    }),
  ),
});
export type NodeAffected = z.output<typeof nodeAffected>;
export const nodeReadmitted = z.object({ node: z.string() });

// collecting leaks in two steps

export const gcPlanBody = exactObject({
  minAgeSeconds: z
    .int(SECONDS)
    .min(0, SECONDS)
    .max(86400, SECONDS)
    .default(0)
    .meta({ description: 'Only what was allocated before' }),
});
const gcItem = { address, node: z.string().nullable(), evidence: z.string() };
export const gcPlan = z.object({
  planId: z.string(),
  expiresAt: z.string(),
  items: z
    .array(z.object({ ...gcItem, verdict: z.enum(['confirmed', 'waiting', 'live', 'unreachable']) }))
    .meta({
      description: 'Applied are those that are confirmed then: seen leaked twice, a grace time apart',
    }),
  held: z.string().nullable().meta({ description: 'Why nothing would be freed' }),
});
export const gcApplyBody = exactObject({
  planId: z.string('the planId of a plan'),
  confirmed: z.boolean(SWITCH).default(false).meta({ description: 'Many endpoints are really gone' }),
});
export const gcApplied = z.object({
  items: z.array(z.object({ ...gcItem, outcome: z.enum(['freed', 'changed', 'left']) })),
  held: z.string().nullable(),
});
