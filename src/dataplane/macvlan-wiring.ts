/**
 * Links of macvlan endpoints: makes them for an ADD, tells the wire who has the address now, takes them away for a DEL, and says what
 * is wrong with one.
 *
 * In: endpoints as the store has them, an open namespace. Out: netlink batches and frames (planned in src/macvlan). Never: a link in
 * the container that is not the endpoint's own touched; an address used that somebody else answered for; a wait for announcements
 * (the later ones follow in the background).
 */
import { type Clock, pause } from '../lib/clock.ts';
import { NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import {
  KernelError,
  type LinkInfo,
  type Linux,
  type Netns,
  type Routing,
  type RoutingRequest,
} from '../linux/ports.ts';
import { type MacvlanSpec, planContainer, planLink, planUp, tableBeside } from '../macvlan/plan.ts';
import { hostInterfaceIndex } from '../model/attachment.ts';
import { needsLink } from '../model/delegate.ts';
import { type Address, familyOf } from '../model/ip.ts';
import { type MacvlanRecord, routesOf } from '../model/macvlan.ts';
import type { Endpoint } from '../model/records.ts';
import { announceOnWire } from './announce.ts';
import { endBeside, leadOut, missingRoutes } from './container-routes.ts';
import { HostPair } from './host-pair.ts';
import { HostShim, type ShimHost } from './host-shim.ts';
import { twoIndexes } from './indexes.ts';
import { MacvlanParents, parentName, refuseLargeMtu, type Wire } from './macvlan-parents.ts';
import { reopen } from './reopen.ts';
import { WireQuestions } from './wire-questions.ts';
import type { Wiring } from './wiring.ts';

/** What must hold at each step of a link's life (macvlan-policy.ts). */
export interface LinkPolicy {
  /** The link is there, down. @throws KernelError */
  bring(endpoint: Endpoint, netns: Netns): Promise<void>;
  /** The link is up, and nobody else has its addresses. @throws KernelError */
  settle(endpoint: Endpoint): Promise<void>;
  /** The link stays for who gives the addresses back. @throws KernelError */
  strip(bare: Endpoint): Promise<void>;
  /** The link is about to go. */
  close(endpoint: Endpoint): Promise<void>;
  /** The link is gone. @throws KernelError */
  remove(endpoint: Endpoint): Promise<void>;
}

const macPatienceMs = 2000;

export class MacvlanWiring implements Wiring {
  readonly #linux: Linux;
  readonly #host: Routing;
  readonly #policy: LinkPolicy;
  readonly #pair: HostPair;
  readonly #shim: HostShim;
  readonly #parents: MacvlanParents;
  readonly #questions: WireQuestions;
  readonly #clock: Clock;
  readonly #logger: Logger;

  /** @param own this node, and its addresses by which its containers know it */
  constructor(linux: Linux, policy: LinkPolicy, own: ShimHost, clock: Clock, logger: Logger) {
    this.#policy = policy;
    this.#linux = linux;
    this.#host = linux.openRouting();
    this.#pair = new HostPair(linux, this.#host, own.addresses);
    this.#shim = new HostShim(linux, this.#host, own);
    this.#parents = new MacvlanParents(this.#host);
    this.#questions = new WireQuestions(linux, clock);
    this.#clock = clock;
    this.#logger = logger;
  }

  /** Without addresses, the link is up for who asks for some; with them, `make` goes on from there. */
  async make(endpoint: Endpoint, netns: Netns): Promise<void> {
    const spec = this.#begun(endpoint, netns) ?? (await this.#begin(endpoint, netns));
    await this.#policy.bring(endpoint, netns);
    await this.#finish(spec, endpoint, netns);
    if (endpoint.addresses.length === 0) return;
    await this.#policy.settle(endpoint);
    if (hasPair(endpoint)) this.#pair.make(endpoint, netns);
    if (hasShim(endpoint)) await this.#shim.make(endpoint, this.#parents.ready(macvlanOf(endpoint)), netns);
  }

  /**
   * What the endpoint could say is said: nothing passes from and to it any more but what gives its addresses back, and the link has none.
   * @throws KernelError
   */
  async strip(endpoint: Endpoint): Promise<void> {
    const record = { ...macvlanOf(endpoint), subnets: [] };
    await this.#policy.strip({ ...endpoint, addresses: [], extraSources: [], macvlan: record });
    const netns = reopen(this.#linux, endpoint);
    try {
      const link = netns && this.#own(endpoint, netns);
      if (netns === null || link === null) return;
      const container = this.#linux.openRouting(netns);
      try {
        const present = await container.addresses(link.index);
        for (const { address, prefixLength } of present)
          if (endpoint.addresses.includes(address))
            container.batch([{ kind: 'address-delete', index: link.index, address, prefixLength }]);
      } finally {
        container.close();
      }
    } finally {
      netns?.close();
    }
  }

  /** The link of an endpoint that had no addresses until now. */
  #begun(endpoint: Endpoint, netns: Netns): MacvlanSpec | null {
    const link = needsLink(endpoint.delegate) ? this.#own(endpoint, netns) : null;
    const parent = this.#parents.find(macvlanOf(endpoint));
    if (link === null || parent === null || link.parentIndex !== parent.index) return null;
    return { ...specOf(endpoint, parent.index, netns), index: link.index };
  }

  /**
   * Makes the link in the container, down.
   * @throws LINK naming what is wrong with the parent, INTERFACE_EXISTS; nothing is left behind
   */
  async #begin(endpoint: Endpoint, netns: Netns): Promise<MacvlanSpec> {
    const parent = this.#parents.ready(macvlanOf(endpoint));
    refuseLargeMtu(endpoint.mtuBytes, parent);
    for (let attempt = 1; ; attempt++) {
      const chosen = specOf(endpoint, parent.index, netns);
      // A DHCP client knows the link by its index, which is the same when the link is made anew.
      const index = hostInterfaceIndex(endpoint.hostInterface);
      const spec = needsLink(endpoint.delegate) && attempt < 3 ? { ...chosen, index } : chosen;
      try {
        this.#host.batch(planLink(spec));
        return spec;
      } catch (error) {
        if (!(error instanceof KernelError) || error.errno !== 'EEXIST' || attempt === 3)
          throw explained(error, endpoint, parent);
        if (this.#inside(netns, (container) => container.link({ name: endpoint.interface })) !== null)
          throw new NetctlError(
            'INTERFACE_EXISTS',
            `the container already has an interface ${endpoint.interface}`,
            { interface: endpoint.interface },
          );
        // A chosen index was taken: another one.
      }
    }
  }

  /**
   * Brings the link up with its addresses and routes, and announces them. The policy must be in by now.
   * @throws DUPLICATE_ADDRESS when the host or somebody who answered for it has an address; LINK
   */
  async #finish(spec: MacvlanSpec, endpoint: Endpoint, netns: Netns): Promise<void> {
    const { duplicateDetection, parent } = macvlanOf(endpoint);
    if (spec.addresses.some((address) => familyOf(address) === 6)) this.#enableIpv6(spec.name, netns);
    const container = this.#linux.openRouting(netns);
    try {
      if (duplicateDetection !== 'off' || spec.addresses.length === 0)
        await this.#onceMacIsFree(container, planUp(spec));
      if (spec.addresses.length === 0) return;
      await this.#parents.refuseOwn(macvlanOf(endpoint), spec.addresses);
      if (duplicateDetection !== 'off') {
        const { index, mac, addresses } = spec;
        await this.#questions.refuseDuplicates(
          { linkIndex: index, netns, mac, addresses },
          duplicateDetection,
        );
      }
      await this.#onceMacIsFree(container, planContainer(spec));
      leadOut(container, spec, tableBeside(endpoint.hostInterface));
    } catch (error) {
      if (error instanceof KernelError && error.errno === 'EADDRINUSE')
        throw new NetctlError('LINK', `another interface on ${parent} has MAC ${spec.mac} already`, {
          parent,
          mac: spec.mac,
        });
      throw error instanceof KernelError
        ? new NetctlError('LINK', `cannot bring up the interface: ${error.message}`, {}, error)
        : error;
    } finally {
      container.close();
    }
    this.announce(endpoint, spec.index, netns);
  }

  /** The kernel clears namespaces in the background: a link whose container has just ended has its MAC for a moment yet. @throws KernelError */
  async #onceMacIsFree(container: Routing, requests: readonly RoutingRequest[]): Promise<void> {
    const end = this.#clock.monotonic() + macPatienceMs;
    for (let left = requests; ; ) {
      try {
        return container.batch(left);
      } catch (error) {
        const isTaken = error instanceof KernelError && error.errno === 'EADDRINUSE';
        if (!isTaken || this.#clock.monotonic() >= end) throw error;
        left = left.slice(error.position);
      }
      await pause(this.#clock, 20);
    }
  }

  /** @see announceOnWire */
  announce(endpoint: Endpoint, linkIndex: number, netns: Netns): void {
    announceOnWire(
      { linux: this.#linux, clock: this.#clock, logger: this.#logger },
      endpoint,
      linkIndex,
      netns,
    );
  }

  /** As of MacvlanParents. */
  mtuOf(wire: Wire, askedBytes: number): number {
    return this.#parents.mtuOf(wire, askedBytes);
  }

  /** Resolves when the link is gone, or was not there; so is it when its namespace is gone. */
  async unmake(endpoint: Endpoint): Promise<void> {
    await this.#policy.close(endpoint);
    const netns = reopen(this.#linux, endpoint);
    try {
      if (hasPair(endpoint)) await this.#pair.unmake(endpoint, netns);
      if (hasShim(endpoint)) await this.#shim.unmake(endpoint, parentName(macvlanOf(endpoint)));
      const link = netns && this.#own(endpoint, netns);
      if (link) await this.#linux.deleteLink(link.index, netns!);
    } finally {
      netns?.close();
    }
    await this.#policy.remove(endpoint);
  }

  /** Takes what led beside another default route out of a namespace that lives on. */
  endBeside({ hostInterface, addresses }: Endpoint, netns: Netns): void {
    endBeside(this.#linux, netns, addresses as Address[], tableBeside(hostInterface));
  }

  /** Whether the endpoint's link stands in the given namespace, on its parent. */
  stands(endpoint: Endpoint, netns: Netns): boolean {
    const { device, inode } = netns.identity;
    if (endpoint.netns.device !== device || endpoint.netns.inode !== inode) return false;
    const link = this.#own(endpoint, netns);
    const parent = this.#parents.find(macvlanOf(endpoint));
    const isPairRight = !hasPair(endpoint) || this.#pair.stands(endpoint);
    return link !== null && link.parentIndex === parent?.index && isPairRight;
  }

  /** Puts the way between host and container right, beside the link. Returns what was wrong, in words. @throws KernelError, LINK */
  async mend(endpoint: Endpoint, netns: Netns): Promise<readonly string[]> {
    if (hasPair(endpoint)) return this.#pair.mend(endpoint, netns);
    if (!hasShim(endpoint)) return [];
    const parent = this.#parents.ready(macvlanOf(endpoint));
    const container = this.#linux.openRouting(netns);
    try {
      const wrong = await this.#shim.inspect(endpoint, parent, container);
      if (wrong.length > 0) await this.#shim.make(endpoint, parent, netns);
      return wrong;
    } finally {
      container.close();
    }
  }

  /** Removes what no endpoint has: the host's own interfaces on parents, VLANs. Returns what, in words. @throws KernelError */
  async tidy(endpoints: Iterable<Endpoint>): Promise<string[]> {
    const all = [...endpoints].filter(({ kind }) => kind === 'macvlan');
    const users = all.filter(hasShim);
    return [
      ...(await this.#shim.tidy(users.map((endpoint) => [endpoint, parentName(macvlanOf(endpoint))]))),
      ...(await this.#parents.tidy(all.map(macvlanOf))).map((name) => `VLAN ${name}`),
    ];
  }

  /** As the network asks: nothing, a warning, or an error when a gateway of the wire does not answer. @throws GATEWAY_UNREACHABLE */
  async checkGateway(endpoint: Endpoint, netns: Netns): Promise<void> {
    const { gatewayCheck, subnets } = macvlanOf(endpoint);
    const gateways = [...new Set(subnets.flatMap(({ gateway }) => gateway ?? []))];
    if (gatewayCheck === 'off' || gateways.length === 0) return;
    const link = this.#own(endpoint, netns);
    if (link === null) return;
    const { mac, addresses } = endpoint;
    const asker = { linkIndex: link.index, netns, mac, addresses: addresses as Address[] };
    const silent = await this.#questions.silentOf(asker, gateways);
    if (silent.length === 0) return;
    const parent = parentName(macvlanOf(endpoint));
    const text = `gateway ${silent.join(', ')} does not answer on ${parent}`;
    if (gatewayCheck === 'require')
      throw new NetctlError('GATEWAY_UNREACHABLE', text, { gateways: silent, parent });
    this.#logger.warn({ containerId: endpoint.containerId, gateways: silent, parent }, text);
  }

  /** What is missing or wrong of the endpoint in the kernel, in words; empty when all is right. */
  async inspect(endpoint: Endpoint, netns: Netns): Promise<string[]> {
    const record = macvlanOf(endpoint);
    const parent = this.#parents.find(record);
    const link = this.#own(endpoint, netns);
    if (parent === null) return [`parent ${parentName(record)} is missing`];
    if (link === null)
      return [`interface ${endpoint.interface} with MAC ${endpoint.mac} is missing in the container`];
    const container = this.#linux.openRouting(netns);
    try {
      const present = (await container.addresses(link.index)).map(({ address }) => address);
      const routes = await container.routes({ everyTable: true });
      return [
        ...(hasPair(endpoint) ? await this.#pair.inspect(endpoint, container) : []),
        ...(hasShim(endpoint) ? await this.#shim.inspect(endpoint, parent, container) : []),
        ...(parent.up ? [] : [`parent ${parent.name} is down`]),
        ...(link.up ? [] : [`interface ${endpoint.interface} is down in the container`]),
        ...(link.parentIndex === parent.index
          ? []
          : [`interface ${endpoint.interface} is not on ${parent.name}`]),
        ...endpoint.addresses
          .filter((address) => !present.includes(address))
          .map((address) => `address ${address} is missing in the container`),
        ...missingRoutes(routesOf(endpoint.addresses as Address[], record), routes, link.index),
      ];
    } finally {
      container.close();
    }
  }

  close(): void {
    this.#host.close();
  }

  /** The endpoint's own link: by name and MAC, since a container may have an interface of that name from elsewhere. */
  #own(endpoint: Endpoint, netns: Netns): LinkInfo | null {
    const link = this.#inside(netns, (container) => container.link({ name: endpoint.interface }));
    const isPassthru = macvlanOf(endpoint).mode === 'passthru';
    return link?.type === 'macvlan' && (isPassthru || link.mac === endpoint.mac) ? link : null;
  }

  #inside<T>(netns: Netns, look: (container: Routing) => T): T {
    const container = this.#linux.openRouting(netns);
    try {
      return look(container);
    } finally {
      container.close();
    }
  }

  #enableIpv6(name: string, netns: Netns): void {
    const path = `net/ipv6/conf/${name}/disable_ipv6`;
    if (this.#linux.readSysctl(path, netns).trim() !== '0') this.#linux.writeSysctl(path, '0', netns);
  }
}

export function macvlanOf(endpoint: Endpoint): MacvlanRecord {
  if (endpoint.macvlan !== null) return endpoint.macvlan;
  throw new NetctlError('BUG', `endpoint of ${endpoint.containerId} is not a macvlan`);
}

function hasPair(endpoint: Endpoint): boolean {
  return macvlanOf(endpoint).hostAccess === 'veth';
}

function hasShim(endpoint: Endpoint): boolean {
  return macvlanOf(endpoint).hostAccess === 'shim';
}

function specOf(endpoint: Endpoint, parentIndex: number, netns: Netns): MacvlanSpec {
  const { mode, subnets, defaultRoute } = macvlanOf(endpoint);
  return {
    parentIndex,
    mode,
    name: endpoint.interface,
    index: twoIndexes()[0],
    netnsFd: netns.fd,
    mac: endpoint.mac,
    mtuBytes: endpoint.mtuBytes,
    addresses: endpoint.addresses as Address[],
    subnets,
    defaultRoute,
  };
}

function explained(error: unknown, endpoint: Endpoint, parent: LinkInfo): unknown {
  if (!(error instanceof KernelError)) return error;
  const { mode } = macvlanOf(endpoint);
  const hints: Readonly<Record<string, string>> = {
    EBUSY: `parent ${parent.name} is used by something that macvlan cannot share it with (a bridge?)`,
    EINVAL: `the kernel refuses mode ${mode} on parent ${parent.name}: it is no interface of a wire, or has a passthru, which is alone there`,
    EOPNOTSUPP: 'this kernel has no macvlan',
  };
  const why = hints[error.errno] ?? error.message;
  return new NetctlError('LINK', `cannot make the interface: ${why}`, { errno: error.errno }, error);
}
