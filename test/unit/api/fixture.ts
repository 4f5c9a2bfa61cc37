/**
 * An API on the in-memory store, and the records that tests put there.
 *
 * In: what a test wants different. Out: the instance, its store, and what the agent around it was asked. Never: a part of the API
 * replaced.
 */
import type { FastifyInstance } from 'fastify';
import { localCaller } from '../../../src/api/caller.ts';
import type { ApiDeps, ForcedChange } from '../../../src/api/deps.ts';
import type { WhyAnswer } from '../../../src/api/explain-schemas.ts';
import { buildApi } from '../../../src/api/server.ts';
import type { AgentStatus } from '../../../src/api/status.ts';
import { NetctlError } from '../../../src/lib/errors.ts';
import type { Address } from '../../../src/model/ip.ts';
import { MemoryStore } from '../../../src/store/memory.ts';
import type { Json } from '../../../src/store/store.ts';
import { TestNode } from '../ipam/cluster.ts';

export const healthy: AgentStatus = {
  agent: { version: '0.1.0', startedAt: '2026-01-02T03:04:05.000Z', pid: 4711 },
  store: {
    type: 'embedded',
    inSync: true,
    since: '2026-01-02T03:04:06.000Z',
    error: null,
    cluster: null,
    revision: 12,
    refusal: null,
  },
  policy: {
    backend: 'iptables-nft',
    reason: 'as configured',
    iptables: 'nft',
    inSync: true,
    error: null,
    counters: { dropped: 3 },
    notices: [],
    lastRepair: null,
  },
  endpoints: { total: 2, unhealthy: [] },
  records: { broken: [] },
  guard: { held: [] },
};

export const counterItem = {
  endpoint: 'ep1',
  network: 'edge',
  containerId: '0123456789abcdef0123',
  interface: 'eth0',
  addresses: ['10.1.0.7'],
  inPackets: 3,
  inBytes: 3000,
  inDropped: 0,
  outPackets: 4,
  outBytes: 4000,
  outDropped: 1,
};

export const whyAnswer: WhyAnswer = {
  probe: null,
  allowed: false,
  source: { address: '10.1.0.7' as Address, node: 'node1', endpoint: 'aaaa' },
  destination: { address: '10.1.0.8' as Address, node: 'node1', endpoint: 'bbbb' },
  hosts: [
    {
      node: 'node1',
      container: null,
      verdict: 'drop',
      rules: [
        {
          chain: 'nctl-FORWARD',
          position: 5,
          text: 'from an endpoint',
          verdict: 'goto nctl-from',
          origin: null,
        },
        {
          chain: 'nctl-out-web-x',
          position: 1,
          text: 'web: deny tcp',
          verdict: 'drop',
          origin: { kind: 'profile', name: 'web', direction: 'outbound', position: 1 },
        },
      ],
    },
  ],
};

export interface Fixture {
  readonly api: FastifyInstance;
  readonly store: MemoryStore;
  /** Revisions that changes waited for. */
  readonly waitedFor: number[];
  readonly bugs: string[];
  readonly forced: ForcedChange[];
  /** With the picture that the API's verbs plan on. */
  readonly node: TestNode;
}

export function makeApi(overrides: Partial<ApiDeps> = {}): Fixture {
  const store = new MemoryStore();
  const waitedFor: number[] = [];
  const bugs: string[] = [];
  const forced: ForcedChange[] = [];
  const node = new TestNode('node1', store);
  void node.follow();
  const api = buildApi({
    store,
    ipam: node.ipam,
    collect: async () => ({ leaks: [], held: null }),
    clock: node.clock,
    node: 'node1',
    version: '0.1.0',
    status: () => healthy,
    bgpStatus: async () => null,
    hostNotices: async () => [],
    config: () => [
      { key: 'node.name', value: 'node1', source: 'flag' },
      { key: 'bgp.listenPort', value: 179, source: 'default' },
    ],
    applied: async (revision) => {
      waitedFor.push(revision);
      while (node.book.revision < revision) await new Promise(setImmediate);
    },
    why: async () => whyAnswer,
    impact: async () => ({ changes: [], more: 0, complete: true }),
    attach: async () => {
      throw new NetctlError('NETNS_INVALID', 'there is no container here');
    },
    detach: async () => {
      throw new NetctlError('NETNS_INVALID', 'there is no container here');
    },
    counters: async () => [counterItem],
    enforcement: () => [{ endpoint: counterItem.endpoint, where: 'host', inSync: true, notice: null }],
    ruleCounts: async () => ({ inbound: [], outbound: [] }),
    callerOf: () => localCaller('uid 0, process 4712'),
    onForced: (change) => forced.push(change),
    onBug: (error) => bugs.push(error.message),
    ...overrides,
  });
  return { api, store, waitedFor, bugs, forced, node };
}

export async function put(store: MemoryStore, key: string, value: Json): Promise<void> {
  await store.transact([], [{ kind: 'put', key, value }]);
}

export function endpoint(overrides: Record<string, Json> = {}): Json {
  return {
    network: 'edge',
    containerId: '0123456789abcdef0123',
    interface: 'eth0',
    kind: 'routed',
    macvlan: null,
    foreignAddresses: false,
    delegate: null,
    hostInterface: 'nctl0123456789a',
    mac: '02:00:00:00:00:01',
    mtuBytes: 1500,
    addresses: ['10.1.0.7'],
    profiles: ['web'],
    labels: {},
    extraSources: [],
    rateLimits: null,
    portMappings: [],
    attachedBy: 'runtime',
    netns: { path: '/run/netns/a', device: 4, inode: 77 },
    bootId: 'b',
    createdAt: '2026-01-02T03:04:05.000Z',
    ...overrides,
  };
}

export function addressRecord(overrides: Record<string, Json> = {}): Json {
  return {
    pool: 'default',
    state: 'active',
    owner: { tenant: 'cni', app: 'edge', instance: 'c1' },
    node: 'node1',
    endpoint: 'ep1',
    mac: null,
    onRelease: 'delete',
    generation: 1,
    allocatedAt: '2026-01-02T03:04:05.000Z',
    cooldownUntil: null,
    ...overrides,
  };
}

export const block: Json = { pool: 'default', node: 'node1', claimedAt: '2026-01-02T03:04:05.000Z' };

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

export async function call(
  { api }: Fixture,
  method: Method,
  url: string,
  body?: Json,
  headers: Record<string, string> = {},
) {
  const response = await api.inject({
    method,
    url,
    headers,
    ...(body === undefined ? {} : { payload: body as object }),
  });
  return { status: response.statusCode, body: response.json(), headers: response.headers };
}
