/**
 * Reservations over HTTP: a scheduler holds addresses, prolongs, commits or cancels, before it starts containers.
 *
 * In: requests. Out: what the verb committed; lists come from the picture of this node. Never: a reservation made twice for one id.
 */
import { randomUUID } from 'node:crypto';
import type { FastifyInstance } from 'fastify';
import { NetctlError } from '../lib/errors.ts';
import { sees, showingTo } from './caller.ts';
import type { ApiDeps } from './deps.ts';
import { byName, ifMatch, setRevision, typed } from './http.ts';
import {
  cancelBody,
  cancelled,
  commitBody,
  extendBody,
  reservationItem,
  reservationList,
  reservationParams,
  reservationShown,
  reserveBody,
  reservedItem,
  tenantQuery,
} from './ipam-schemas.ts';
import { performed, steps } from './steps.ts';

export function reservationRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);
  const { ipam } = deps;
  const config = { audience: 'tenant' } as const;

  api.post(
    '/v1/reservations',
    { config, schema: { body: reserveBody, response: { 201: reservedItem, 202: reservedItem } } },
    async (request, reply) => {
      const { id = randomUUID(), ...wanted } = request.body;
      const reserved = await performed(deps, () => steps.reserve(deps, request.caller, { ...wanted, id }));
      reply.code(reserved.addresses.length < reserved.requested ? 202 : 201);
      return reserved;
    },
  );

  api.get(
    '/v1/reservations',
    { config, schema: { querystring: tenantQuery, response: { 200: reservationList } } },
    async (request) => {
      const tenant = showingTo(request.caller, request.query.tenant);
      const items = [...ipam.book.reservations()]
        .filter(([, { value }]) => tenant === null || value.tenant === tenant)
        .map(([id, { value, modified }]) => ({ id, ...value, revision: modified }))
        .sort((a, b) => byName(a.id, b.id));
      return { revision: ipam.book.revision, items };
    },
  );

  api.get(
    '/v1/reservations/:reservation',
    { config, schema: { params: reservationParams, response: { 200: reservationShown } } },
    async (request, reply) => {
      const { reservation: id } = request.params;
      const known = ipam.book.reservation(id);
      if (known === undefined || !sees(request.caller, known.value.tenant))
        throw new NetctlError(
          'NOT_FOUND',
          `there is no reservation ${id} (any more): see \`netctl ipam show --reservations\``,
          { reservation: id },
        );
      setRevision(reply, known.modified);
      return { id, ...known.value, revision: known.modified };
    },
  );

  const params = reservationParams;
  api.post(
    '/v1/reservations/:reservation/extend',
    { config, schema: { params, body: extendBody, response: { 200: reservationItem } } },
    async (request) => {
      const call = { ...request.body, ...request.params };
      return performed(deps, () => steps.extend(deps, request.caller, call, ifMatch(request)));
    },
  );

  api.post(
    '/v1/reservations/:reservation/commit',
    { config, schema: { params, body: commitBody, response: { 200: reservationItem } } },
    async (request) => {
      const call = { ...request.body, ...request.params };
      return performed(deps, () => steps.commit(deps, request.caller, call, ifMatch(request)));
    },
  );

  api.post(
    '/v1/reservations/:reservation/cancel',
    { config, schema: { params, body: cancelBody, response: { 200: cancelled } } },
    async (request) => {
      const call = { ...request.body, ...request.params };
      return performed(deps, () => steps.cancel(deps, request.caller, call, ifMatch(request)));
    },
  );
}
