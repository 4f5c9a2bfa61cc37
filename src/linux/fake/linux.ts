/**
 * A Linux in memory: several namespaces, strict like the kernel, failing on request.
 *
 * In: the calls of ports.ts, and from tests: namespaces, ordered failures, lost notifications. Out: state that can be read
 * back, and printed as commands. Never: success where the kernel would refuse.
 */
import { NetctlError } from '../../lib/errors.ts';
import { families } from '../../model/ip.ts';
import { parseInterfaceName } from '../../model/names.ts';
import { describeRouting } from '../describe.ts';
import { checkIndex } from '../netlink/link.ts';
import type { OpenNftables, TraceStep } from '../nftables-port.ts';
import {
  type Batch,
  type BatchRefusal,
  type Conntrack,
  KernelError,
  type LinkEvent,
  type LinkSpec,
  type Linux,
  type Netns,
  type Packets,
  type Routing,
  type RoutingRequest,
  type RuleWatch,
} from '../ports.ts';
import { check } from './check-request.ts';
import { FakeConntrack } from './conntrack.ts';
import { FakeIpSets } from './ipsets.ts';
import { FakeIptables } from './iptables.ts';
import {
  addDevice,
  addIfb,
  addMacvlan,
  addVeth,
  addVlan,
  endRedirect,
  endShape,
  linkInfo,
  qdiscsOf,
  redirect,
} from './links.ts';
import { childrenOf, type FakeLink, FakeNetns } from './netns.ts';
import type { FakeNftables } from './nftables.ts';
import { printNetns, printRules, printSets } from './print.ts';
import { Failures, type FakeOperation, type OrderedFailure, Refusal, withWords } from './refusal.ts';
import { readSysctl, writeSysctl } from './sysctls.ts';

const FIRST_INODE = 4026532000;
const NSFS_DEVICE = 4;

export class FakeLinux implements Linux {
  readonly families = families;
  readonly ipsets: FakeIpSets;
  readonly iptables: FakeIptables;
  readonly nftables: FakeNftables;
  readonly conntrack: Conntrack;
  /** Processes with CAP_NET_ADMIN, by the inode of their namespace. */
  readonly admins = new Map<number, number>();
  /** What was sent through packet sockets, in order. */
  readonly sentFrames: { link: string; protocol: number; frame: Buffer }[] = [];
  readonly #failures = new Failures();
  readonly tracked = new FakeConntrack(this.#failures);
  readonly #host = new FakeNetns(null, FIRST_INODE, this.#failures);
  readonly #netnsByPath = new Map<string, FakeNetns>();
  readonly #netnsByFd = new Map<number, FakeNetns>();
  readonly #watchers = new Set<(event: LinkEvent) => void>();
  readonly #ruleWatchers = new Set<() => void>();
  readonly #containerWatchers = new Map<(inode: number | null) => void, Set<number>>();
  #nextInode = FIRST_INODE + 1;
  #nextFd = 1000;

  constructor() {
    this.iptables = new FakeIptables(this.#failures, (name) => this.ipsets.sets.get(name));
    this.ipsets = new FakeIpSets(this.#failures, (name) => this.iptables.usesSet(name));
    this.nftables = this.#host.nftables;
    this.conntrack = this.tracked.host;
  }

  conntrackIn({ identity: { inode } }: Netns): Pick<Conntrack, 'flushWhere'> {
    return this.tracked.in(inode);
  }

  // What tests may do.

  /** Makes a namespace that can be opened by this path. */
  addNetns(path: string): void {
    if (this.#netnsByPath.has(path)) throw new Error(`fake: ${path} exists`);
    this.#netnsByPath.set(path, new FakeNetns(path, this.#nextInode++, this.#failures));
  }

  /** A device of the host, as a network card is; down. */
  addDevice(spec: LinkSpec): void {
    addDevice(this.#host, spec);
  }

  /** The namespace goes as when its last process ends: its links go, and so do their peers. */
  removeNetns(path: string): void {
    const netns = this.#netnsByPath.get(path);
    if (netns === undefined) throw new Error(`fake: no namespace ${path}`);
    for (const link of [...netns.links.values()]) this.#dropLink(link);
    this.#netnsByPath.delete(path);
    for (const [fd, open] of this.#netnsByFd) if (open === netns) this.#netnsByFd.delete(fd);
  }

  /** The next operation of this kind fails; in a batch only the request at `position`, the others are carried out. */
  failNext(operation: FakeOperation, errno: string, position = 0): void {
    this.#failures.order({ operation, errno, position });
  }

  /** Ordered failures that have not come yet: a test that ends with one has not tested it. */
  get pendingFailures(): readonly OrderedFailure[] {
    return this.#failures.pending;
  }

  /** As when the receive buffer overflowed. */
  loseLinkEvents(): void {
    this.#announce({ kind: 'lost' });
  }

  /** Descriptors of namespaces that were opened and not closed. */
  get openNetnsCount(): number {
    return this.#netnsByFd.size;
  }

  /** Everything, as the commands that would make it. */
  toString(): string {
    const namespaces = [this.#host, ...this.#netnsByPath.values()];
    return [
      ...namespaces.flatMap(printNetns),
      ...printSets(this.ipsets.sets),
      ...([4, 6] as const).flatMap((family) => printRules(family, this.iptables.print(family))),
      ...namespaces.flatMap((netns) => netns.nftables.print()),
      ...this.tracked.flushedAddresses.map((address) => `conntrack -D -s ${address}`),
    ].join('\n');
  }

  // The port.

  openNetns(path: string): Netns {
    this.#failures.check('openNetns', `open ${path}`);
    const netns = path === '/proc/self/ns/net' ? this.#host : this.#netnsByPath.get(path);
    if (netns === undefined)
      throw new NetctlError('NETNS_INVALID', `${path} is not a network namespace`, { path });
    const fd = this.#nextFd++;
    this.#netnsByFd.set(fd, netns);
    const identity = { device: NSFS_DEVICE, inode: netns.inode };
    return { fd, identity, close: () => void this.#netnsByFd.delete(fd) };
  }

  readonly networkAdmins = async (): Promise<ReadonlyMap<number, number>> => this.admins;

  openNftables(netns: Netns): OpenNftables {
    return this.#find(netns, 'open a netfilter socket').nftables.open();
  }

  openRouting(netns?: Netns): Routing {
    const here = this.#find(netns, 'open a routing socket');
    return {
      batch: (requests) => {
        for (const request of requests) check(request);
        this.#failures.runBatch('batch', requests, describeRouting, (request) =>
          this.#carryOut(here, request),
        );
      },
      link: (by) => {
        const link = 'index' in by ? here.links.get(by.index) : here.linkNamed(by.name);
        return link ? linkInfo(link) : null;
      },
      links: async () => [...here.links.values()].map(linkInfo),
      addresses: async (index) => here.addresses(index),
      routes: async ({ protocol, everyTable, table } = {}) => here.routes(protocol, everyTable, table),
      markRules: async () => [...here.markRules],
      neighbours: async (index) => here.neighbours(index),
      qdiscs: async (index) =>
        [...here.links.values()].flatMap((link) =>
          index === undefined || link.spec.index === index ? qdiscsOf(link) : [],
        ),
      counters: async () => new Map([...here.links.keys()].map((index) => [index, noTraffic])),
      close: () => {},
    };
  }

  async batches(batches: readonly Batch[]): Promise<BatchRefusal | null> {
    for (const [batch, { netns, requests }] of batches.entries()) {
      const error = this.#refusalOf(requests, netns);
      if (error !== null) return { batch, error };
    }
    return null;
  }

  ahead(requests: readonly RoutingRequest[]): () => KernelError | null {
    const refused = this.#refusalOf(requests);
    return () => refused;
  }

  #refusalOf(requests: readonly RoutingRequest[], netns?: Netns): KernelError | null {
    const routing = this.openRouting(netns);
    try {
      routing.batch(requests);
      return null;
    } catch (error) {
      if (error instanceof KernelError) return error;
      throw error;
    }
  }

  /** The wire between links of the fake is a list that tests read; nothing is delivered. */
  openPackets(linkIndex: number, protocol: number, _onFrame: unknown, netns?: Netns): Packets {
    const link = withWords('open a packet socket', () =>
      this.#find(netns, 'open a packet socket').link(linkIndex),
    );
    return {
      send: (frame) => {
        this.#failures.check('sendFrame', 'send a frame');
        if (!link.up) throw new KernelError('send a frame', 'ENETDOWN', null);
        this.sentFrames.push({ link: link.spec.name, protocol, frame: Buffer.from(frame) });
      },
      close: () => {},
    };
  }

  readSysctl(path: string, netns?: Netns): string {
    const what = `read /proc/sys/${path}`;
    this.#failures.check('readSysctl', what);
    return withWords(what, () => readSysctl(this.#find(netns, what), path));
  }

  writeSysctl(path: string, value: string, netns?: Netns): void {
    const what = `write ${value} to /proc/sys/${path}`;
    this.#failures.check('writeSysctl', what);
    withWords(what, () => writeSysctl(this.#find(netns, what), path, value));
  }

  /** No packet goes through a fake. */
  async tracePacket(): Promise<TraceStep[]> {
    return [];
  }

  watchForeignRules(_ownTable: string, onChange: () => void): () => void {
    this.#ruleWatchers.add(onChange);
    return () => void this.#ruleWatchers.delete(onChange);
  }

  /** Others have changed rules. */
  tellForeignRules(): void {
    for (const onChange of this.#ruleWatchers) onChange();
  }

  watchRulesIn(onChange: (inode: number | null) => void): RuleWatch {
    const inodes = new Set<number>();
    this.#containerWatchers.set(onChange, inodes);
    return {
      add: ({ identity }) => void inodes.add(identity.inode),
      close: () => void this.#containerWatchers.delete(onChange),
    };
  }

  /** Somebody has changed rules in the namespace; null: notifications were lost. */
  tellContainerRules(inode: number | null): void {
    for (const [onChange, inodes] of this.#containerWatchers)
      if (inode === null || inodes.has(inode)) onChange(inode);
  }

  watchLinks(onEvent: (event: LinkEvent) => void, quietFrom = Number.POSITIVE_INFINITY): () => void {
    const watcher = (event: LinkEvent): void => {
      if (event.kind !== 'changed' || event.link.index < quietFrom) onEvent(event);
    };
    this.#watchers.add(watcher);
    return () => void this.#watchers.delete(watcher);
  }

  async deleteLink(by: number | { readonly name: string }, netns?: Netns): Promise<void> {
    if (typeof by === 'number') checkIndex(by, 'index');
    else parseInterfaceName(by.name);
    const what = `delete link ${typeof by === 'number' ? by : by.name}`;
    this.#failures.check('deleteLink', what);
    const { links } = this.#find(netns, what);
    const link =
      typeof by === 'number' ? links.get(by) : [...links.values()].find(({ spec }) => spec.name === by.name);
    if (link !== undefined) this.#dropLink(link);
  }

  #find(netns: Netns | undefined, what: string): FakeNetns {
    if (netns === undefined) return this.#host;
    const found = this.#netnsByFd.get(netns.fd);
    if (found === undefined) throw new KernelError(what, 'EBADF', null);
    return found;
  }

  #carryOut(here: FakeNetns, request: RoutingRequest): void {
    switch (request.kind) {
      case 'veth-add': {
        const container = this.#netnsByFd.get(request.peer.netnsFd);
        if (container === undefined) throw new Refusal('EBADF');
        addVeth(here, request.host, container, request.peer);
        this.#changed(here.link(request.host.index));
        break;
      }
      case 'macvlan-add': {
        const { netnsFd } = request.link;
        const container = netnsFd === undefined ? here : this.#netnsByFd.get(netnsFd);
        if (container === undefined) throw new Refusal('EBADF');
        addMacvlan(here.link(request.parentIndex), request.mode, request.link, container);
        break;
      }
      case 'vlan-add':
        addVlan(here.link(request.parentIndex), request.link, request.alias);
        break;
      case 'ifb-add':
        addIfb(here, request.link);
        break;
      case 'shape':
        here.link(request.index).bucket = request.bucket;
        break;
      case 'unshape':
        endShape(here.link(request.index));
        break;
      case 'redirect-ingress':
        redirect(here.link(request.index), request.toIndex);
        break;
      case 'unredirect-ingress':
        endRedirect(here.link(request.index));
        break;
      case 'link-set': {
        const link = here.link(request.index);
        if (request.mtuBytes !== undefined) here.setMtu(link, request.mtuBytes);
        if (request.ipv6AddressGeneration !== undefined)
          link.addressGeneration = request.ipv6AddressGeneration;
        if (request.up !== undefined) here.setUp(link, request.up);
        this.#changed(link);
        break;
      }
      case 'link-settle':
        here.link(request.index);
        break;
      case 'link-delete':
        this.#dropLink(here.link(request.index));
        break;
      case 'address-add':
        here.addAddress(request.index, request.address, request.prefixLength);
        break;
      case 'address-delete':
        here.deleteAddress(request.index, request.address, request.prefixLength);
        break;
      case 'neighbour-replace':
        here.replaceNeighbour(request.index, request.address, request.mac);
        break;
      case 'source-rule-add':
      case 'source-rule-delete':
        here.changeSourceRule(request, request.kind === 'source-rule-add');
        break;
      case 'mark-rule-add':
      case 'mark-rule-delete':
        here.changeMarkRule(request, request.kind === 'mark-rule-add');
        break;
      case 'route-add':
      case 'route-replace':
        here.addRoute(request.route, request.kind === 'route-replace');
        break;
      case 'route-delete':
        here.deleteRoute(request.route);
        break;
    }
  }

  /** With a veth its peer goes, with a parent the macvlans on it. */
  #dropLink(link: FakeLink): void {
    for (const child of childrenOf(link)) this.#dropLink(child);
    for (const end of [link, link.peer]) {
      if (end === null) continue;
      end.netns.drop(end);
      if (end.netns === this.#host)
        this.#announce({ kind: 'gone', index: end.spec.index, name: end.spec.name });
    }
  }

  /** With the peer's state, a link's own running state changes. */
  #changed(link: FakeLink): void {
    for (const end of [link, link.peer]) {
      if (end?.netns === this.#host) this.#announce({ kind: 'changed', link: linkInfo(end) });
    }
  }

  #announce(event: LinkEvent): void {
    setImmediate(() => {
      for (const watcher of [...this.#watchers]) watcher(event);
    });
  }
}

const noTraffic = { inPackets: 0, inBytes: 0, outPackets: 0, outBytes: 0, inDropped: 0, outDropped: 0 };
