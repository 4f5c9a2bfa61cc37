/**
 * Ports of nodes over HTTP: a scheduler reserves some for a container of the host's network, prolongs, releases; who has which.
 *
 * In: requests. Out: what was committed; lists come from the picture of this node. Never: a reservation changed at a generation that nobody
 * looked at, unless an operator forces it.
 */
import { randomUUID } from 'node:crypto';
import type { FastifyInstance } from 'fastify';
import { lookTwice } from '../ipam/second-look.ts';
import { invalid, NetctlError } from '../lib/errors.ts';
import { parsePortName } from '../model/port-mapping.ts';
import { actingFor, operatorOnly, sees, showingTo, takingFor } from './caller.ts';
import type { ApiDeps } from './deps.ts';
import { byName, setRevision, typed } from './http.ts';
import {
  type PortItem,
  portExtendBody,
  portList,
  portQuery,
  portReleaseBody,
  portReservationItem,
  portReservationList,
  portReservationParams,
  portReservationQuery,
  portReservationShown,
  portReserveBody,
  portsReleased,
} from './port-schemas.ts';

export function portReservationRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);
  const { ipam } = deps;
  const config = { audience: 'tenant' } as const;

  api.post(
    '/v1/port-reservations',
    { config, schema: { body: portReserveBody, response: { 201: portReservationItem } } },
    async ({ body, caller }, reply) => {
      const { id = randomUUID(), node, app, instance: name, ttlSeconds } = body;
      const tenant = takingFor(caller, body.tenant);
      const ports = body.ports.map(({ to, ...wish }) => ({ ...wish, to: to ?? wish.from }));
      const owner = { tenant, app, instance: name };
      const reserved = await lookTwice(deps.ipam, () =>
        ipam.reservePorts({ id, node, owner, ports, ttlSeconds }),
      );
      reply.code(201);
      return { node, id, ...reserved };
    },
  );

  api.get(
    '/v1/port-reservations',
    { config, schema: { querystring: portReservationQuery, response: { 200: portReservationList } } },
    async ({ query, caller }) => {
      const tenant = showingTo(caller, query.tenant);
      const items = [...ipam.book.ports.reservations()]
        .filter(
          ({ node, known }) =>
            (query.node ?? node) === node && (tenant ?? known.value.tenant) === known.value.tenant,
        )
        .map(({ node, id, known }) => ({ node, id, ...known.value, revision: known.modified }))
        .sort((a, b) => byName(a.node, b.node) || byName(a.id, b.id));
      return { revision: ipam.book.revision, items };
    },
  );

  const params = portReservationParams;
  api.get(
    '/v1/port-reservations/:node/:reservation',
    { config, schema: { params, response: { 200: portReservationShown } } },
    async (request, reply) => {
      const { node, reservation: id } = request.params;
      const known = ipam.book.ports.reservation(node, id);
      if (known === undefined || !sees(request.caller, known.value.tenant))
        throw new NetctlError('NOT_FOUND', `node ${node} has no reservation of ports ${id} (any more)`, {
          reservation: id,
        });
      setRevision(reply, known.modified);
      return { node, id, ...known.value, revision: known.modified };
    },
  );

  api.post(
    '/v1/port-reservations/:node/:reservation/extend',
    { config, schema: { params, body: portExtendBody, response: { 200: portReservationItem } } },
    async (request) => {
      const { node, reservation: id } = request.params;
      const { generation, ttlSeconds } = request.body;
      const tenant = actingFor(request.caller, request.body.tenant);
      const extended = await lookTwice(deps.ipam, () =>
        ipam.extendPorts({ node, id, tenant, generation, ttlSeconds }),
      );
      return { node, id, ...extended };
    },
  );

  api.post(
    '/v1/port-reservations/:node/:reservation/release',
    { config, schema: { params, body: portReleaseBody, response: { 200: portsReleased } } },
    async (request) => {
      const { node, reservation: id } = request.params;
      const { generation = null, force = false } = request.body;
      const tenant = actingFor(request.caller, request.body.tenant);
      if (force) operatorOnly(request.caller);
      if (force && tenant !== null) throw invalid('force', force, 'no force together with a tenant');
      if (generation === null && !force)
        throw invalid(
          'generation',
          undefined,
          'the generation that is meant (GET /v1/port-reservations has it)',
        );
      const call = { node, id, tenant, generation: force ? null : generation };
      const freed = await lookTwice(
        deps.ipam,
        () => ipam.releasePorts(call),
        (released) => released === null,
      );
      return { freed: [...(freed ?? [])] };
    },
  );

  api.get(
    '/v1/ports',
    { schema: { querystring: portQuery, response: { 200: portList } } },
    async ({ query }) => {
      const nodes = query.node === undefined ? [...ipam.book.nodes().keys()].sort() : [query.node];
      return { revision: ipam.book.revision, items: nodes.flatMap((node) => portsOf(deps, node)) };
    },
  );
}

/** Those that somebody has, by protocol and number. */
function portsOf({ ipam: { book } }: ApiDeps, node: string): PortItem[] {
  const items = [...book.ports.ports(node)].flatMap(([name, { value }]) =>
    value.holders.flatMap(({ kind, id, hostIP }): PortItem[] => {
      const text = book.ports.holderText(node, { kind, id });
      return text === null ? [] : [{ node, ...parsePortName(name), hostIP, holder: { kind, id }, text }];
    }),
  );
  return items.sort((a, b) => byName(a.protocol, b.protocol) || a.port - b.port);
}
