/**
 * The HTTP API as a fastify instance that does not listen yet: the agent lets it listen on its socket, tests inject requests.
 *
 * In: store, status and the promise that a revision is in this host's kernel. Out: `/v1/…`, described at `/v1/openapi.json`.
 * Never: a record read by a request and written without a compare, an answer in a form that no schema describes.
 */
import swagger from '@fastify/swagger';
import fastify, { type FastifyInstance, type FastifyReply, type FastifySchemaCompiler } from 'fastify';
import { jsonSchemaTransform, serializerCompiler } from 'fastify-type-provider-zod';
import type { z } from 'zod';
import { NetctlError } from '../lib/errors.ts';
import { checkJson } from '../model/check.ts';
import { allocationRoutes } from './allocations.ts';
import { attachmentRoutes } from './attachments.ts';
import { batchRoutes } from './batch.ts';
import { bgpRoutes } from './bgp.ts';
import { keepBudgets } from './budget.ts';
import { admit, type Caller } from './caller.ts';
import { capacityRoutes } from './capacity.ts';
import { conflictRoutes } from './conflicts.ts';
import { counterRoutes } from './counters.ts';
import type { ApiDeps } from './deps.ts';
import { documentRoutes } from './documents.ts';
import { endpointRoutes } from './endpoints.ts';
import { enforcementRoutes } from './enforcement.ts';
import { errorAnswer } from './errors.ts';
import { explainRoutes } from './explain.ts';
import { gcRoutes } from './gc.ts';
import { keepAnswers } from './idempotency.ts';
import { importRoutes } from './import.ts';
import { ipamRoutes } from './ipam.ts';
import { ipamCheckRoutes } from './ipam-check.ts';
import { ipamCollectRoutes } from './ipam-collect.ts';
import { Metrics } from './metrics.ts';
import { nodeVerbRoutes } from './node-verbs.ts';
import { nodeRoutes } from './nodes.ts';
import { poolRoutes } from './pools.ts';
import { portReservationRoutes } from './port-reservations.ts';
import { profileRoutes } from './profiles.ts';
import { reservationRoutes } from './reservations.ts';
import { errorBody } from './schemas.ts';
import { systemRoutes } from './system.ts';
import { tenantRoutes } from './tenants.ts';
import { watchRoutes } from './watch.ts';

/** Requests larger than this are refused: the largest profile that fits the store is far smaller. */
const MAX_BODY_BYTES = 1 << 20;

/** After a colon at the end of a path; none of them is the end of an IPv6 address. */
const verbs =
  /:(extend|commit|cancel|bind|activate|unbind|transfer|release|batch|fence|drain|readmit|forget|plan|apply)(?=$|\?)/;

/** @param metrics measures the requests, and is served too */
export function buildApi(deps: ApiDeps, metrics = new Metrics(deps)): FastifyInstance {
  const api = fastify({
    bodyLimit: MAX_BODY_BYTES,
    routerOptions: { maxParamLength: 1024 },
    // `…/deploy-41:extend` is `…/deploy-41/extend`: both spellings of a verb are in use elsewhere.
    rewriteUrl: ({ url = '/' }) => url.replace(verbs, '/$1'),
    // What is no URL does not get as far as the error handler.
    frameworkErrors: (error, _request, reply: FastifyReply) =>
      void reply.code(400).send(errorAnswer(error).body),
  });
  api.removeContentTypeParser('text/plain');
  api.setValidatorCompiler(validator);
  api.setSerializerCompiler(serializerCompiler);
  api.setErrorHandler((thrown, _request, reply) => {
    const { status, body, error } = errorAnswer(thrown);
    if (status === 500) deps.onBug?.(error);
    return reply.code(status).send(body);
  });
  api.setNotFoundHandler((request) => {
    throw new NetctlError('NOT_FOUND', `there is no ${request.method} ${request.url}: see /v1/openapi.json`);
  });
  api.register(swagger, {
    openapi: { openapi: '3.1.0', info: { title: 'netctl', version: deps.version } },
    transform: jsonSchemaTransform,
  });
  api.decorateRequest('caller', null as unknown as Caller);
  api.addHook('onRequest', async (request) => {
    request.caller = deps.callerOf(request.raw.socket);
    admit(request);
  });
  api.register(async (v1) => {
    keepBudgets(v1, deps);
    v1.addHook('onRoute', ({ schema }) => {
      if (schema?.response) Object.assign(schema.response, { '4xx': errorBody, '5xx': errorBody });
    });
    keepAnswers(v1, deps);
    metrics.attach(v1);
    const areas = [
      systemRoutes,
      nodeRoutes,
      poolRoutes,
      profileRoutes,
      documentRoutes,
      endpointRoutes,
      counterRoutes,
      enforcementRoutes,
      attachmentRoutes,
      explainRoutes,
      bgpRoutes,
    ];
    for (const routes of [
      ...areas,
      ipamRoutes,
      capacityRoutes,
      ipamCheckRoutes,
      ipamCollectRoutes,
      watchRoutes,
      importRoutes,
      tenantRoutes,
      reservationRoutes,
      portReservationRoutes,
      allocationRoutes,
      batchRoutes,
      conflictRoutes,
      nodeVerbRoutes,
      gcRoutes,
    ])
      routes(v1, deps);
  });
  return api;
}

/** One form of error wherever a value comes from: that of the model. */
const validator: FastifySchemaCompiler<z.ZodType> =
  ({ schema, httpPart }) =>
  (data) => {
    try {
      return { value: checkJson(schema, data, httpPart === 'body' && !isObject(data) ? 'body' : '') };
    } catch (error) {
      return { error: error as Error };
    }
  };

function isObject(data: unknown): boolean {
  return typeof data === 'object' && data !== null;
}
