/**
 * Health and metrics: `/healthz` (the process answers), `/readyz` (it can do its work), `/metrics` (Prometheus).
 *
 * In: the agent's status, the counts of its picture, how long requests took. Out: text. Never: a walk over addresses; a name of a tenant or
 * container (metrics are read by whoever reaches the listener).
 */
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { FastifyInstance, FastifyReply } from 'fastify';
import { z } from 'zod';
import { usageByPool } from '../ipam/usage.ts';
import { Histogram, metricLines, type Sample } from '../lib/histogram.ts';
import type { ApiDeps } from './deps.ts';
import { problemsOf } from './status.ts';

const prometheusText = 'text/plain; version=0.0.4; charset=utf-8';
const poolStates = [
  'reserved',
  'bound',
  'active',
  'retained',
  'cooldown',
  'quarantined',
  'available',
] as const;

const counted = [
  ['inBytes', 'receive_bytes', 'Bytes received'],
  ['inPackets', 'receive_packets', 'Packets received'],
  ['inDropped', 'receive_dropped', 'Packets dropped on their way in'],
  ['outBytes', 'transmit_bytes', 'Bytes sent'],
  ['outPackets', 'transmit_packets', 'Packets sent'],
  ['outDropped', 'transmit_dropped', 'Packets dropped on their way out'],
] as const;

interface Page {
  readonly status: number;
  readonly type: string;
  readonly text: string;
}

export class Metrics {
  readonly #deps: ApiDeps;
  readonly #requests = new Histogram('operation');
  #failed = 0;

  constructor(deps: ApiDeps) {
    this.#deps = deps;
  }

  /** Measures every request of the instance, and serves the three pages on it too. */
  attach(instance: FastifyInstance): void {
    instance.addHook('onResponse', async (request, reply) => {
      const { method, routeOptions } = request;
      if (reply.statusCode >= 500) this.#failed++;
      if (routeOptions.url === undefined || routeOptions.url === '/v1/watch') return;
      this.#requests.observe(`${method} ${routeOptions.url}`, reply.elapsedTime / 1000);
    });
    const schema = { response: { 200: z.string().meta({ description: 'text/plain' }) } };
    const anyone = { config: { audience: 'anyone' }, schema } as const;
    for (const path of ['/healthz', '/readyz'])
      instance.get(path, anyone, async (_request, reply) => send(reply, (await this.page(path))!));
    instance.get('/metrics', { schema }, async (_request, reply) =>
      send(reply, (await this.page('/metrics'))!),
    );
  }

  /** A server for these pages alone. */
  server(): Server {
    const answer = async (method: string | undefined, url: string): Promise<Page> => {
      const page = method === 'GET' ? await this.page(url.split('?')[0]!) : null;
      return page ?? { status: 404, type: 'text/plain', text: 'not found\n' };
    };
    return createServer((request, response: ServerResponse) => {
      void answer(request.method, request.url ?? '')
        .catch((error: Error) => ({ status: 500, type: 'text/plain', text: `${error.message}\n` }))
        .then(({ status, type, text }) => response.writeHead(status, { 'content-type': type }).end(text));
    });
  }

  /** null for a path that is none of the three. */
  async page(path: string): Promise<Page | null> {
    if (path === '/healthz') return { status: 200, type: 'text/plain', text: 'ok\n' };
    if (path === '/readyz') {
      const problems = problemsOf(this.#deps.status());
      const text = problems.length === 0 ? 'ready\n' : `${problems.join('\n')}\n`;
      return {
        status: this.#deps.status().store.inSync && this.#deps.status().policy.inSync ? 200 : 503,
        type: 'text/plain',
        text,
      };
    }
    return path === '/metrics' ? { status: 200, type: prometheusText, text: await this.#text() } : null;
  }

  async #text(): Promise<string> {
    const counters = await this.#deps.counters();
    const { store, policy, endpoints } = this.#deps.status();
    const { cluster } = store;
    const { ipam } = this.#deps;
    const addresses = usageByPool(ipam.book, null).flatMap((pool) =>
      poolStates.map((state): Sample => [{ pool: pool.key, state }, pool[state]]),
    );
    const flag = (on: boolean): Sample[] => [[{}, on ? 1 : 0]];
    const lines = [
      this.#requests.lines('netctl_request_seconds', 'How long requests to the API took.'),
      metricLines('netctl_requests_failed_total', 'counter', 'Requests answered with 5xx.', [
        [{}, this.#failed],
      ]),
      metricLines(
        'netctl_ipam_lost_races_total',
        'counter',
        'Transactions planned anew because another was quicker.',
        [[{}, ipam.lostRaces]],
      ),
      metricLines('netctl_ipam_addresses', 'gauge', 'Addresses by pool and state.', addresses),
      metricLines('netctl_endpoints', 'gauge', 'Endpoints of this host.', [[{}, endpoints.total]]),
      metricLines('netctl_endpoints_unhealthy', 'gauge', 'Endpoints that could not be repaired.', [
        [{}, endpoints.unhealthy.length],
      ]),
      ...counted.map(([key, name, what]) =>
        metricLines(
          `netctl_endpoint_${name}_total`,
          'counter',
          `${what} by endpoint of this host.`,
          counters.map((item): Sample => [{ endpoint: item.endpoint, interface: item.interface }, item[key]]),
        ),
      ),
      metricLines(
        'netctl_store_in_sync',
        'gauge',
        'Whether the picture of the store is up to date.',
        flag(store.inSync),
      ),
      metricLines(
        'netctl_policy_in_sync',
        'gauge',
        'Whether the policy is in the kernel.',
        flag(policy.inSync),
      ),
      ...(cluster === null
        ? []
        : [
            metricLines(
              'netctl_cluster_reachable',
              'gauge',
              'Whether etcd answers.',
              flag(cluster.reachable),
            ),
            metricLines(
              'netctl_replication_waiting',
              'gauge',
              'Changes of this node that etcd does not have yet.',
              [[{}, cluster.waiting]],
            ),
          ]),
    ];
    return `${lines.flat().join('\n')}\n`;
  }
}

function send(reply: FastifyReply, { status, type, text }: Page): FastifyReply {
  return reply.code(status).type(type).serializer(String).send(text);
}
