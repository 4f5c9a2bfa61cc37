/**
 * The IPAM of one node without the rest of its agent: store, picture and verbs, wired as src/agent wires them. Tests and measurements
 * run many of them at once.
 *
 * In: a name, a store, a clock. Out: the verbs, attach and detach included (addresses and endpoint in one transaction). Never: a
 * picture shared between two nodes; a kernel.
 */
import { EndpointTable } from '../src/agent/endpoint-table.ts';
import { Picture } from '../src/agent/picture.ts';
import { AddressBook } from '../src/ipam/address-book.ts';
import type { AssignRequest, Proposal } from '../src/ipam/assign.ts';
import { check, type Finding } from '../src/ipam/check.ts';
import { Ipam } from '../src/ipam/ipam.ts';
import { planRelease } from '../src/ipam/release.ts';
import type { Reserved, ReserveRequest } from '../src/ipam/reserve.ts';
import { type IpamSnapshot, readSnapshot } from '../src/ipam/snapshot.ts';
import type { Clock } from '../src/lib/clock.ts';
import { KeyedQueue } from '../src/lib/keyed-queue.ts';
import type { Logger } from '../src/lib/logger.ts';
import type { Address } from '../src/model/ip.ts';
import { endpointKey } from '../src/model/keys.ts';
import type { Mac } from '../src/model/mac.ts';
import type { AddressRecord, Endpoint } from '../src/model/records.ts';
import { PolicyEngine } from '../src/policy/engine.ts';
import type { Json, Store } from '../src/store/store.ts';
import { Syncer } from '../src/store/syncer.ts';

export const silent: Logger = { debug() {}, info() {}, warn() {}, error() {} };

export class IpamNode<C extends Clock = Clock> {
  readonly book = new AddressBook();
  readonly endpoints = new EndpointTable();
  readonly clock: C;
  readonly ipam: Ipam;
  /** As the agent's: requests for one endpoint one after the other. */
  readonly queue = new KeyedQueue();
  readonly picture: Picture;
  readonly store: Store;
  readonly name: string;

  constructor(name: string, store: Store, clock: C) {
    this.name = name;
    this.store = store;
    this.clock = clock;
    const output = { set() {}, member() {}, chain() {} };
    this.picture = new Picture({
      node: name,
      book: this.book,
      endpoints: this.endpoints,
      engine: new PolicyEngine({ endpointToHost: 'drop' }, output),
      logger: silent,
      bgp: null,
      onFamily() {},
      onOwnBlock() {},
      onOwnEndpoint() {},
      onAddressMoved() {},
    });
    this.ipam = new Ipam({
      store,
      picture: this.picture,
      book: this.book,
      node: name,
      clock: this.clock,
    });
  }

  /** Resolves when everything that the store has is in the picture; from then on changes come as they are made. */
  async follow(): Promise<Syncer> {
    const synced = Promise.withResolvers<void>();
    const syncer = new Syncer({
      store: this.store,
      prefix: '',
      clock: this.clock,
      listener: {
        onUpdates: (changes, revision) => {
          this.picture.apply(changes, revision);
          this.book.onRevision(revision);
        },
        onInSync: () => synced.resolve(),
        onStatus() {},
      },
    });
    await synced.promise;
    return syncer;
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

export function endpointRecord(id: string, addresses: readonly Address[], mac: Mac, now: Date): Json {
  const endpoint: Endpoint = {
    network: 'edge',
    containerId: `c-${id}`,
    interface: 'eth0',
    kind: 'routed',
    macvlan: null,
    foreignAddresses: false,
    delegate: null,
    hostInterface: 'nctl0',
    mac,
    mtuBytes: 1500,
    addresses: [...addresses],
    profiles: [],
    labels: {},
    extraSources: [],
    rateLimits: null,
    portMappings: [],
    attachedBy: 'runtime',
    netns: { path: '/ns', device: 1, inode: 1 },
    bootId: 'boot',
    createdAt: now.toISOString(),
  };
  return endpoint as unknown as Json;
}
