/**
 * Several nodes on one in-memory store, each with its own picture, which learns of others' changes by its watch, as the agent does.
 *
 * In: pools and node names. Out: nodes with all verbs. Never: a shared book.
 */
import assert from 'node:assert/strict';
import { EndpointTable } from '../../../src/agent/endpoint-table.ts';
import { Picture } from '../../../src/agent/picture.ts';
import { AddressBook } from '../../../src/ipam/address-book.ts';
import type { AssignRequest, Proposal } from '../../../src/ipam/assign.ts';
import { check, type Finding } from '../../../src/ipam/check.ts';
import { Ipam } from '../../../src/ipam/ipam.ts';
import { planRelease } from '../../../src/ipam/release.ts';
import type { Reserved, ReserveRequest } from '../../../src/ipam/reserve.ts';
import { type IpamSnapshot, readSnapshot } from '../../../src/ipam/snapshot.ts';
import { KeyedQueue } from '../../../src/lib/keyed-queue.ts';
import type { Address, Cidr } from '../../../src/model/ip.ts';
import { endpointKey, nodeKey, poolKey, settingsKey, tenantKey } from '../../../src/model/keys.ts';
import type { Mac } from '../../../src/model/mac.ts';
import { type AddressRecord, type Endpoint, type Pool, poolSchema } from '../../../src/model/records.ts';
import { PolicyEngine } from '../../../src/policy/engine.ts';
import { MemoryStore } from '../../../src/store/memory.ts';
import type { Json, Store } from '../../../src/store/store.ts';
import { ManualClock } from '../store/manual-clock.ts';

const silent = { debug() {}, info() {}, warn() {}, error() {} };

export class TestNode {
  readonly book = new AddressBook();
  readonly endpoints = new EndpointTable();
  readonly clock = new ManualClock();
  readonly ipam: Ipam;
  /** As the agent's: requests for one endpoint one after the other. */
  readonly queue = new KeyedQueue();
  readonly picture: Picture;
  readonly store: Store;
  readonly name: string;

  constructor(name: string, store: Store) {
    this.name = name;
    this.store = store;
    const output = { set() {}, member() {}, chain() {} };
    this.picture = new Picture({
      node: name,
      book: this.book,
      endpoints: this.endpoints,
      engine: new PolicyEngine({ endpointToHost: 'drop' }, output),
      logger: silent,
      onFamily() {},
      onOwnBlock() {},
      onOwnEndpoint() {},
    });
    this.ipam = new Ipam({
      store,
      picture: this.picture,
      book: this.book,
      node: name,
      clock: this.clock,
    });
  }

  async follow(): Promise<void> {
    const snapshot = await this.store.list('');
    this.picture.apply(snapshot.entries.map((entry) => ({ key: entry.key, entry })));
    this.book.onRevision(snapshot.revision);
    this.store.watch('', snapshot.revision, {
      onChanges: ({ changes, revision }) => {
        this.picture.apply(changes);
        this.book.onRevision(revision);
      },
      onEnd: (error) => assert.fail(error),
    });
  }

  /** As the agent's attach does: addresses and endpoint in one transaction. */
  async attach(endpoint: string, request: Partial<AssignRequest> = {}): Promise<Proposal> {
    let proposal: Proposal | undefined;
    const owner = request.owner ?? { tenant: 't', app: 'a', instance: endpoint };
    await this.ipam.commit(() => {
      const made = this.ipam.assigner.propose({
        node: this.name,
        endpoint,
        container: `c-${endpoint}`,
        pools: [],
        addresses: [],
        mac: null,
        now: this.now(),
        ...request,
        owner,
      });
      proposal = made;
      const key = endpointKey(this.name, endpoint);
      const value = endpointRecord(endpoint, made.addresses, made.mac, this.now());
      return {
        compares: [...made.compares, { kind: 'absent', key }],
        writes: [...made.writes, { kind: 'put', key, value }],
        settle: () => made.settle(),
      };
    }, owner.tenant);
    return proposal!;
  }

  async assign(endpoint: string, request: Partial<AssignRequest> = {}): Promise<readonly Address[]> {
    return (await this.attach(endpoint, request)).addresses;
  }

  /** As the agent's detach does. */
  async release(endpoint: string, addresses: readonly Address[], used = true): Promise<void> {
    const key = endpointKey(this.name, endpoint);
    await this.ipam.commit(() => {
      const known = this.endpoints.get(endpoint);
      if (known === undefined) return { compares: [], writes: [] };
      const step = planRelease(this.book, endpoint, addresses, this.now(), used);
      return {
        compares: [...step.compares, { kind: 'modified', key, revision: known.modified }],
        writes: [...step.writes, { kind: 'delete', key }],
      };
    });
  }

  reserve(id: string, request: Partial<ReserveRequest> = {}): Promise<Reserved> {
    return this.ipam.reserve({
      id,
      tenant: 't',
      app: 'a',
      instances: ['0'],
      ipv4: 1,
      ipv6: 0,
      addresses: [],
      macs: [],
      kind: 'routed',
      pools: [],
      ranges: [],
      skip: [],
      node: null,
      onRelease: 'delete',
      retainSeconds: null,
      ttlSeconds: 600,
      mode: 'all',
      ...request,
    });
  }

  record(address: Address): AddressRecord | undefined {
    return this.book.address(address)?.value;
  }

  now(): Date {
    return new Date(this.clock.now());
  }

  /** When everything that was written has arrived at every node. */
  async settled(): Promise<void> {
    const { revision } = await this.store.list('');
    while (this.book.revision < revision) await new Promise(setImmediate);
  }

  async snapshot(): Promise<IpamSnapshot> {
    const { entries, revision } = await this.store.list('');
    return readSnapshot(entries, revision);
  }

  async check(): Promise<Finding[]> {
    return check(await this.snapshot(), this.now());
  }
}

export interface ClusterOptions {
  readonly names?: readonly string[];
  readonly strictAffinity?: boolean;
  readonly quotas?: Readonly<Record<string, number>>;
  readonly labels?: Readonly<Record<string, Record<string, string>>>;
}

export type Pools = Record<string, Partial<Pool> & { cidr: Cidr; blockSize: number }>;

export async function cluster(
  pools: Pools,
  options: ClusterOptions | readonly string[] = {},
): Promise<TestNode[]> {
  const {
    names = ['n1'],
    strictAffinity = true,
    quotas = {},
    labels = {},
  } = 'length' in options ? { names: options } : options;
  const store = new MemoryStore();
  const put = (key: string, value: unknown) =>
    store.transact([], [{ kind: 'put', key, value: value as Json }]);
  for (const [name, pool] of Object.entries(pools)) await put(poolKey(name), poolSchema.parse(pool));
  for (const [tenant, maxAddresses] of Object.entries(quotas)) await put(tenantKey(tenant), { maxAddresses });
  if (!strictAffinity) await put(settingsKey, { strictAffinity });
  for (const name of names) {
    const node = { address4: null, address6: null, version: '0', startedAt: '2026-01-01T00:00:00.000Z' };
    await put(nodeKey(name), { ...node, labels: labels[name] ?? {} });
  }
  const nodes = names.map((name) => new TestNode(name, store));
  await Promise.all(nodes.map((node) => node.follow()));
  return nodes;
}

export function endpointRecord(id: string, addresses: readonly Address[], mac: Mac, now: Date): Json {
  const endpoint: Endpoint = {
    network: 'edge',
    containerId: `c-${id}`,
    interface: 'eth0',
    kind: 'routed',
    macvlan: null,
    hostInterface: 'nctl0',
    mac,
    mtuBytes: 1500,
    addresses: [...addresses],
    profiles: [],
    labels: {},
    extraSources: [],
    rateLimits: null,
    netns: { path: '/ns', device: 1, inode: 1 },
    bootId: 'boot',
    createdAt: now.toISOString(),
  };
  return endpoint as unknown as Json;
}
