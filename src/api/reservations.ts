/**
 * Reservations over HTTP: a scheduler holds addresses, prolongs, commits or cancels, before it starts containers.
 *
 * In: requests. Out: what the verb committed; lists come from the picture of this node. Never: a reservation made twice for one id.
 */
import { randomUUID } from 'node:crypto';
import type { FastifyInstance } from 'fastify';
import { NetctlError } from '../lib/errors.ts';
import type { ApiDeps } from './deps.ts';
import { byName, typed } from './http.ts';
import {
  cancelBody,
  cancelled,
  commitBody,
  extendBody,
  reservationItem,
  reservationList,
  reservationParams,
  reserveBody,
  reservedItem,
  tenantQuery,
} from './ipam-schemas.ts';

export function reservationRoutes(instance: FastifyInstance, { ipam }: ApiDeps): void {
  const api = typed(instance);

  api.post(
    '/v1/reservations',
    { schema: { body: reserveBody, response: { 201: reservedItem, 202: reservedItem } } },
    async (request, reply) => {
      const { id = randomUUID(), ...wanted } = request.body;
      const { addresses, ...reserved } = await ipam.reserve({ ...wanted, id, kind: 'routed' });
      reply.code(addresses.length < reserved.requested ? 202 : 201);
      return { ...reserved, addresses: [...addresses] };
    },
  );

  api.get(
    '/v1/reservations',
    { schema: { querystring: tenantQuery, response: { 200: reservationList } } },
    async (request) => {
      const { tenant } = request.query;
      const items = [...ipam.book.reservations()]
        .filter(([, { value }]) => tenant === undefined || value.tenant === tenant)
        .map(([id, { value }]) => ({ id, ...value }))
        .sort((a, b) => byName(a.id, b.id));
      return { revision: ipam.book.revision, items };
    },
  );

  api.get(
    '/v1/reservations/:reservation',
    { schema: { params: reservationParams, response: { 200: reservationItem } } },
    async (request) => {
      const { reservation: id } = request.params;
      const known = ipam.book.reservation(id);
      if (known === undefined)
        throw new NetctlError(
          'NOT_FOUND',
          `there is no reservation ${id} (any more): see \`netctl ipam show --reservations\``,
          { reservation: id },
        );
      return { id, ...known.value };
    },
  );

  api.post(
    '/v1/reservations/:reservation/extend',
    { schema: { params: reservationParams, body: extendBody, response: { 200: reservationItem } } },
    async (request) => {
      const { reservation: id } = request.params;
      const { ttlSeconds, tenant = null } = request.body;
      return { id, ...(await ipam.extend({ id, tenant, ttlSeconds })) };
    },
  );

  api.post(
    '/v1/reservations/:reservation/commit',
    { schema: { params: reservationParams, body: commitBody, response: { 200: reservationItem } } },
    async (request) => {
      const { reservation: id } = request.params;
      const { node, ttlSeconds, tenant = null } = request.body;
      const lasting = ttlSeconds === undefined ? {} : { ttlSeconds };
      return { id, ...(await ipam.commitTo({ id, tenant, node, ...lasting })) };
    },
  );

  api.post(
    '/v1/reservations/:reservation/cancel',
    { schema: { params: reservationParams, body: cancelBody, response: { 200: cancelled } } },
    async (request) => {
      const { reservation: id } = request.params;
      return { freed: [...(await ipam.cancel({ id, tenant: request.body.tenant ?? null }))] };
    },
  );
}
