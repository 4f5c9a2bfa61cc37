/**
 * Watching over HTTP: what changes, as server-sent events, from a revision on.
 *
 * In: a revision, filters, the store's own watch. Out: one event per record that changed; a bookmark every 30 s, so that a quiet stream can
 * be resumed late. Never: an event of another tenant's; an event lost or out of order on one stream; more in memory for a reader
 * that does not read than a socket's buffer (the store is asked again when it does).
 */
import type { ServerResponse } from 'node:http';
import { setImmediate as turn } from 'node:timers/promises';
import type { FastifyInstance } from 'fastify';
import { asNetctlError, invalid, NetctlError } from '../lib/errors.ts';
import type { Revision, Watch } from '../store/store.ts';
import { showingTo } from './caller.ts';
import type { ApiDeps } from './deps.ts';
import { errorAnswer } from './errors.ts';
import { typed } from './http.ts';
import { ReservationTenants, type WatchedEvent, WatchFilter } from './watch-filter.ts';
import { watchAnswer, watchQuery } from './watch-schemas.ts';

const bookmarkMilliseconds = 30_000;
/** A reader that takes nothing for as long is gone. */
const stuckMilliseconds = 60_000;
const mostStreams = 200;

export function watchRoutes(instance: FastifyInstance, deps: ApiDeps): void {
  const { store, ipam, node } = deps;
  const open = new Set<Stream>();
  const tenants = new ReservationTenants(store);
  instance.addHook('preClose', async () => {
    tenants.close();
    for (const stream of open) stream.end();
  });

  typed(instance).get(
    '/v1/watch',
    {
      config: { audience: 'tenant' },
      // A HEAD would open a stream that nobody reads.
      exposeHeadRoute: false,
      schema: { querystring: watchQuery, response: { 200: watchAnswer } },
    },
    async (request, reply) => {
      const { since, kinds, node: ofNode } = request.query;
      const tenant = showingTo(request.caller, request.query.tenant);
      if (open.size >= mostStreams)
        throw new NetctlError('RATE_LIMITED', `${mostStreams} streams are open at this agent: close some`);
      const resume = since ?? request.headers['last-event-id'];
      const after = resume === undefined ? ipam.book.revision : revisionOf(resume, node);
      const filter = new WatchFilter({ kinds, tenant, node: ofNode ?? null }, await tenants.ready());
      const stream = new Stream(deps, reply.raw, filter, after);
      await stream.probe();
      reply.hijack();
      open.add(stream);
      stream.begin(() => void open.delete(stream));
    },
  );
}

/** Revisions are each agent's own, so an event's id says whose: `node1:42`; a bare number is taken for this agent's. */
function revisionOf(text: unknown, node: string): Revision {
  const [, whose, digits] = /^(?:(.+):)?(\d{1,15})$/.exec(String(text)) ?? [];
  if (digits === undefined) throw invalid('since', text, 'a revision, or the id of an event');
  if (whose !== undefined && whose !== node)
    throw new NetctlError(
      'REVISION_COMPACTED',
      `${text} is a revision of agent ${whose}, this is ${node}: list anew and watch from there`,
      { node },
    );
  return Number(digits);
}

class Stream {
  readonly #deps: ApiDeps;
  readonly #response: ServerResponse;
  readonly #filter: WatchFilter;
  /** Everything up to it has been written, or is not for this reader. */
  #at: Revision;
  #watch: Watch | null = null;
  #timer: NodeJS.Timeout | null = null;
  #stuck: NodeJS.Timeout | null = null;

  constructor(deps: ApiDeps, response: ServerResponse, filter: WatchFilter, after: Revision) {
    this.#deps = deps;
    this.#response = response;
    this.#filter = filter;
    this.#at = after;
  }

  /** Whether the store still has what is asked for. @throws REVISION_COMPACTED, and what the store throws */
  async probe(): Promise<void> {
    let failure: Error | null = null;
    const watch = this.#deps.store.watch('', this.#at, {
      onChanges: () => undefined,
      onEnd: (error) => {
        failure = error;
      },
    });
    await turn();
    await turn();
    watch.close();
    if (failure !== null) throw compacted(failure);
  }

  begin(onEnd: () => void): void {
    const response = this.#response;
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    });
    response.flushHeaders();
    response.on('close', () => {
      this.#watch?.close();
      if (this.#timer !== null) clearInterval(this.#timer);
      if (this.#stuck !== null) clearTimeout(this.#stuck);
      onEnd();
    });
    response.on('error', () => response.destroy());
    this.#timer = setInterval(() => this.#bookmark(), bookmarkMilliseconds);
    this.#bookmark();
    this.#follow();
  }

  end(): void {
    this.#response.end();
  }

  #follow(): void {
    this.#watch = this.#deps.store.watch('', this.#at, {
      onChanges: (changeSet) => {
        const events = this.#filter.eventsOf(changeSet);
        if (events === null) {
          const message = `whose the reservations were that ended at ${changeSet.revision} is not known any more`;
          this.#fail(new NetctlError('REVISION_COMPACTED', `${message}: list anew and watch from there`));
          return;
        }
        this.#at = changeSet.revision;
        // Only the last event of a transaction has an id: who resumes gets all of it or nothing of it again.
        const id = `id: ${this.#deps.node}:${changeSet.revision}\n`;
        const text = events.map((event, i) => lines(event, i === events.length - 1 ? id : '')).join('');
        if (text !== '' && !this.#response.write(text)) this.#pause();
      },
      onEnd: (error) => this.#fail(compacted(error)),
    });
  }

  /** The store keeps what comes meanwhile. */
  #pause(): void {
    this.#watch?.close();
    this.#watch = null;
    this.#stuck = setTimeout(() => this.#response.destroy(), stuckMilliseconds);
    this.#response.once('drain', () => {
      if (this.#stuck !== null) clearTimeout(this.#stuck);
      this.#stuck = null;
      if (!this.#response.destroyed) this.#follow();
    });
  }

  #bookmark(): void {
    if (this.#stuck !== null) return;
    const id = `id: ${this.#deps.node}:${this.#at}\n`;
    const data = JSON.stringify({ revision: this.#at, type: 'bookmark', node: this.#deps.node });
    this.#response.write(`event: bookmark\n${id}data: ${data}\n\n`);
  }

  /** Once the stream has begun there is no status any more: the last event says it. */
  #fail(error: NetctlError): void {
    this.#watch?.close();
    this.#response.end(`event: error\ndata: ${JSON.stringify(errorAnswer(error).body)}\n\n`);
  }
}

function lines(event: WatchedEvent, id: string): string {
  return `event: ${event.type}\n${id}data: ${JSON.stringify(event)}\n\n`;
}

function compacted(thrown: Error): NetctlError {
  const error = asNetctlError(thrown);
  if (error.code !== 'STORE_COMPACTED') return error;
  return new NetctlError(
    'REVISION_COMPACTED',
    `${error.message.split(':')[0]}: list anew and watch from there`,
  );
}
