/**
 * Allocated addresses over HTTP: who has which, and every step of an address's life from bind to release.
 *
 * In: requests that name address and generation. Out: what the verb committed; lists come from the picture of this node. Never: a
 * change by force that nobody is told of, a list sorted or copied beyond the page that is asked for.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { textOf } from '../ipam/address-book.ts';
import { invalid, NetctlError } from '../lib/errors.ts';
import type { Address } from '../model/ip.ts';
import type { AddressRecord } from '../model/records.ts';
import type { ApiDeps, ForcedChange } from './deps.ts';
import { typed } from './http.ts';
import {
  type AllocationPage,
  type AllocationQuery,
  activateBody,
  activated,
  allocationPage,
  allocationQuery,
  bindBody,
  bound,
  quarantineBody,
  quarantined,
  releaseBody,
  released,
  releasedOwner,
  releaseOwnerBody,
  transferBody,
  transferred,
  unbindBody,
  unbound,
} from './ipam-schemas.ts';
import { addressParams } from './schemas.ts';

export function allocationRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);
  const { ipam, clock } = deps;
  const params = addressParams;

  api.get(
    '/v1/allocations',
    { schema: { querystring: allocationQuery, response: { 200: allocationPage } } },
    async (request) => pageOf(deps, request.query),
  );

  api.post(
    '/v1/allocations/:address/bind',
    { schema: { params, body: bindBody, response: { 200: bound } } },
    async (request) => {
      const { address } = request.params;
      refuseElsewhere(deps, address);
      const { tenant = null, node = deps.node, ...fence } = request.body;
      return { address, ...(await ipam.bind({ address, tenant, node, endpoint: null, ...fence })) };
    },
  );

  api.post(
    '/v1/allocations/:address/activate',
    { schema: { params, body: activateBody, response: { 200: activated } } },
    async (request) => {
      const { address } = request.params;
      refuseElsewhere(deps, address);
      const { tenant = null, generation, mac } = request.body;
      return { address, ...(await ipam.activate({ address, tenant, generation, mac })) };
    },
  );

  api.post(
    '/v1/allocations/:address/unbind',
    { schema: { params, body: unbindBody, response: { 200: unbound } } },
    async (request) => {
      const { address } = request.params;
      refuseElsewhere(deps, address);
      const { tenant = null, container, generation } = request.body;
      return { address, outcome: await ipam.unbind({ address, tenant, container, generation }) };
    },
  );

  api.post(
    '/v1/allocations/:address/transfer',
    { schema: { params, body: transferBody, response: { 200: transferred } } },
    async (request) => {
      const { address } = request.params;
      const { tenant = null, force = false, holdSeconds, ...move } = request.body;
      refuseForceOfTenant(force, tenant);
      const report = force ? reporter(deps, request) : null;
      const held = holdSeconds === undefined ? {} : { holdSeconds };
      const { generation, was } = await ipam.transfer({ address, tenant, force, ...held, ...move });
      report?.('transfer', address, was);
      return { address, generation, was };
    },
  );

  api.post(
    '/v1/allocations/:address/release',
    { schema: { params, body: releaseBody, response: { 200: released } } },
    async (request) => {
      const { address } = request.params;
      refuseElsewhere(deps, address);
      const { tenant = null, force = false, generation } = request.body;
      refuseForceOfTenant(force, tenant);
      if (generation === undefined && !force)
        throw invalid('generation', generation, 'the generation that is meant (GET /v1/allocations has it)');
      const report = force ? reporter(deps, request) : null;
      // No address is ever at generation 0: without one, only force lets it pass.
      const { outcome, forced, was } = await ipam.release({
        address,
        tenant,
        force,
        generation: generation ?? 0,
      });
      if (forced) report?.('release', address, was);
      return { address, outcome, forced };
    },
  );

  api.post(
    '/v1/allocations/release',
    { schema: { body: releaseOwnerBody, response: { 200: releasedOwner } } },
    async (request) => {
      const { owner, force = false } = request.body;
      const report = force ? reporter(deps, request) : null;
      const { freed, later, kept } = await ipam.releaseOwner({ owner, force });
      report?.('release-owner', textOf(owner), null);
      return { freed: [...freed], later: [...later], kept: [...kept] };
    },
  );

  api.post(
    '/v1/allocations/:address/quarantine',
    { schema: { params, body: quarantineBody, response: { 200: quarantined } } },
    async (request) => {
      const { address } = request.params;
      refuseElsewhere(deps, address);
      const { mac, node = deps.node } = request.body;
      const seenAt = new Date(clock.now());
      return { address, ...(await ipam.quarantine({ address, mac, node, seenAt })) };
    },
  );
}

/** The first `limit` matching addresses after the cursor; one walk, and no more memory than a page. */
function pageOf({ ipam: { book } }: ApiDeps, query: AllocationQuery): AllocationPage {
  const { ip, limit, cursor = '' } = query;
  const page: Address[] = [];
  const candidates = ip === undefined ? book.addresses().keys() : [ip];
  for (const address of candidates) {
    if (address <= cursor || (page.length > limit && address > page[limit]!)) continue;
    const known = book.address(address);
    if (known === undefined || !matches(known.value, query)) continue;
    page.splice(positionIn(page, address), 0, address);
    if (page.length > limit + 1) page.pop();
  }
  const items = page.slice(0, limit).map((address) => {
    const { value, modified } = book.address(address)!;
    return { address, ...value, revision: modified };
  });
  return { revision: book.revision, items, next: page.length > limit ? page[limit - 1]! : null };
}

/** A cooling address is nobody's, whoever had it last. */
function matches({ owner, node, state, pool }: AddressRecord, query: AllocationQuery): boolean {
  const asksForOwner = query.tenant !== undefined || query.app !== undefined || query.instance !== undefined;
  return (
    (query.pool ?? pool) === pool &&
    (query.state ?? state) === state &&
    (query.node ?? node) === node &&
    (query.tenant ?? owner.tenant) === owner.tenant &&
    (query.app ?? owner.app) === owner.app &&
    (query.instance ?? owner.instance) === owner.instance &&
    !(asksForOwner && state === 'cooldown')
  );
}

/** Where the address belongs in a sorted list. */
function positionIn(sorted: readonly Address[], address: Address): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle]! < address) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * The node of an exclusive block writes its addresses without asking anybody, so nobody else may; a transfer by force ends that first.
 * @throws AFFINITY_MISMATCH naming the node
 */
function refuseElsewhere({ ipam: { book }, node }: ApiDeps, address: Address): void {
  const view = book.viewOf(address);
  const block = view?.pool.kind === 'routed' ? book.blockAt(view.pool, address)?.value : undefined;
  if (block === undefined || block.shared || block.node === node) return;
  throw new NetctlError(
    'AFFINITY_MISMATCH',
    `address ${address} is in a block about which node ${block.node} decides alone: ask its agent, or, if the node is down, transfer the address by force first`,
    { address, node: block.node },
  );
}

function refuseForceOfTenant(force: boolean, tenant: string | null): void {
  if (force && tenant !== null) throw invalid('force', force, 'no force together with a tenant');
}

/** Tells of a change by force. Who asks for it is found out now: afterwards the caller may be gone. */
function reporter(deps: ApiDeps, request: FastifyRequest) {
  const actor = deps.actorOf?.(request.raw.socket) ?? 'unknown';
  return (action: ForcedChange['action'], what: string, record: AddressRecord | null): void => {
    const was =
      record === null
        ? null
        : { owner: textOf(record.owner), node: record.node, container: record.container };
    deps.onForced?.({ actor, action, what, was });
  };
}
