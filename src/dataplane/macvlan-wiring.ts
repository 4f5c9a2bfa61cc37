/**
 * Links of macvlan endpoints: makes them for an ADD, tells the wire who has the address now, takes them away for a DEL, and says what
 * is wrong with one.
 *
 * In: endpoints as the store has them, an open namespace. Out: netlink batches and frames (planned in src/macvlan). Never: a link in
 * the container that is not the endpoint's own touched; an address used that somebody else answered for; a wait for announcements
 * (the later ones follow in the background).
 */
import type { Clock } from '../lib/clock.ts';
import { NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import { KernelError, type LinkInfo, type Linux, type Netns, type Routing } from '../linux/ports.ts';
import { announcement, etherTypes, probe, readClaim } from '../macvlan/frames.ts';
import { type MacvlanSpec, planContainer, planLink, planUp } from '../macvlan/plan.ts';
import { type Address, familyOf } from '../model/ip.ts';
import type { DuplicateDetection, MacvlanRecord } from '../model/macvlan.ts';
import type { Endpoint } from '../model/records.ts';
import { HostPair } from './host-pair.ts';
import { twoIndexes } from './indexes.ts';
import { reopen } from './reopen.ts';
import type { Wiring } from './wiring.ts';

/** What must hold at each step of a link's life (macvlan-policy.ts). */
export interface LinkPolicy {
  /** The link is there, down. @throws KernelError */
  bring(endpoint: Endpoint, netns: Netns): Promise<void>;
  /** The link is up, and nobody else has its addresses. @throws KernelError */
  settle(endpoint: Endpoint): Promise<void>;
  /** The link is about to go. */
  close(endpoint: Endpoint): Promise<void>;
  /** The link is gone. @throws KernelError */
  remove(endpoint: Endpoint): Promise<void>;
}

type Wire = Pick<MacvlanRecord, 'parent' | 'vlan'>;

/** Milliseconds after the first announcement: a frame may be lost, a neighbour busy. */
const repeatedAnnouncements = [1000, 2000];
/** Pauses after each probe, in milliseconds. The long ones are RFC 5227's PROBE_MIN to PROBE_MAX and ANNOUNCE_WAIT. */
const probePauses: Readonly<Record<DuplicateDetection, readonly number[]>> = {
  off: [],
  fast: [100, 100],
  rfc5227: [1500, 1500, 2000],
};

export class MacvlanWiring implements Wiring {
  readonly #linux: Linux;
  readonly #host: Routing;
  readonly #policy: LinkPolicy;
  readonly #pair: HostPair;
  readonly #clock: Clock;
  readonly #logger: Logger;

  /** @param hostAddresses of this node, by which its containers know it */
  constructor(
    linux: Linux,
    policy: LinkPolicy,
    hostAddresses: readonly Address[],
    clock: Clock,
    logger: Logger,
  ) {
    this.#policy = policy;
    this.#linux = linux;
    this.#host = linux.openRouting();
    this.#pair = new HostPair(linux, this.#host, hostAddresses);
    this.#clock = clock;
    this.#logger = logger;
  }

  async make(endpoint: Endpoint, netns: Netns): Promise<void> {
    const spec = await this.#begin(endpoint, netns);
    await this.#policy.bring(endpoint, netns);
    await this.#finish(spec, endpoint, netns);
    await this.#policy.settle(endpoint);
    if (hasPair(endpoint)) this.#pair.make(endpoint, netns);
  }

  /**
   * Makes the link in the container, down.
   * @throws LINK naming what is wrong with the parent, INTERFACE_EXISTS; nothing is left behind
   */
  async #begin(endpoint: Endpoint, netns: Netns): Promise<MacvlanSpec> {
    const parent = this.#parent(macvlanOf(endpoint));
    if (endpoint.mtuBytes > parent.mtuBytes)
      throw new NetctlError(
        'LINK',
        `MTU ${endpoint.mtuBytes} is more than the ${parent.mtuBytes} of parent ${parent.name}`,
        { parent: parent.name, mtuBytes: parent.mtuBytes },
      );
    for (let attempt = 1; ; attempt++) {
      const spec = specOf(endpoint, parent.index, netns);
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
   * @throws DUPLICATE_ADDRESS when somebody else answered for an address; LINK
   */
  async #finish(spec: MacvlanSpec, endpoint: Endpoint, netns: Netns): Promise<void> {
    const { duplicateDetection, parent } = macvlanOf(endpoint);
    if (spec.addresses.some((address) => familyOf(address) === 6)) this.#enableIpv6(spec.name, netns);
    const container = this.#linux.openRouting(netns);
    try {
      if (duplicateDetection !== 'off') {
        container.batch(planUp(spec));
        await this.#refuseDuplicates(spec, duplicateDetection, netns);
      }
      container.batch(planContainer(spec));
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

  /** Tells the wire that the endpoint's addresses are at its MAC: now, and twice more within two seconds. */
  announce(endpoint: Endpoint, linkIndex: number, netns: Netns): void {
    for (const family of [4, 6] as const) {
      const frames = endpoint.addresses
        .filter((address) => familyOf(address) === family)
        .flatMap((address) => announcement(address, endpoint.mac));
      if (frames.length === 0) continue;
      const packets = this.#linux.openPackets(linkIndex, etherTypes[family], null, netns);
      const send = (): void => {
        try {
          for (const frame of frames) packets.send(frame);
        } catch (error) {
          this.#logger.debug(
            { containerId: endpoint.containerId, error: String(error) },
            'an announcement was not sent',
          );
        }
      };
      send();
      repeatedAnnouncements.forEach((delay, at) => {
        this.#clock.setTimer(delay, () => {
          send();
          if (at === repeatedAnnouncements.length - 1) packets.close();
        });
      });
    }
  }

  /** MTU of the parent, which an endpoint gets that asks for none. @throws LINK */
  mtuOf(wire: Wire): number {
    return this.#parent(wire).mtuBytes;
  }

  /** Resolves when the link is gone, or was not there; so is it when its namespace is gone. */
  async unmake(endpoint: Endpoint): Promise<void> {
    await this.#policy.close(endpoint);
    if (hasPair(endpoint)) await this.#pair.unmake(endpoint);
    await this.#removeLink(endpoint);
    await this.#policy.remove(endpoint);
  }

  async #removeLink(endpoint: Endpoint): Promise<void> {
    const netns = reopen(this.#linux, endpoint);
    if (netns === null) return;
    try {
      const link = this.#own(endpoint, netns);
      if (link !== null) await this.#linux.deleteLink(link.index, netns);
    } finally {
      netns.close();
    }
  }

  /** Whether the endpoint's link stands in the given namespace, on its parent. */
  stands(endpoint: Endpoint, netns: Netns): boolean {
    const { device, inode } = netns.identity;
    if (endpoint.netns.device !== device || endpoint.netns.inode !== inode) return false;
    const link = this.#own(endpoint, netns);
    const parent = this.#host.link({ name: parentName(macvlanOf(endpoint)) });
    const isPairRight = !hasPair(endpoint) || this.#pair.stands(endpoint);
    return link !== null && link.parentIndex === parent?.index && isPairRight;
  }

  /** What is missing or wrong of the endpoint in the kernel, in words; empty when all is right. */
  async inspect(endpoint: Endpoint, netns: Netns): Promise<string[]> {
    const record = macvlanOf(endpoint);
    const parent = this.#host.link({ name: parentName(record) });
    const link = this.#own(endpoint, netns);
    if (parent === null) return [`parent ${parentName(record)} is missing`];
    if (link === null)
      return [`interface ${endpoint.interface} with MAC ${endpoint.mac} is missing in the container`];
    const container = this.#linux.openRouting(netns);
    try {
      const present = (await container.addresses(link.index)).map(({ address }) => address);
      const routes = await container.routes();
      const gateways = record.defaultRoute ? record.subnets.flatMap(({ gateway }) => gateway ?? []) : [];
      return [
        ...(hasPair(endpoint) ? this.#pair.inspect(endpoint) : []),
        ...(parent.up ? [] : [`parent ${parent.name} is down`]),
        ...(link.up ? [] : [`interface ${endpoint.interface} is down in the container`]),
        ...(link.parentIndex === parent.index
          ? []
          : [`interface ${endpoint.interface} is not on ${parent.name}`]),
        ...endpoint.addresses
          .filter((address) => !present.includes(address))
          .map((address) => `address ${address} is missing in the container`),
        ...[...new Set(gateways)]
          .filter((gateway) => !routes.some((route) => route.gateway === gateway))
          .map((gateway) => `the default route by way of ${gateway} is missing in the container`),
      ];
    } finally {
      container.close();
    }
  }

  close(): void {
    this.#host.close();
  }

  #parent(record: Wire): LinkInfo {
    const name = parentName(record);
    const refuse = (why: string): NetctlError =>
      new NetctlError('LINK', `parent ${name} ${why}`, { parent: name });
    const link = this.#host.link({ name });
    if (link === null)
      throw refuse(
        record.vlan === null
          ? 'does not exist on this host'
          : `does not exist: make VLAN ${record.vlan} on it first`,
      );
    if (!link.up) throw refuse('is down');
    if (link.masterIndex !== null) throw refuse('is a port of a bridge or bond: take that one as the parent');
    return link;
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

  async #refuseDuplicates(spec: MacvlanSpec, detection: DuplicateDetection, netns: Netns): Promise<void> {
    const { promise: conflict, reject } = Promise.withResolvers<never>();
    conflict.catch(() => undefined);
    const hear = (frame: Buffer): void => {
      const claim = readClaim(frame);
      if (claim === null || claim.mac === spec.mac || !spec.addresses.includes(claim.address)) return;
      const { address, mac } = claim;
      reject(
        new NetctlError('DUPLICATE_ADDRESS', `address ${address} is in use by ${mac} on the wire`, {
          address,
          mac,
        }),
      );
    };
    const sockets = new Map(
      [...new Set(spec.addresses.map(familyOf))].map((family) => [
        family,
        this.#linux.openPackets(spec.index, etherTypes[family], hear, netns),
      ]),
    );
    try {
      for (const pause of probePauses[detection]) {
        for (const address of spec.addresses) sockets.get(familyOf(address))?.send(probe(address, spec.mac));
        await Promise.race([conflict, this.#pause(pause)]);
      }
    } finally {
      for (const socket of sockets.values()) socket.close();
    }
  }

  #pause(milliseconds: number): Promise<void> {
    return new Promise((resolve) => void this.#clock.setTimer(milliseconds, resolve));
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

/** A VLAN of a parent is a link of its own, named as everybody names it. */
export function parentName({ parent, vlan }: Wire): string {
  return vlan === null ? parent : `${parent}.${vlan}`;
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
    EINVAL: `the kernel refuses mode ${mode} on parent ${parent.name}: passthru is alone on its parent`,
    EOPNOTSUPP: 'this kernel has no macvlan',
  };
  const why = hints[error.errno] ?? error.message;
  return new NetctlError('LINK', `cannot make the interface: ${why}`, { errno: error.errno }, error);
}
