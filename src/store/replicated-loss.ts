/**
 * What goes when blocks are lost: the endpoints that have an address in them, and their other addresses into cooldown.
 *
 * In: the lost blocks, the local records. Out: one transaction of this node. Never: an address of a block that stands given out again
 * before the agent has torn its endpoint down (it cools down as after any release).
 */

import type { Logger } from '../lib/logger.ts';
import { type Address, type Cidr, cidrContains } from '../model/ip.ts';
import { addressKey, keyPrefix, ownerKey } from '../model/keys.ts';
import { addressSchema } from '../model/records.ts';
import {
  type Authority,
  addressOfKey,
  blockOfClaimKey,
  type Claims,
  endpointAddresses,
} from './authority.ts';
import type { Mirror } from './replicated-mirror.ts';
import type { Outbox } from './replicated-outbox.ts';
import type { Compare, Entry, Json, Write } from './store.ts';

export interface Loss {
  readonly endpoints: string[];
  readonly compares: readonly Compare[];
  readonly writes: readonly Write[];
}

export interface LossParts {
  readonly outbox: Outbox;
  readonly mirror: Mirror;
  readonly logger: Logger;
}

export const notReplicated =
  'changes are lost: the cluster took their blocks from this node, or gave away what is in them, while it was not heard';

/** The default of a pool, and at least the time that a teardown takes. */
const cooldownSeconds = 60;

/** @param own the claims that this node still has */
export function planLoss(
  lost: readonly Cidr[],
  entries: readonly Entry[],
  authority: Authority,
  own: Claims,
  now: Date,
): Loss {
  const byKey = new Map(entries.map((entry) => [entry.key, entry]));
  const isLost = (address: Address): boolean => lost.some((block) => cidrContains(block, address));
  const dropped = entries.filter(
    ({ key, value }) =>
      key.startsWith(`${keyPrefix.endpoint}${authority.node}/`) && endpointAddresses(value).some(isLost),
  );
  const compares: Compare[] = [];
  const writes: Write[] = [];
  for (const { key, value, modified } of dropped) {
    compares.push({ kind: 'modified', key, revision: modified });
    writes.push({ kind: 'delete', key });
    const id = key.slice(`${keyPrefix.endpoint}${authority.node}/`.length);
    for (const address of endpointAddresses(value)) {
      if (isLost(address) || own.blockOf(address) === null) continue;
      const known = byKey.get(addressKey(address));
      const record = known === undefined ? undefined : addressSchema.safeParse(known.value).data;
      if (known === undefined || record?.endpoint !== id) continue;
      const cooling: typeof record = {
        ...record,
        state: 'cooldown',
        endpoint: null,
        generation: record.generation + 1,
        cooldownUntil: new Date(now.getTime() + cooldownSeconds * 1000).toISOString(),
      };
      compares.push({ kind: 'modified', key: known.key, revision: known.modified });
      writes.push({ kind: 'put', key: known.key, value: cooling as unknown as Json });
      writes.push({ kind: 'delete', key: ownerKey(record.owner, address) });
    }
  }
  return { endpoints: dropped.map(({ key }) => key), compares, writes };
}

/** Waiting writes about blocks that are not ours in the cluster have nobody to receive them. */
export function purgeLost({ outbox, mirror, logger }: LossParts): void {
  const dropped = outbox.purge((key) => {
    const claim = blockOfClaimKey(key);
    if (claim !== null) return mirror.claims.get(claim) === undefined;
    const address = addressOfKey(key);
    return address !== null && mirror.claims.blockOf(address) === null;
  });
  if (dropped.length > 0) logger.error({ keys: dropped.slice(0, 10), total: dropped.length }, notReplicated);
}
