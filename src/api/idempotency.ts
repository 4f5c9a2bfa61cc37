/**
 * Idempotency-Key: a request that is repeated with the same key is carried out once, and answered with the first answer.
 *
 * In: requests that change something, with the header. Out: a record `idempotency/KEY` that is claimed before the request is carried out and gets its
 * answer afterwards, good for a day. Never: two at once under one key; an answer kept whose outcome is unknown (5xx).
 */
import { createHash } from 'node:crypto';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { invalid, NetctlError } from '../lib/errors.ts';
import type { Compare, Json, Revision, Store } from '../store/store.ts';
import type { Caller } from './caller.ts';
import type { ApiDeps } from './deps.ts';
import { parserOf, readOne } from './store-access.ts';

const prefix = 'idempotency/';
const keptMilliseconds = 86_400_000;
/** A claim without an answer is that of an agent that ended meanwhile: no request takes as long. */
const claimMilliseconds = 60_000;
const sweepMilliseconds = 3_600_000;
const deletesPerTransaction = 50;

const recordSchema = z.strictObject({
  /** Of method, path and body. */
  hash: z.string(),
  at: z.iso.datetime(),
  /** null while the request is being carried out. */
  answer: z
    .strictObject({ status: z.int(), body: z.json(), etag: z.string().nullable().default(null) })
    .nullable(),
});
type Kept = z.infer<typeof recordSchema>;
const parseRecord = parserOf(recordSchema);

/** Of requests that change something. */
const changing: ReadonlySet<unknown> = new Set(['POST', 'PUT', 'PATCH', 'DELETE']);

/** For OpenAPI; what the key may be is checked here. */
const idempotencyHeaders = z.looseObject({
  'idempotency-key': z
    .string()
    .optional()
    .meta({ description: 'A repetition with the same key within 24 h gets the first answer' }),
});

interface Claim {
  readonly key: string;
  readonly hash: string;
  readonly revision: Revision;
}

/** For all routes of the instance that change something. */
export function keepAnswers(instance: FastifyInstance, { store, clock }: ApiDeps): void {
  const claims = new WeakMap<FastifyRequest, Claim>();
  let nextSweep = 0;

  instance.addHook('onRoute', (route) => {
    if (changing.has(route.method) && route.schema !== undefined) route.schema.headers = idempotencyHeaders;
  });

  instance.addHook('preHandler', async (request, reply) => {
    const name = request.headers['idempotency-key'];
    if (!changing.has(request.method) || name === undefined) return;
    const claim = await claimOrAnswer(store, keyOf(name, request.caller), hashOf(request), clock.now());
    if ('key' in claim) return void claims.set(request, claim);
    if (claim.etag !== null) reply.header('etag', claim.etag);
    return reply.header('idempotency-replayed', 'true').code(claim.status).send(claim.body);
  });

  instance.addHook('onSend', async (request, reply, payload) => {
    const claim = claims.get(request);
    if (claim === undefined) return payload;
    claims.delete(request);
    const now = clock.now();
    const isKnown = reply.statusCode < 500;
    const etag = reply.getHeader('etag');
    const answer = isKnown
      ? {
          status: reply.statusCode,
          body: JSON.parse(String(payload)),
          etag: etag === undefined ? null : String(etag),
        }
      : null;
    await settle(store, claim, answer, now);
    if (now >= nextSweep) {
      nextSweep = now + sweepMilliseconds;
      await sweep(store, now);
    }
    return payload;
  });
}

/** The claim of a request that is to be carried out, or the answer that it had before. */
async function claimOrAnswer(
  store: Store,
  key: string,
  hash: string,
  now: number,
): Promise<Claim | { status: number; body: Json; etag: string | null }> {
  const before = await readOne(store, key, parseRecord);
  if (before !== null && !isOver(before.value, now)) {
    const { answer } = before.value;
    if (before.value.hash !== hash) throw mismatch(key.slice(prefix.length));
    if (answer !== null) return { ...answer, body: answer.body as Json };
    throw underWay(key);
  }
  const compare: Compare =
    before === null ? { kind: 'absent', key } : { kind: 'modified', key, revision: before.revision };
  const value: Kept = { hash, at: new Date(now).toISOString(), answer: null };
  const result = await store.transact([compare], [{ kind: 'put', key, value: value as Json }]);
  if (!result.committed) throw underWay(key);
  return { key, hash, revision: result.revision };
}

/** The answer is sent in any case: when it cannot be kept, the claim ends by itself. */
async function settle(
  store: Store,
  { key, hash, revision }: Claim,
  answer: Kept['answer'],
  now: number,
): Promise<void> {
  const value: Kept = { hash, at: new Date(now).toISOString(), answer };
  const unchanged: Compare = { kind: 'modified', key, revision };
  try {
    await store.transact(
      [unchanged],
      [answer === null ? { kind: 'delete', key } : { kind: 'put', key, value: value as Json }],
    );
  } catch (error) {
    if (!(error instanceof NetctlError && error.kind === 'transient')) throw error;
  }
}

/** Deletes what is over, whoever made it; another agent may do the same at the same time. */
async function sweep(store: Store, now: number): Promise<void> {
  try {
    const { entries } = await store.list(prefix);
    const over = entries.filter(({ value }) => {
      const record = recordSchema.safeParse(value);
      return !record.success || isOver(record.data, now);
    });
    for (let start = 0; start < over.length; start += deletesPerTransaction) {
      const some = over.slice(start, start + deletesPerTransaction);
      await store.transact(
        some.map(({ key, modified }) => ({ kind: 'modified', key, revision: modified })),
        some.map(({ key }) => ({ kind: 'delete', key })),
      );
    }
  } catch (error) {
    if (!(error instanceof NetctlError && error.kind === 'transient')) throw error;
  }
}

function isOver({ at, answer }: Kept, now: number): boolean {
  return Date.parse(at) + (answer === null ? claimMilliseconds : keptMilliseconds) <= now;
}

/** Callers with a certificate have keys of their own: nobody gets the answer that was somebody else's. */
function keyOf(name: unknown, caller: Caller): string {
  if (typeof name !== 'string' || !/^[A-Za-z0-9_.:-]{1,128}$/.test(name))
    throw invalid('Idempotency-Key', name, '1 to 128 letters, digits or _ . : -');
  return `${prefix}${caller.realm === null ? '' : `${caller.realm}.`}${name}`;
}

/** The body has been checked, so its keys are in the order of the schema. */
function hashOf({ method, url, body }: FastifyRequest): string {
  return createHash('sha256')
    .update(`${method} ${url}\n${JSON.stringify(body)}`)
    .digest('hex');
}

function mismatch(key: string): NetctlError {
  return new NetctlError(
    'IDEMPOTENCY_MISMATCH',
    `Idempotency-Key ${key} was used for another request: repeat a request as it was, and give each new one a key of its own`,
    { key },
  );
}

function underWay(key: string): NetctlError {
  return new NetctlError(
    'TRY_AGAIN',
    `a request with Idempotency-Key ${key.slice(prefix.length)} is being carried out: repeat it in a moment`,
  );
}
