/**
 * Owners as they are written on the command line.
 *
 * In: `TENANT/APP/INSTANCE`. Out: its parts. Never: a part that is empty.
 */
import { UsageError } from './command.ts';

/** @throws UsageError */
export function ownerOf(text: string): { tenant: string; app: string; instance: string } {
  const [tenant, app, instance, ...rest] = text.split('/');
  if (!tenant || !app || !instance || rest.length > 0)
    throw new UsageError(`--owner: "${text}" is not valid: expected TENANT/APP/INSTANCE`);
  return { tenant, app, instance };
}
