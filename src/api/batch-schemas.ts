/**
 * The schemas of a batch: each operation is what the request for it alone takes, with the verb and what stands in its path.
 *
 * In: the schemas of the single requests. Out: one union of them. Never: a field of an operation that is described twice.
 */
import { z } from 'zod';
import { exactObject } from '../model/check.ts';
import {
  activateBody,
  bindBody,
  cancelBody,
  commitBody,
  extendBody,
  releaseBody,
  reservationParams,
  reserveBody,
  transferBody,
  unbindBody,
} from './ipam-schemas.ts';
import { addressParams, count, errorBody, SWITCH } from './schemas.ts';

const { force: _, ...transferFields } = transferBody.shape;
const { force: __, ...releaseFields } = releaseBody.shape;
const at = addressParams.shape;
const of = reservationParams.shape;
const OPERATIONS = 'reserve, extend, commit, cancel, bind, activate, unbind, transfer or release';

const operation = z.discriminatedUnion(
  'op',
  [
    exactObject({ op: z.literal('reserve'), ...reserveBody.shape }),
    exactObject({ op: z.literal('extend'), ...of, ...extendBody.shape }),
    exactObject({ op: z.literal('commit'), ...of, ...commitBody.shape }),
    exactObject({ op: z.literal('cancel'), ...of, ...cancelBody.shape }),
    exactObject({ op: z.literal('bind'), ...at, ...bindBody.shape }),
    exactObject({ op: z.literal('activate'), ...at, ...activateBody.shape }),
    exactObject({ op: z.literal('unbind'), ...at, ...unbindBody.shape }),
    exactObject({ op: z.literal('transfer'), ...at, ...transferFields }),
    exactObject({ op: z.literal('release'), ...at, ...releaseFields }),
  ],
  `an operation with op ${OPERATIONS}`,
);
export type BatchCall = z.output<typeof operation>;

export const batchBody = exactObject({
  atomic: z.boolean(SWITCH).default(false).meta({
    description:
      'All in one transaction or none; they must fit into one (120 writes, two for most operations)',
  }),
  operations: z
    .array(operation, 'a list of operations')
    .min(1, 'at least one operation')
    .max(1000, 'at most 1000 operations'),
});
export const batchAnswer = z.object({
  items: z
    .array(
      z.object({
        status: count.meta({ description: 'As the request alone would have it' }),
        result: z.unknown().optional(),
        error: errorBody.shape.error.optional(),
      }),
    )
    .meta({ description: 'In the order of the operations' }),
  failed: count,
});
