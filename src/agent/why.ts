/**
 * Why one party reaches another, or does not: the chains of every host on the way, compiled anew from the store and interpreted.
 *
 *     records ──► one PolicyEngine per host on the way ──► Explainer ──► the rules met, and the verdict of each host
 *
 * Of a macvlan endpoint, its container decides, not its host, but for what goes between the two by their pair.
 *
 * In: two parties (an endpoint, an address, `host`), a protocol. Out: rules and verdict, host by host. Never: an answer from
 * what this host believes of another host's kernel: it is what the store says that should be there.
 */
import { NetctlError } from '../lib/errors.ts';
import { hostEndpointSchema } from '../model/host-endpoint.ts';
import { type Address, families, familyOf, parseAddress } from '../model/ip.ts';
import { nodeKey, parseKey } from '../model/keys.ts';
import { ICMP, ICMPV6 } from '../model/protocol.ts';
import { type Endpoint, endpointSchema, nodeSchema } from '../model/records.ts';
import type { EndpointToHost } from '../policy/compile-list.ts';
import { PolicyEngine } from '../policy/engine.ts';
import { Explainer, type Packet } from '../policy/explain.ts';
import type { Failsafe } from '../policy/host-endpoints.ts';
import type { PolicyOutput } from '../policy/output.ts';
import type { Entry } from '../store/store.ts';
import { quietPicture } from './quiet-picture.ts';
import { explainContainer } from './why-container.ts';
import {
  answerOf,
  type Found,
  type HostAnswer,
  hasPairBetween,
  isDeaf,
  noWay,
  type Party,
  type Place,
  placesOf,
} from './why-places.ts';

export interface WhyQuery {
  readonly source: string;
  readonly destination: string;
  /** `icmp`: an echo request. */
  readonly protocol: { readonly number: number; readonly port: number } | 'icmp';
  /** From which the client speaks. */
  readonly sourcePort?: number;
}

export interface WhyAnswer {
  readonly allowed: boolean;
  readonly source: Party;
  readonly destination: Party;
  /** In the order in which the packet meets them. */
  readonly hosts: HostAnswer[];
}

/** An interface that is none of ours, where nobody knows which. */
const ELSEWHERE = 'elsewhere';
/** Somewhere in the range that clients take their ports from. */
export const clientPort = 50_000;
const ECHO_REQUEST = { 4: 8, 6: 128 } as const;

export class Why {
  readonly #entries: readonly Entry[];
  readonly #node: string;
  readonly #options: { readonly endpointToHost: EndpointToHost; readonly failsafe: Failsafe };
  readonly #wayTo: (address: Address) => string | null;

  /**
   * @param node the one that `host` means
   * @param wayTo by which of its interfaces it reaches an address outside; null where that is not known
   */
  constructor(
    entries: readonly Entry[],
    node: string,
    options: { endpointToHost: EndpointToHost; failsafe: Failsafe },
    wayTo: (address: Address) => string | null = () => null,
  ) {
    this.#entries = entries;
    this.#node = node;
    this.#options = options;
    this.#wayTo = wayTo;
  }

  /** @throws NOT_FOUND, CONFLICT, INVALID */
  answer({ source: from, destination: to, protocol, sourcePort = clientPort }: WhyQuery): WhyAnswer {
    const [source, destination] = sameFamily(from, this.#find(from), to, this.#find(to));
    if (source.node === null && destination.node === null)
      throw new NetctlError(
        'INVALID',
        `neither ${from} nor ${to} is an endpoint or a host: netctl decides nothing about them`,
      );
    const about = { protocol, sourcePort };
    const hosts: HostAnswer[] = [];
    for (const place of placesOf(source, destination)) {
      const answer =
        'at' in place
          ? this.#judgeIn(place, source, destination, about)
          : this.#judge(place.node, source, destination, about);
      hosts.push(answer);
      if (answer.verdict === 'drop') break;
    }
    return {
      allowed: hosts.every(({ verdict }) => verdict !== 'drop'),
      source: partyOf(source),
      destination: partyOf(destination),
      hosts,
    };
  }

  #judge(node: string, source: Found, destination: Found, about: About): HostAnswer {
    const isPair = hasPairBetween(source, destination);
    const interfaceAt = (party: Found): string =>
      party.node === node && party.hostInterface !== null && (party.onWire === null || isPair)
        ? party.hostInterface
        : this.#uplinkOf(node, party.address);
    const packet: Packet = {
      ...packetOf(source.address, destination.address, about.protocol, about.sourcePort),
      inInterface: interfaceAt(source),
      outInterface: interfaceAt(destination),
    };
    const explainer = new Explainer();
    this.#engine(node, explainer);
    const led = packet.outInterface === '' ? explainer.led(packet) : null;
    if (led === null) return answerOf(node, null, explainer.judge(builtinOf(packet), packet));
    const holder = this.#endpoints().find(({ endpoint }) => endpoint.addresses.includes(led.address));
    const forwarded: Packet = {
      ...packet,
      destination: led.address,
      destinationPort: led.port,
      outInterface: holder?.endpoint.hostInterface ?? ELSEWHERE,
    };
    const { verdict, steps } = explainer.judge(builtinOf(forwarded), forwarded);
    return answerOf(node, null, { verdict, steps: [led, ...steps] });
  }

  /** Of another node it is what is configured there, or else what its host endpoints name, if that is one. */
  #uplinkOf(node: string, address: Address): string {
    const known = node === this.#node ? this.#wayTo(address) : null;
    if (known !== null) return known;
    const configured = nodeSchema.safeParse(this.#entries.find(({ key }) => key === nodeKey(node))?.value);
    if (configured.data?.interface) return configured.data.interface;
    const named = this.#entries.flatMap(({ key, value }) => {
      const parsed = parseKey(key);
      const isOfNode = parsed?.kind === 'host-endpoint' && parsed.node === node;
      const endpoint = isOfNode ? hostEndpointSchema.safeParse(value) : null;
      return endpoint?.success && endpoint.data.interface !== '*' ? [endpoint.data.interface] : [];
    });
    return named.length === 1 ? named[0]! : ELSEWHERE;
  }

  #judgeIn(
    { at, entry }: Extract<Place, { at: Found }>,
    source: Found,
    destination: Found,
    { protocol, sourcePort }: About,
  ): HostAnswer {
    const node = at.node!;
    if (isDeaf(source, destination)) return noWay(node, at);
    const ends = { inInterface: ELSEWHERE, outInterface: ELSEWHERE };
    const packet = { ...packetOf(source.address, destination.address, protocol, sourcePort), ...ends };
    const engine = this.#engine(node, new Explainer());
    const hostAddresses = this.#ofNode(node).map(({ address }) => address);
    return answerOf(
      node,
      at.endpoint,
      explainContainer(engine, at.onWire!, { node, hostAddresses }, entry, packet),
    );
  }

  /** Tells what the host's chains are to be. */
  #engine(node: string, output: PolicyOutput): PolicyEngine {
    const engine = new PolicyEngine(this.#options, output);
    quietPicture(node, engine).apply(
      this.#entries.map((entry) => ({ key: entry.key, entry })),
      0,
    );
    return engine;
  }

  /** All that the name may mean, one for each address. @throws NOT_FOUND, CONFLICT */
  #find(wanted: string): Found[] {
    if (wanted === 'host') return this.#ofNode(this.#node);
    const asNode = this.#ofNode(wanted);
    if (asNode.length > 0) return asNode;
    const endpoints = this.#endpoints();
    const named = (is: (text: string) => boolean): typeof endpoints =>
      endpoints.filter(({ id, endpoint }) => is(id) || is(endpoint.containerId));
    const exact = named((text) => text === wanted);
    const matches = exact.length > 0 ? exact : named((text) => text.startsWith(wanted) && wanted.length >= 4);
    if (matches.length > 1)
      throw new NetctlError(
        'CONFLICT',
        `${wanted} may mean ${matches.map(({ id }) => id).join(', ')}: give more of its id`,
      );
    const [match] = matches;
    if (match !== undefined) return match.endpoint.addresses.map((address) => foundOf(match, address));
    return [this.#byAddress(wanted, endpoints)];
  }

  #byAddress(text: string, endpoints: readonly KnownEndpoint[]): Found {
    let address: Address;
    try {
      address = parseAddress(text);
    } catch {
      throw new NetctlError(
        'NOT_FOUND',
        `there is no endpoint or node ${text}, and it is no address: see \`netctl endpoint show\``,
      );
    }
    const holder = endpoints.find(({ endpoint }) => endpoint.addresses.includes(address));
    if (holder !== undefined) return foundOf(holder, address);
    for (const { key, value } of this.#entries) {
      const parsed = parseKey(key);
      if (parsed?.kind !== 'node') continue;
      const node = nodeSchema.safeParse(value);
      if (node.success && [node.data.address4, node.data.address6].includes(address))
        return { address, node: parsed.node, endpoint: null, hostInterface: '', onWire: null };
    }
    return { address, node: null, endpoint: null, hostInterface: null, onWire: null };
  }

  #ofNode(name: string): Found[] {
    const entry = this.#entries.find(({ key }) => key === `nodes/${name}`);
    const node = nodeSchema.safeParse(entry?.value);
    if (!node.success) return [];
    const addresses = [node.data.address4, node.data.address6].filter((address) => address !== null);
    if (addresses.length === 0)
      throw new NetctlError(
        'INVALID',
        `node ${name} has no address in the store: set node.address4 or name an address instead`,
      );
    return addresses.map((address) => ({
      address,
      node: name,
      endpoint: null,
      hostInterface: '',
      onWire: null,
    }));
  }

  #endpoints(): KnownEndpoint[] {
    return this.#entries.flatMap(({ key, value }) => {
      const parsed = parseKey(key);
      const endpoint = parsed?.kind === 'endpoint' ? endpointSchema.safeParse(value) : null;
      return parsed?.kind === 'endpoint' && endpoint?.success
        ? [{ id: parsed.endpoint, node: parsed.node, endpoint: endpoint.data }]
        : [];
    });
  }
}

type About = Required<Pick<WhyQuery, 'protocol' | 'sourcePort'>>;

interface KnownEndpoint {
  readonly id: string;
  readonly node: string;
  readonly endpoint: Endpoint;
}

/** Where the kernel takes it. */
function builtinOf({ inInterface, outInterface }: Packet): 'OUTPUT' | 'INPUT' | 'FORWARD' {
  return inInterface === '' ? 'OUTPUT' : outInterface === '' ? 'INPUT' : 'FORWARD';
}

function foundOf({ id, node, endpoint }: KnownEndpoint, address: Address): Found {
  const onWire = endpoint.kind === 'macvlan' ? endpoint : null;
  return { address, node, endpoint: id, hostInterface: endpoint.hostInterface, onWire };
}

function partyOf({ address, node, endpoint }: Found): Party {
  return { address, node, endpoint };
}

/** IPv4 where both have it. */
function sameFamily(
  from: string,
  sources: readonly Found[],
  to: string,
  destinations: readonly Found[],
): [Found, Found] {
  for (const family of families) {
    const has = ({ address }: Found): boolean => familyOf(address) === family;
    const [source, destination] = [sources.find(has), destinations.find(has)];
    if (source !== undefined && destination !== undefined) return [source, destination];
  }
  throw new NetctlError('INVALID', `${from} and ${to} have no addresses of the same family`);
}

/** The first packet of a connection, as far as it does not depend on the host. */
export function packetOf(
  source: Address,
  destination: Address,
  protocol: WhyQuery['protocol'],
  sourcePort: number,
): Omit<Packet, 'inInterface' | 'outInterface'> {
  const ends = { source, destination };
  if (protocol !== 'icmp')
    return { ...ends, protocol: protocol.number, sourcePort, destinationPort: protocol.port, icmp: null };
  const family = familyOf(source);
  return {
    ...ends,
    protocol: family === 4 ? ICMP : ICMPV6,
    sourcePort: null,
    destinationPort: null,
    icmp: { type: ECHO_REQUEST[family], code: 0 },
  };
}
