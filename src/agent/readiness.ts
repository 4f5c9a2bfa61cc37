/**
 * Whether the next ADD would get its network: the answer to STATUS.
 *
 * In: what an ADD with no wishes of its own would ask for. Out: what stands in its way. Never: a change.
 */
import { asNetctlError } from '../lib/errors.ts';
import type { AttachWish } from '../model/attachment.ts';
import type { BuilderParts } from './endpoint-builder.ts';
import type { Registrations } from './registrations.ts';

export interface NotReady {
  readonly reason: string;
  /** Containers that are attached already suffer, too. */
  readonly existingAffected: boolean;
}

export function notReady(
  { policy, diskRefusal, wirings }: BuilderParts,
  registrations: Pick<Registrations, 'noAddressFor'>,
  { macvlan, mtuBytes, addresses }: AttachWish,
): NotReady | null {
  const { inSync, lastError } = policy.status;
  if (!inSync)
    return { reason: `policy is not in the kernel: ${lastError ?? 'starting'}`, existingAffected: true };
  const refusal = diskRefusal();
  const reason =
    (refusal === null ? null : `the last change was not taken: ${refusal}`) ??
    (macvlan && reasonOf(() => wirings.macvlan.mtuOf(macvlan, mtuBytes))) ??
    (addresses && registrations.noAddressFor(addresses));
  return reason === null ? null : { reason, existingAffected: false };
}

function reasonOf(attempt: () => unknown): string | null {
  try {
    attempt();
    return null;
  } catch (error) {
    return asNetctlError(error).message;
  }
}
