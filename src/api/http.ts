/**
 * What all routes share: revisions as ETag and If-Match, the answer to a change, the order of lists.
 *
 * In: requests, results of changes. Out: headers and bodies. Never: a change answered before this host had its chance (5 s)
 * to put it in force.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { invalid } from '../lib/errors.ts';
import { type Address, addressValue, type Cidr, cidrBase, familyOf, prefixLength } from '../model/ip.ts';
import type { Revision } from '../store/store.ts';
import type { ApiDeps } from './deps.ts';

/** The instance with its schemas typed. */
export function typed(api: FastifyInstance) {
  return api.withTypeProvider<ZodTypeProvider>();
}

/** The revision that the request's If-Match names; undefined without one or with `*`. @throws INVALID */
export function ifMatch(request: FastifyRequest): Revision | undefined {
  const header = request.headers['if-match'];
  if (header === undefined || header === '*') return undefined;
  const [, digits] = /^"(\d{1,15})"$/.exec(header) ?? [];
  if (digits === undefined)
    throw invalid('If-Match', header, 'one revision in quotes, as the ETag header has it');
  return Number(digits);
}

export function setRevision(reply: FastifyReply, revision: Revision): void {
  reply.header('etag', `"${revision}"`);
}

/** Waits until the change is in force on this host; false when that did not happen in time: it stands in the store all the same. */
export async function isApplied(deps: ApiDeps, revision: Revision): Promise<boolean> {
  try {
    await deps.applied(revision);
    return true;
  } catch {
    return false;
  }
}

/** The answer to a change of one record. */
export async function changedAnswer<T extends { revision: Revision }>(
  deps: ApiDeps,
  reply: FastifyReply,
  item: T,
) {
  const applied = await isApplied(deps, item.revision);
  setRevision(reply, item.revision);
  return { revision: item.revision, applied, item };
}

/** IPv4 before IPv6, then by number, wide prefixes first. */
export function byAddress(a: Address | Cidr, b: Address | Cidr): number {
  const difference = orderOf(a) - orderOf(b);
  if (familyOf(a) !== familyOf(b)) return familyOf(a) - familyOf(b);
  if (difference !== 0n) return difference < 0n ? -1 : 1;
  return a.includes('/') && b.includes('/') ? prefixLength(a as Cidr) - prefixLength(b as Cidr) : 0;
}

export function byName(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function orderOf(text: Address | Cidr): bigint {
  return addressValue(text.includes('/') ? cidrBase(text as Cidr) : (text as Address));
}

/** Runs what it is given one after the other. */
export function serialised(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const result = last.then(work);
    last = result.catch(() => undefined);
    return result;
  };
}
