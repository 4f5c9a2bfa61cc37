/**
 * Conflicts over HTTP: an agent, or a person, saw another machine answer for an address. It is kept back, and its owner offered another.
 *
 * In: address and foreign MAC. Out: the quarantined record, and a reservation of another address of the same pool for the same owner.
 * Never: a second alternate for a report that is repeated; a report by a node about an address that is not for it.
 */
import type { FastifyInstance } from 'fastify';
import { lookTwice } from '../ipam/second-look.ts';
import { asNetctlError } from '../lib/errors.ts';
import type { AddressRecord } from '../model/records.ts';
import { bindingOn } from './caller.ts';
import type { ApiDeps } from './deps.ts';
import { typed } from './http.ts';
import { type ConflictAnswer, conflictAnswer, conflictBody } from './ipam-schemas.ts';
import { refuseElsewhere, refuseOthersNode } from './steps.ts';

const holdSeconds = 600;
const withOwner: readonly AddressRecord['state'][] = ['reserved', 'bound', 'active', 'retained'];

export function conflictRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  typed(instance).post(
    '/v1/conflicts',
    { config: { audience: 'node' }, schema: { body: conflictBody, response: { 200: conflictAnswer } } },
    async ({ caller, body }): Promise<ConflictAnswer> => {
      const { address, mac, node = deps.node, at } = body;
      bindingOn(caller, node);
      const seenAt = new Date(at ?? deps.clock.now());
      const record = await lookTwice(deps.ipam, () => {
        refuseOthersNode(deps, caller, address);
        refuseElsewhere(deps, address, null);
        return deps.ipam.quarantine({ address, mac, node, seenAt });
      });
      return { address, ...record, ...(await alternateFor(deps, body, record)) };
    },
  );
}

/** Held for a while; the owner binds it, or lets it go. The pool may have none. */
async function alternateFor(
  { ipam, clock }: ApiDeps,
  { address, node }: { address: string; node?: string | undefined },
  record: AddressRecord,
): Promise<Pick<ConflictAnswer, 'alternate' | 'alternateReason'>> {
  const { owner, pool, onRelease, ttlSeconds, generation, conflict } = record;
  if (conflict === null || record.allocatedAt === conflict.seenAt)
    return { alternate: null, alternateReason: 'nobody had the address' };
  const id = `alternate-${address.replaceAll(/[.:]/g, '-')}-${generation}`;
  const known = ipam.book.reservation(id)?.value;
  if (known !== undefined && Date.parse(known.expiresAt) > clock.now()) {
    const [held] = known.addresses;
    const standing = held === undefined ? undefined : ipam.book.address(held)?.value;
    if (held !== undefined && standing !== undefined && withOwner.includes(standing.state)) {
      const { mac, generation } = standing;
      return { alternate: { reservation: id, address: held, mac, generation }, alternateReason: null };
    }
  }
  try {
    const { addresses } = await ipam.reserve({
      ...{ id, tenant: owner.tenant, app: owner.app, instances: [owner.instance] },
      ...{
        ipv4: address.includes(':') ? 0 : 1,
        ipv6: address.includes(':') ? 1 : 0,
        addresses: [],
        macs: [],
      },
      ...{ kind: ipam.book.pool(pool)?.kind ?? 'routed', pools: [pool], ranges: [], skip: [] },
      ...{ node: record.node ?? node ?? null, onRelease, retainSeconds: ttlSeconds },
      ...{ ttlSeconds: holdSeconds, mode: 'all' },
    });
    const [first] = addresses;
    if (first === undefined) return { alternate: null, alternateReason: 'none was given' };
    const { address: other, mac, generation } = first;
    return { alternate: { reservation: id, address: other, mac, generation }, alternateReason: null };
  } catch (error) {
    return { alternate: null, alternateReason: asNetctlError(error).message };
  }
}
