/**
 * Makes the pair of a routed endpoint, in the batches that src/veth plans.
 *
 * In: an endpoint as the store has it (or, for the pair alone, is about to have it), an open namespace. Out: a link that stands on both ends,
 * or the cause in our words. Never: a link left behind by a host batch that failed half-way; a batch for the container where the host's was
 * refused; anything that leads to an endpoint before its record and its policy.
 */
import { NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import { KernelError, type Linux, type Netns, type Routing } from '../linux/ports.ts';
import { hostInterfaceIndex } from '../model/attachment.ts';
import { type Address, familyOf } from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';
import {
  planBeside,
  planContainer,
  planHost,
  planHostRoutes,
  planPair,
  type VethSpec,
} from '../veth/plan.ts';
import { twoIndexes } from './indexes.ts';
import { isErrno } from './is-errno.ts';

export interface PairMakerParts {
  readonly linux: Linux;
  /** Of the agent's namespace. */
  readonly host: Routing;
  readonly logger: Logger;
  /** Those of its addresses that the other hosts must be told of. */
  announcedOf(endpoint: Endpoint): ReadonlySet<Address>;
}

/** A pair that is being made while its record is committed. */
interface Ahead {
  readonly spec: VethSpec;
  readonly finish: () => KernelError | null;
}

export class PairMaker {
  readonly #parts: PairMakerParts;
  /** By the host's interface. */
  readonly #ahead = new Map<string, Ahead>();

  constructor(parts: PairMakerParts) {
    this.#parts = parts;
  }

  /** Begins the pair of an endpoint whose record is about to be committed; `make` or `forsake` is to follow, before the namespace is closed. */
  prepare(endpoint: Endpoint, netns: Netns): void {
    if (isInParts(endpoint) || this.#ahead.has(endpoint.hostInterface)) return;
    const spec = this.#spec(endpoint, netns, 1);
    const finish = this.#parts.linux.ahead(planPair(spec));
    if (finish !== null) this.#ahead.set(endpoint.hostInterface, { spec, finish });
  }

  /** Waits for the end of what `prepare` began and nobody has taken over. True: its link may be there. */
  forsake(hostInterface: string): boolean {
    const ahead = this.#ahead.get(hostInterface);
    if (ahead === undefined) return false;
    this.#ahead.delete(hostInterface);
    try {
      ahead.finish();
    } catch {
      // It could not even be sent.
    }
    return true;
  }

  async make(endpoint: Endpoint, netns: Netns): Promise<void> {
    if (isInParts(endpoint)) return this.finish(await this.begin(endpoint, netns), netns);
    const planned = this.#spec(endpoint, netns, 1);
    const ahead = await this.#prepared(planned, netns);
    const spec = ahead ?? planned;
    // No setting of the kernel stands between the batches: they go in one piece, beside those of others.
    const refusal = await this.#parts.linux.batches([
      {
        requests:
          ahead === null
            ? planHost(spec)
            : planHostRoutes(spec.hostIndex, spec.mac, spec.addresses, spec.announced),
      },
      { netns, requests: planContainer(spec) },
      { requests: [{ kind: 'link-settle', index: spec.hostIndex }] },
    ]);
    if (refusal === null) return;
    if (refusal.batch === 0) {
      if (ahead !== null) await this.#parts.linux.deleteLink(spec.hostIndex);
      await this.#explain(refusal.error, spec, netns, 1);
      return this.finish(await this.begin(endpoint, netns, 2), netns);
    }
    if (refusal.batch > 1) throw refusal.error;
    this.#inside(netns, (container) => this.#goBeside(refusal.error, spec, container));
    this.#settle(spec);
  }

  /**
   * Makes the pair and the host's side; the container's end is there but down until `finish`.
   * @throws INTERFACE_EXISTS when the container has an interface of that name; KernelError; nothing is left behind
   */
  async begin(endpoint: Endpoint, netns: Netns, firstAttempt = 1): Promise<VethSpec> {
    for (let attempt = firstAttempt; ; attempt++) {
      const spec = this.#spec(endpoint, netns, attempt);
      try {
        this.#parts.host.batch(planHost(spec));
        this.loosenReversePath(endpoint);
        return spec;
      } catch (error) {
        await this.#explain(error, spec, netns, attempt);
      }
    }
  }

  /**
   * Lets packets with an extra source pass the kernel's own reverse path filter, where that is strict: loose (2) wins over the strict
   * setting for all interfaces. Does nothing while the interface is not there.
   */
  loosenReversePath({ hostInterface, extraSources }: Endpoint): void {
    if (!extraSources.some((net) => familyOf(net) === 4)) return;
    if (this.#parts.host.link({ name: hostInterface }) === null) return;
    const path = (name: string): string => `net/ipv4/conf/${name}/rp_filter`;
    const isStrict = (name: string): boolean => this.#parts.linux.readSysctl(path(name)).trim() === '1';
    const own = this.#parts.linux.readSysctl(path(hostInterface)).trim();
    if (own === '1' || (own === '0' && isStrict('all'))) {
      this.#parts.linux.writeSysctl(path(hostInterface), '2');
      this.#parts.logger.info(
        { interface: hostInterface },
        'reverse path filter is loose, for extra sources',
      );
    }
  }

  /** Brings the container's end up with its addresses and routes. The policy must be in the kernel by now. */
  finish(spec: VethSpec, netns: Netns): void {
    if (spec.addresses.some((address) => familyOf(address) === 6))
      this.#enableIpv6(spec.containerInterface, netns);
    this.#inside(netns, (container) => {
      try {
        container.batch(planContainer(spec));
      } catch (error) {
        this.#goBeside(error, spec, container);
      }
    });
    this.#settle(spec);
  }

  /** A container that has a default route already keeps it: that the batch was refused for it is no error. @throws any other */
  #goBeside(error: unknown, spec: VethSpec, container: Routing): void {
    const isBeside =
      error instanceof KernelError &&
      error.errno === 'EEXIST' &&
      planContainer(spec)[error.position]?.kind === 'route-add';
    if (!isBeside) throw error;
    for (const request of planBeside(spec)) {
      try {
        container.batch([request]);
      } catch (refusal) {
        if (!isErrno(refusal, 'EEXIST')) throw refusal;
      }
    }
  }

  #inside(netns: Netns, act: (container: Routing) => void): void {
    const container = this.#parts.linux.openRouting(netns);
    try {
      act(container);
    } finally {
      container.close();
    }
  }

  /** Reading the link makes the kernel settle its carrier: without that the first packets may meet a noop queue. */
  #settle(spec: VethSpec): void {
    this.#parts.host.link({ index: spec.hostIndex });
  }

  /** The endpoint as it was planned in the end, with the pair that was made ahead; null: there is none that would do, and none is left. */
  async #prepared(spec: VethSpec, netns: Netns): Promise<VethSpec | null> {
    const ahead = this.#ahead.get(spec.hostInterface);
    if (ahead === undefined) return null;
    this.#ahead.delete(spec.hostInterface);
    const refused = ahead.finish();
    const { hostIndex, containerIndex, mac, mtuBytes } = ahead.spec;
    if (refused !== null) await this.#explain(refused, ahead.spec, netns, 1);
    else if (mac === spec.mac && mtuBytes === spec.mtuBytes) return { ...spec, hostIndex, containerIndex };
    // A lost race for the address: its pair has another MAC.
    else await this.#parts.linux.deleteLink(hostIndex);
    return null;
  }

  /** The index that belongs to the name may be another link's: the third attempt takes any. */
  #spec(endpoint: Endpoint, netns: Netns, attempt: number): VethSpec {
    const [anyIndex, containerIndex] = twoIndexes();
    const hostIndex = attempt < 3 ? hostInterfaceIndex(endpoint.hostInterface) : anyIndex;
    return {
      hostInterface: endpoint.hostInterface,
      hostIndex,
      containerInterface: endpoint.interface,
      containerIndex,
      netnsFd: netns.fd,
      mac: endpoint.mac,
      mtuBytes: endpoint.mtuBytes,
      addresses: endpoint.addresses,
      announced: this.#parts.announcedOf(endpoint),
    };
  }

  /** After a failed host batch: rolls back, then throws the cause in our words, or returns when another attempt makes sense. */
  async #explain(error: unknown, spec: VethSpec, netns: Netns, attempt: number): Promise<void> {
    if (!(error instanceof KernelError)) throw error;
    if (error.position > 0) await this.#parts.linux.deleteLink(spec.hostIndex);
    else if (error.errno === 'EEXIST' || error.errno === 'EBUSY') {
      const container = this.#parts.linux.openRouting(netns);
      const taken = container.link({ name: spec.containerInterface });
      container.close();
      if (taken !== null) {
        throw new NetctlError(
          'INTERFACE_EXISTS',
          `the container already has an interface ${spec.containerInterface}`,
          { interface: spec.containerInterface },
        );
      }
      // A pair of ours whose container end sits elsewhere is a left-over; otherwise a chosen index was taken.
      await this.#parts.linux.deleteLink({ name: spec.hostInterface });
      if (attempt < 3) return;
    }
    throw new NetctlError(
      'LINK',
      `cannot make the interface: ${error.message}`,
      { errno: error.errno },
      error,
    );
  }

  /** Docker's namespaces begin with IPv6 switched off; an endpoint with an IPv6 address asks for it. */
  #enableIpv6(containerInterface: string, netns: Netns): void {
    const path = `net/ipv6/conf/${containerInterface}/disable_ipv6`;
    if (this.#parts.linux.readSysctl(path, netns).trim() !== '0')
      this.#parts.linux.writeSysctl(path, '0', netns);
  }
}

/** Settings of the kernel stand between its batches. */
function isInParts({ extraSources, addresses }: Endpoint): boolean {
  return extraSources.length > 0 || addresses.some((address) => familyOf(address) === 6);
}
