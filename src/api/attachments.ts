/**
 * Interfaces added to, and taken from, containers of this node that run: `/v1/attachments`.
 *
 * In: requests. Out: what an ADD answered. Never: an attachment on another node (its agent does that).
 */
import type { FastifyInstance } from 'fastify';
import { attachmentAdd, attachmentItem, attachmentQuery, detachedItem } from './attachment-schemas.ts';
import type { ApiDeps } from './deps.ts';
import { typed } from './http.ts';

export function attachmentRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const api = typed(instance);

  api.post(
    '/v1/attachments',
    { schema: { body: attachmentAdd, response: { 200: attachmentItem } } },
    async ({ body }) => {
      const { interface: name = null, netns: target, network } = body;
      const { profiles = [], addresses = [], portMappings = [] } = body;
      const made = await deps.attach({ target, network, interface: name, profiles, addresses, portMappings });
      const { containerId, mac, mtuBytes, netnsPath } = made;
      return {
        network,
        containerId,
        interface: made.interface,
        addresses: [...made.addresses],
        mac,
        mtuBytes,
        netns: netnsPath,
      };
    },
  );

  api.delete(
    '/v1/attachments',
    { schema: { querystring: attachmentQuery, response: { 200: detachedItem } } },
    ({ query }) => deps.detach(query.netns, query.interface),
  );
}
