/**
 * The schema of a request to watch.
 *
 * In: a query string. Out: its checked parts. Never: a filter that is accepted and not applied.
 */
import { z } from 'zod';
import { exactObject } from '../model/check.ts';
import { nodeText, ownerText } from './schemas.ts';
import { type WatchedKind, watchedKinds } from './watch-filter.ts';

const KINDS = `kinds with commas between them: ${watchedKinds.join(', ')}`;
const kinds = z
  .string(KINDS)
  .transform((text, context): WatchedKind[] => {
    const wanted = text.split(',').map((word) => watchedKinds.find((kind) => kind === word));
    if (wanted.every((kind) => kind !== undefined)) return wanted;
    context.addIssue({ code: 'custom', message: KINDS });
    return z.NEVER;
  })
  .nullable()
  .default(null);

export const watchQuery = exactObject({
  since: z
    .string()
    .optional()
    .meta({ description: 'What came after this revision or event id; without it what comes from now on' }),
  kinds: kinds.meta({ description: KINDS }),
  tenant: ownerText.optional().meta({ description: 'Addresses and reservations of this tenant only' }),
  node: nodeText
    .optional()
    .meta({ description: 'What concerns this node; deletions of addresses are told in any case' }),
});

export const watchAnswer = z.string().meta({
  description:
    'text/event-stream: events put and delete with {revision, type, kind, name, object}, a bookmark every 30 s, error before an end',
});
