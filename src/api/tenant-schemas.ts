/**
 * The schemas of tenants and of the cluster's settings.
 *
 * In: the model's records. Out: zod schemas and their types, as in schemas.ts. Never: a field that is accepted and ignored.
 */
import { z } from 'zod';
import { exactObject } from '../model/check.ts';
import { settingsSchema } from '../model/records.ts';
import { count, ownerText, readableListOf, revision, SWITCH } from './schemas.ts';

const LIMIT = 'a number from 0 on, or null for no limit';
export const tenantParams = exactObject({ tenant: ownerText });
export const tenantBody = exactObject({ maxAddresses: z.int(LIMIT).min(0, LIMIT).nullable() });
const tenantItem = z.object({
  name: z.string(),
  maxAddresses: count.nullable(),
  used: count.meta({ description: 'All states but cooldown' }),
  revision,
});
export type TenantItem = z.output<typeof tenantItem>;
export const tenantList = readableListOf(tenantItem);
export const tenantChanged = z.object({ revision, applied: z.boolean(), item: tenantItem });

export const settingsBody = exactObject({
  strictAffinity: z
    .boolean(SWITCH)
    .meta({ description: 'false: a node without room borrows addresses of blocks that others have' }),
});
export const settingsItem = z.object({ ...settingsSchema.shape, revision });
export type SettingsItem = z.output<typeof settingsItem>;
export const settingsChanged = z.object({ revision, applied: z.boolean(), item: settingsItem });
