/**
 * The schemas of an import; its body is text, a record a line.
 *
 * In: query strings. Out: zod schemas. Never: a field that is accepted and ignored.
 */
import { z } from 'zod';
import { exactObject } from '../model/check.ts';
import { count, ownerText } from './schemas.ts';

export const importQuery = exactObject({
  tenant: ownerText.default('default').meta({ description: 'Of owners that do not name one' }),
});
const LINES = 'lines of text, as application/x-ndjson or text/plain';
export const importBody = z
  .string(LINES)
  .meta({ description: `${LINES}: as exported, {ip, owner, mac}, or address, owner and MAC` });
export const importAnswer = z.object({
  imported: count,
  unchanged: count.meta({ description: 'There already' }),
  skipped: count.meta({ description: 'Not for an import: headers, reserved and cooling addresses' }),
  refused: count,
  refusals: z
    .array(z.object({ line: count, code: z.string(), reason: z.string() }))
    .meta({ description: 'The first hundred' }),
});
export type ImportAnswer = z.output<typeof importAnswer>;

export const exportAnswer = z
  .string()
  .meta({ description: `application/x-ndjson: a header, then {key, value} a line` });
