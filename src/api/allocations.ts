/**
 * Allocated addresses over HTTP: who has which, and every step of an address's life from bind to release.
 *
 * In: requests that name address and generation. Out: what the verb committed; lists come from the picture of this node. Never: a
 * change by force that nobody is told of, a list sorted or copied beyond the page that is asked for.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { textOf } from '../ipam/address-book.ts';
import { isReleasable } from '../ipam/release.ts';
import { lookTwice } from '../ipam/second-look.ts';
import type { Address } from '../model/ip.ts';
import type { AddressRecord } from '../model/records.ts';
import { actingFor, operatorOnly, showingTo } from './caller.ts';
import type { ApiDeps, ForcedChange } from './deps.ts';
import { ifMatch, typed } from './http.ts';
import {
  type AllocationPage,
  type AllocationQuery,
  activateBody,
  activated,
  allocationPage,
  allocationQuery,
  bindBody,
  bound,
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
import { performed, steps } from './steps.ts';

export function allocationRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);
  const params = addressParams;

  const ofTenant = { audience: 'tenant' } as const;
  const ofNode = { audience: 'node' } as const;

  api.get(
    '/v1/allocations',
    { config: ofTenant, schema: { querystring: allocationQuery, response: { 200: allocationPage } } },
    async ({ caller, query }) => {
      const tenant = showingTo(caller, query.tenant);
      return pageOf(deps, tenant === null ? query : { ...query, tenant }, caller.operator ? null : tenant);
    },
  );

  api.post(
    '/v1/allocations/:address/bind',
    { config: ofNode, schema: { params, body: bindBody, response: { 200: bound } } },
    async (request) => {
      const call = { ...request.body, ...request.params };
      return performed(deps, () => steps.bind(deps, request.caller, call, ifMatch(request)));
    },
  );

  api.post(
    '/v1/allocations/:address/activate',
    { config: ofNode, schema: { params, body: activateBody, response: { 200: activated } } },
    async (request) => {
      const call = { ...request.body, ...request.params };
      return performed(deps, () => steps.activate(deps, request.caller, call, ifMatch(request)));
    },
  );

  api.post(
    '/v1/allocations/:address/unbind',
    { config: ofNode, schema: { params, body: unbindBody, response: { 200: unbound } } },
    async (request) => {
      const call = { ...request.body, ...request.params };
      return performed(deps, () => steps.unbind(deps, request.caller, call, ifMatch(request)));
    },
  );

  api.post(
    '/v1/allocations/:address/transfer',
    { config: ofTenant, schema: { params, body: transferBody, response: { 200: transferred } } },
    async (request) => {
      const { address } = request.params;
      const call = { ...request.body, address };
      const answer = await performed(deps, () =>
        steps.transfer(deps, request.caller, call, ifMatch(request)),
      );
      if (call.force === true) report(deps, request, 'transfer', address, answer.was);
      return answer;
    },
  );

  api.post(
    '/v1/allocations/:address/release',
    { config: ofTenant, schema: { params, body: releaseBody, response: { 200: released } } },
    async (request) => {
      const { address } = request.params;
      const call = { ...request.body, address };
      return lookTwice(deps.ipam, async () => {
        const { operation, answer } = steps.release(deps, request.caller, call, ifMatch(request));
        const result = await deps.ipam.perform(operation);
        if (result.forced) report(deps, request, 'release', address, result.was);
        return answer(result);
      });
    },
  );

  api.post(
    '/v1/allocations/release',
    { config: ofTenant, schema: { body: releaseOwnerBody, response: { 200: releasedOwner } } },
    async (request) => {
      const { owner, force = false } = request.body;
      actingFor(request.caller, owner.tenant);
      if (force) operatorOnly(request.caller);
      const { freed, later, kept } = await lookTwice(
        deps.ipam,
        () => deps.ipam.releaseOwner({ owner, force }),
        (released) => released.freed.length + released.later.length === 0,
      );
      if (force) report(deps, request, 'release-owner', textOf(owner), null);
      return { freed: [...freed], later: [...later], kept: [...kept] };
    },
  );
}

/** The first `limit` matching addresses after the cursor; one walk, and no more memory than a page. */
function pageOf({ ipam: { book } }: ApiDeps, query: AllocationQuery, tenant: string | null): AllocationPage {
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
    return { address, ...value, revision: modified, releasable: isReleasable(address, value, tenant) };
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

function report(
  { onForced }: ApiDeps,
  { caller }: FastifyRequest,
  action: ForcedChange['action'],
  what: string,
  record: AddressRecord | null,
): void {
  const was =
    record === null ? null : { owner: textOf(record.owner), node: record.node, container: record.container };
  onForced?.({ actor: caller.name, action, what, was });
}
