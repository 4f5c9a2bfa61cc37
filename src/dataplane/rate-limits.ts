/**
 * Rate limits of endpoints in the kernel: a token bucket for what leaves by the endpoint's link, and one on a queue interface (an ifb)
 * that what arrives is led through. A routed endpoint's link is the host's end of its pair, a macvlan's the one in the container; beside that
 * there may be the pair by which its host and it reach each other: what arrives by either is counted together, what is sent by each alone.
 *
 * In: endpoints as the store has them, whose links stand. Out: netlink batches; what is wrong, in words. Never: a bucket or queue of
 * somebody else (a CNI plugin after us) touched, a bucket too small for the rate, a queue interface left when its endpoint is gone.
 */
import { NetctlError } from '../lib/errors.ts';
import type { QdiscInfo, TokenBucket } from '../linux/link-kinds.ts';
import { noOwnAddresses } from '../linux/own-addresses.ts';
import {
  KernelError,
  type LinkInfo,
  type Linux,
  type Netns,
  type Routing,
  type RoutingRequest,
} from '../linux/ports.ts';
import { queueInterfaceName, queueInterfacePrefix } from '../model/attachment.ts';
import { noLimits } from '../model/rate-limits.ts';
import type { Endpoint } from '../model/records.ts';
import { insideName } from './host-pair.ts';
import { twoIndexes } from './indexes.ts';
import { reopen } from './reopen.ts';

interface Rate {
  readonly bitsPerSecond: number;
  readonly burstBytes: number | null;
}

/** Of an endpoint's links: what they send, what they receive. */
interface Wanted {
  readonly sent: Rate | null;
  readonly received: Rate | null;
}

interface Found {
  readonly links: readonly LinkInfo[];
  readonly queue: LinkInfo | null;
  readonly qdiscs: readonly QdiscInfo[];
}

export class RateLimiter {
  readonly #linux: Linux;
  readonly #host: Routing;

  constructor(linux: Linux) {
    this.#linux = linux;
    this.#host = linux.openRouting();
  }

  /** Makes the kernel's limits what the record says. @throws LINK; what is left, `remove` takes away */
  async apply(endpoint: Endpoint, netns: Netns): Promise<void> {
    await this.#at(endpoint, netns, async (routing) => {
      const found = await look(routing, endpoint);
      if (found === null) return;
      try {
        routing.batch(plan(found, wantedOf(endpoint), endpoint));
      } catch (error) {
        if (!(error instanceof KernelError)) throw error;
        throw new NetctlError(
          'LINK',
          `cannot limit the rate: ${error.message}`,
          { errno: error.errno },
          error,
        );
      }
    });
  }

  /** What is wrong, in words; empty when all is right. */
  async inspect(endpoint: Endpoint, netns: Netns): Promise<string[]> {
    return this.#at(endpoint, netns, async (routing) => {
      const found = await look(routing, endpoint);
      return found === null ? [] : problems(found, wantedOf(endpoint));
    });
  }

  /** Those of the given endpoints whose limits are not what they should be. */
  async wrong(endpoints: Iterable<readonly [string, Endpoint]>): Promise<string[]> {
    const links = new Map((await this.#host.links()).map((link) => [link.name, link]));
    const qdiscs = Map.groupBy(await this.#host.qdiscs(), ({ linkIndex }) => linkIndex);
    const ids: string[] = [];
    for (const [id, endpoint] of endpoints) {
      if (endpoint.kind === 'macvlan') {
        const netns = reopen(this.#linux, endpoint);
        if (netns === null) continue;
        try {
          if ((await this.inspect(endpoint, netns)).length > 0) ids.push(id);
        } finally {
          netns.close();
        }
        continue;
      }
      const link = links.get(endpoint.hostInterface);
      if (link === undefined) continue;
      const queue = links.get(queueInterfaceName(endpoint.hostInterface)) ?? null;
      const found = { links: [link], queue, qdiscs: ofThese(qdiscs, [link], queue) };
      if (problems(found, wantedOf(endpoint)).length > 0) ids.push(id);
    }
    return ids;
  }

  /** Takes the queue interface away; the rest went with the endpoint's link. */
  async remove(endpoint: Endpoint): Promise<void> {
    if (endpoint.rateLimits === null) return;
    const netns = endpoint.kind === 'macvlan' ? reopen(this.#linux, endpoint) : null;
    if (endpoint.kind === 'macvlan' && netns === null) return;
    const routing = netns === null ? this.#host : this.#linux.openRouting(netns);
    try {
      const queue = routing.link({ name: queueInterfaceName(endpoint.hostInterface) });
      if (queue !== null) await this.#linux.deleteLink(queue.index, netns ?? undefined);
    } finally {
      if (netns !== null) routing.close();
      netns?.close();
    }
  }

  /** Queue interfaces of the host, by name. */
  async queues(): Promise<Map<string, LinkInfo>> {
    const links = (await this.#host.links()).filter(
      ({ name, type }) => type === 'ifb' && name.startsWith(queueInterfacePrefix),
    );
    return new Map(links.map((link) => [link.name, link]));
  }

  close(): void {
    this.#host.close();
  }

  async #at<T>({ kind }: Endpoint, netns: Netns, act: (routing: Routing) => Promise<T>): Promise<T> {
    if (kind !== 'macvlan') return act(this.#host);
    const container = this.#linux.openRouting(netns);
    try {
      return await act(container);
    } finally {
      container.close();
    }
  }
}

/** What the container receives, the host's end of its pair sends. */
function wantedOf({ kind, rateLimits }: Endpoint): Wanted {
  const limits = rateLimits ?? noLimits;
  const rate = (bits: number | null, burstBytes: number | null): Rate | null =>
    bits === null ? null : { bitsPerSecond: bits, burstBytes };
  const into = rate(limits.inBitsPerSecond, limits.inBurstBytes);
  const out = rate(limits.outBitsPerSecond, limits.outBurstBytes);
  return kind === 'macvlan' ? { sent: out, received: into } : { sent: into, received: out };
}

/** null: the endpoint has no link of its own there. */
async function look(routing: Routing, endpoint: Endpoint): Promise<Found | null> {
  const links = linkNames(endpoint).map((name) => routing.link({ name }));
  if (links[0] === null) return null;
  const there = links.filter((link) => link !== null);
  const queue = routing.link({ name: queueInterfaceName(endpoint.hostInterface) });
  const qdiscs = Map.groupBy(await routing.qdiscs(), ({ linkIndex }) => linkIndex);
  return { links: there, queue, qdiscs: ofThese(qdiscs, there, queue) };
}

/** Its own first. */
function linkNames(endpoint: Endpoint): string[] {
  if (endpoint.kind !== 'macvlan') return [endpoint.hostInterface];
  return [endpoint.interface, ...(endpoint.macvlan?.hostAccess === 'veth' ? [insideName(endpoint)] : [])];
}

function ofThese(
  qdiscs: ReadonlyMap<number, QdiscInfo[]>,
  links: readonly LinkInfo[],
  queue: LinkInfo | null,
): QdiscInfo[] {
  return [...links, queue].flatMap((each) => (each === null ? [] : (qdiscs.get(each.index) ?? [])));
}

function problems({ links, queue, qdiscs }: Found, { sent, received }: Wanted): string[] {
  const names = links.map(({ name }) => name).join(' and ');
  return [
    ...links.flatMap((link) => wrongRate(link, ownRate(qdiscs, link), sent)),
    ...(received === null
      ? queue === null
        ? []
        : [`queue interface ${queue.name} is there without a limit`]
      : queue === null
        ? [`the queue interface of ${names} is missing`]
        : [
            ...(queue.up ? [] : [`queue interface ${queue.name} is down`]),
            ...links
              .filter((link) => !hasIngress(qdiscs, link))
              .map(({ name }) => `what arrives on ${name} is not led through ${queue.name}`),
            ...wrongRate(queue, ownRate(qdiscs, queue), received),
          ]),
  ];
}

function wrongRate({ name }: LinkInfo, is: number | null, wanted: Rate | null): string[] {
  const should = wanted === null ? null : wholeBytes(wanted.bitsPerSecond);
  return is === should ? [] : [`the limit of ${name} is ${is ?? 'none'}, not ${should ?? 'none'} (bit/s)`];
}

/** Rates are set again though they stand: the burst may be another. */
function plan({ links, queue, qdiscs }: Found, wanted: Wanted, { hostInterface, mtuBytes }: Endpoint) {
  const led = links.filter((link) => hasIngress(qdiscs, link));
  const requests: RoutingRequest[] = [];
  const endLeading = (): void => {
    for (const { index } of led) requests.push({ kind: 'unredirect-ingress', index });
  };
  for (const link of links) {
    if (wanted.sent !== null)
      requests.push({ kind: 'shape', index: link.index, bucket: bucketOf(wanted.sent) });
    else if (ownRate(qdiscs, link) !== null) requests.push({ kind: 'unshape', index: link.index });
  }
  if (wanted.received === null) {
    if (queue === null) return requests;
    endLeading();
    requests.push({ kind: 'link-delete', index: queue.index });
    return requests;
  }
  const index = queue?.index ?? twoIndexes()[0];
  if (queue === null) {
    // What leads to an interface that is gone drops everything.
    endLeading();
    requests.push({ kind: 'ifb-add', link: { name: queueInterfaceName(hostInterface), index, mtuBytes } });
    requests.push(...noOwnAddresses(index, mtuBytes));
  }
  requests.push({ kind: 'shape', index, bucket: bucketOf(wanted.received) });
  if (queue?.up !== true) requests.push({ kind: 'link-set', index, up: true });
  for (const link of links)
    if (queue === null || !led.includes(link))
      requests.push({ kind: 'redirect-ingress', index: link.index, toIndex: index });
  return requests;
}

function hasIngress(qdiscs: readonly QdiscInfo[], { index }: LinkInfo): boolean {
  return qdiscs.some(({ linkIndex, place }) => linkIndex === index && place === 'ingress');
}

function ownRate(qdiscs: readonly QdiscInfo[], { index }: LinkInfo): number | null {
  return qdiscs.find(({ linkIndex, isOurs }) => linkIndex === index && isOurs)?.rateBitsPerSecond ?? null;
}

/** A bucket must hold what comes between two looks of a coarse clock (10 ms), and one large segment of TCP. */
export function bucketOf({ bitsPerSecond, burstBytes }: Rate): TokenBucket {
  const rateBitsPerSecond = wholeBytes(bitsPerSecond);
  const bytesPerSecond = rateBitsPerSecond / 8;
  const burst = Math.min(
    Math.max(leastBurstBytes, Math.ceil(bytesPerSecond / 100), burstBytes ?? 0),
    2 ** 31,
  );
  const queueBytes = Math.min(burst + Math.ceil(bytesPerSecond * queueSeconds), 2 ** 32 - 1);
  return { rateBitsPerSecond, burstBytes: burst, queueBytes };
}

const leastBurstBytes = 65_536;
/** How long a packet may wait; what comes beyond is dropped. */
const queueSeconds = 0.05;

/** The kernel counts in bytes. */
function wholeBytes(bitsPerSecond: number): number {
  return Math.floor(bitsPerSecond / 8) * 8;
}
