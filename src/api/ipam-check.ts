/**
 * The check of address management over HTTP: what contradicts what, what would put it right, and doing that.
 *
 * In: the whole store as of one revision. Out: findings with their remedies; with `fix`, what became of each and what a second look
 * finds. Never: a repair of an address that another node decides about alone, or of records that changed since they were seen.
 */
import type { FastifyInstance } from 'fastify';
import { blockOf } from '../ipam/blocks.ts';
import { check, type Finding } from '../ipam/check.ts';
import type { Step } from '../ipam/draft.ts';
import { planRepair } from '../ipam/repair.ts';
import { type IpamSnapshot, readSnapshot } from '../ipam/snapshot.ts';
import { cidrContains } from '../model/ip.ts';
import type { Store } from '../store/store.ts';
import type { ApiDeps } from './deps.ts';
import { typed } from './http.ts';
import { type CheckAnswer, checkAnswer, checkBody, type FindingItem, findingList } from './ipam-schemas.ts';

interface Remedy {
  readonly item: FindingItem;
  /** null: not for this agent to carry out. */
  readonly step: Step | null;
}

export function ipamCheckRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);

  api.get('/v1/ipam/check', { schema: { response: { 200: findingList } } }, async () => {
    const { revision, remedies } = await look(deps);
    return { revision, items: remedies.map(({ item }) => item) };
  });

  api.post(
    '/v1/ipam/check',
    { schema: { body: checkBody, response: { 200: checkAnswer } } },
    async (request): Promise<CheckAnswer> => {
      const first = await look(deps);
      const items: CheckAnswer['items'] = [];
      for (const { item, step } of first.remedies) {
        const outcome = request.body.fix && step !== null ? await carryOut(deps.store, step) : 'left';
        items.push({ ...item, outcome });
      }
      const { revision, remedies } = request.body.fix ? await look(deps) : first;
      return { revision, items, remaining: remedies.map(({ item }) => item) };
    },
  );
}

async function look({
  store,
  ipam,
  node,
  clock,
}: ApiDeps): Promise<{ revision: number; remedies: Remedy[] }> {
  const { entries, revision } = await store.list('');
  const snapshot = readSnapshot(entries, revision);
  const now = new Date(clock.now());
  const remedies = planRepair(snapshot, check(snapshot, ipam.steadyNow()), now).map(
    ({ finding, action, step }): Remedy => {
      const decider = deciderOf(snapshot, finding);
      if (step === null || decider === null || decider === node)
        return { item: { ...finding, action, fixable: step !== null }, step };
      const there = `${action}: on node ${decider}, which decides about its block alone`;
      return { item: { ...finding, action: there, fixable: false }, step: null };
    },
  );
  return { revision, remedies };
}

/** The node whose exclusive block the address lies in; null when the whole store decides about it. */
function deciderOf({ pools, blocks }: IpamSnapshot, { address }: Finding): string | null {
  if (address === null) return null;
  const pool = [...pools.values()].find(({ cidr }) => cidrContains(cidr, address));
  if (pool?.kind !== 'routed') return null;
  const block = blocks.get(blockOf(pool, address))?.value;
  return block === undefined || block.shared ? null : block.node;
}

/** Once: a plan whose records have changed is no plan any more. */
async function carryOut(store: Store, { compares, writes }: Step): Promise<'fixed' | 'changed'> {
  const result = await store.transact(compares, writes);
  return result.committed ? 'fixed' : 'changed';
}
