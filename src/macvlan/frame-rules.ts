/**
 * Rules for whole frames (pure): what a macvlan endpoint may call itself on the wire, judged where packets have no connection.
 *
 *     guard, on the parent's device in the host      frames from and to MACs that are ours: each with an address of its endpoint;
 *                                                    nobody else claims such an address; nothing of endpoints that are closed
 *     inside, on the macvlan's device                what leaves has the endpoint's MAC; ARP and neighbour advertisements tell of its
 *                                                    own addresses; what goes to many comes from one of them (of siblings' broadcasts,
 *                                                    the parent's device sees nothing)
 *
 * In: a family, an endpoint's MAC. Out: rules as expressions, named. Never: a frame of the parent's own or of somebody else's macvlan
 * judged; a connection asked about (the kernel has none there).
 */
import type { NftExpression, NftSetSpec, NftVerdict } from '../linux/nftables-port.ts';
import { addressBits, type Family } from '../model/ip.ts';
import { type Mac, macBytes } from '../model/mac.ts';

export interface FrameRule {
  readonly expressions: readonly NftExpression[];
  /** What it says: two that differ have two texts. */
  readonly text: string;
}

export interface FrameChain {
  readonly name: string;
  readonly rules: readonly FrameRule[];
}

export const guardSets = {
  /** Of our endpoints. */
  macs: 'macs',
  /** What each of them may be. */
  pairs: 'pairs',
  /** Addresses that nobody else may claim. */
  claimed: 'claimed',
  /** MACs of endpoints from and to which nothing passes. */
  closed: 'closed',
  /** MACs of endpoints that have their address from a DHCP server, and may ask for it. */
  clients: 'clients',
} as const;

/** @param hasPrefixes of some endpoint, extra sources are prefixes */
export function guardSetSpecs(hasPrefixes: boolean): Readonly<Record<keyof typeof guardSets, NftSetSpec>> {
  const macs: NftSetSpec = { key: 'mac', prefixes: false, data: null };
  return {
    macs,
    pairs: { key: 'mac-pair', prefixes: hasPrefixes, data: null },
    claimed: { key: 'address', prefixes: false, data: null },
    closed: macs,
    clients: macs,
  };
}

/** In the container: the endpoint's addresses, and what it may send from (its extra sources, too). */
export const insideSets = { own: 'own', sources: 'sources' } as const;

/** @param hasPrefixes of the extra sources, some are prefixes */
export function insideSetSpecs(hasPrefixes: boolean): Readonly<Record<keyof typeof insideSets, NftSetSpec>> {
  const own: NftSetSpec = { key: 'address', prefixes: false, data: null };
  return { own, sources: { ...own, prefixes: hasPrefixes } };
}

const ETHERNET = { destination: 0, source: 6 } as const;
const ARP = { senderMac: 8, senderAddress: 14, targetAddress: 24 } as const;
/** Of the header of IPv4 without options, and what follows it. */
const IP4 = { protocol: 9, payload: 20 } as const;
const UDP = 17;
const DHCP_SERVER = 67;
const DHCP_CLIENT = 68;
const ICMPV6 = 58;
const NEIGHBOUR_ADVERTISEMENT = 136;
/** Of the header of IPv6 and what follows it. */
const IP6 = { nextHeader: 6, type: 40, target: 48 } as const;
const protocols = { 4: [0x08, 0x00], 6: [0x86, 0xdd], arp: [0x08, 0x06] } as const;
/** A pair is loaded into quarters: two for the MAC, then the address. */
const PAIR = 8;
const ADDRESS_OF_PAIR = 10;

/**
 * Chains of the guard; `ingress` and `egress` are what each device's base chain goes to.
 * @param families that have a table: a frame is judged in one of them @param hasClosed some endpoint is closed
 * @param hasClients some endpoint has a DHCP client
 */
export function guardChains(
  family: Family,
  families: readonly Family[],
  hasClosed: boolean,
  hasClients: boolean,
): FrameChain[] {
  const others = ofOtherTable(family, families);
  const isFrom = [load('link', ETHERNET.source, 6), inSet(guardSets.macs)];
  const isTo = [load('link', ETHERNET.destination, 6), inSet(guardSets.macs)];
  const isClosed = (at: number): NftExpression[] => [load('link', at, 6), inSet(guardSets.closed)];
  const jump = (chain: string): NftVerdict => ({ kind: 'jump', chain });
  const closed = (what: string, at: number): FrameRule[] =>
    hasClosed ? [frame(`${what} a closed endpoint`, isClosed(at), drop)] : [];
  const fromClosed = closed('from', ETHERNET.source);
  return [
    { name: 'from', rules: [...(hasClients ? dhcpQuestion(family) : []), ...fromRules(family)] },
    { name: 'to', rules: [...(hasClients ? dhcpAnswer(family) : []), ...toRules(family)] },
    {
      name: 'ingress',
      rules: [
        ...others,
        ...fromClosed,
        ...closed('to', ETHERNET.destination),
        frame('from an endpoint', isFrom, jump('from')),
        frame('to an endpoint', isTo, jump('to')),
        forgedClaim(family),
      ],
    },
    {
      name: 'egress',
      rules: [...others, ...fromClosed, frame('from an endpoint', isFrom, jump('from')), forgedClaim(family)],
    },
  ];
}

/** The chain of one device: everything goes on to the common one. */
export function guardBase(chain: 'ingress' | 'egress'): FrameRule[] {
  return [frame(`what this guard says of ${chain}`, [], { kind: 'goto', chain }, false)];
}

/** RFC 2131, section 4.1: from no address, to all; so does one that renews its lease, from no socket of the container's. */
function dhcpQuestion(family: Family): FrameRule[] {
  if (family === 6) return [];
  const addresses = [load('network', sourceOf(4), 8), compare([0, 0, 0, 0, 255, 255, 255, 255])];
  const conditions = [...isUdpOf(ETHERNET.source, DHCP_CLIENT, DHCP_SERVER), ...addresses];
  return [frame('asks a DHCP server', conditions, back, false)];
}

/** To the address that it is going to have. */
function dhcpAnswer(family: Family): FrameRule[] {
  if (family === 6) return [];
  return [
    frame('a DHCP server answers', isUdpOf(ETHERNET.destination, DHCP_SERVER, DHCP_CLIENT), back, false),
  ];
}

/** Of a client's MAC; a header with options would have the ports elsewhere. */
function isUdpOf(mac: number, from: number, to: number): NftExpression[] {
  return [
    load('link', mac, 6),
    inSet(guardSets.clients),
    ...isProtocol(4),
    load('network', 0, 1),
    compare([0x45]),
    load('network', IP4.protocol, 1),
    compare([UDP]),
    load('network', IP4.payload, 4),
    compare([0, from, 0, to]),
  ];
}

function fromRules(family: Family): FrameRule[] {
  const ip = isProtocol(family);
  const own = frame(
    'source is its own',
    [...ip, ...pair(ETHERNET.source, sourceOf(family), family), inSet(guardSets.pairs, PAIR)],
    back,
    false,
  );
  if (family === 4)
    return [
      own,
      frame('source is not its own', ip, drop),
      frame(
        'ARP sender is not what it may be',
        [
          ...isProtocol('arp'),
          ...pairOfArp(ETHERNET.source, ARP.senderAddress),
          inSet(guardSets.pairs, PAIR, true),
          ...isNot('network', ARP.senderAddress, [0, 0, 0, 0]),
        ],
        drop,
      ),
    ];
  return [
    frame(
      'advertises an address that is not its own',
      [...isAdvertisement(), ...pair(ETHERNET.source, IP6.target, 6), inSet(guardSets.pairs, PAIR, true)],
      drop,
    ),
    own,
    frame('source is not its own', [...ip, ...isNot('network', sourceOf(6), new Array(16).fill(0))], drop),
  ];
}

/** Answers to who asks from no address yet have none as their target. */
function toRules(family: Family): FrameRule[] {
  const ip = isProtocol(family);
  const destination = sourceOf(family) + addressBits(family) / 8;
  return [
    frame(
      'destination is not its own',
      [...ip, ...pair(ETHERNET.destination, destination, family), inSet(guardSets.pairs, PAIR, true)],
      drop,
    ),
    ...(family === 4
      ? [
          frame(
            'ARP target is not its own',
            [
              ...isProtocol('arp'),
              ...pairOfArp(ETHERNET.destination, ARP.targetAddress),
              inSet(guardSets.pairs, PAIR, true),
              ...isNot('network', ARP.targetAddress, [0, 0, 0, 0]),
            ],
            drop,
          ),
        ]
      : []),
  ];
}

/** Whoever sends it. */
function forgedClaim(family: Family): FrameRule {
  if (family === 4)
    return frame(
      'ARP claims the address of an endpoint',
      [
        ...isProtocol('arp'),
        load('network', ARP.senderAddress, 4),
        inSet(guardSets.claimed),
        load('network', ARP.senderMac, 6, PAIR),
        load('network', ARP.senderAddress, 4, ADDRESS_OF_PAIR),
        inSet(guardSets.pairs, PAIR, true),
      ],
      drop,
    );
  return frame(
    'advertises the address of an endpoint',
    [
      ...isAdvertisement(),
      load('network', IP6.target, 16),
      inSet(guardSets.claimed),
      ...pair(ETHERNET.source, IP6.target, 6),
      inSet(guardSets.pairs, PAIR, true),
    ],
    drop,
  );
}

/**
 * What leaves by the macvlan's device, in the container.
 * @param mac null where the device has the parent's (passthru) @param families as of guardChains
 */
export function insideRules(family: Family, mac: Mac | null, families: readonly Family[]): FrameRule[] {
  const others = ofOtherTable(family, families);
  const foreign = mac === null ? [] : [...macBytes(mac)];
  const macRules = (what: string, before: readonly NftExpression[], base: 'link' | 'network', at: number) =>
    mac === null ? [] : [frame(`${what} is not ${mac}`, [...before, ...isNot(base, at, foreign)], drop)];
  const source = macRules('source MAC', [], 'link', ETHERNET.source);
  const toMany = frame(
    'goes to many from an address that is not its own',
    [
      ...isProtocol(family),
      ...isToMany(),
      load('network', sourceOf(family), addressBits(family) / 8),
      inSet(insideSets.sources, 1, true),
      // Nobody's: who asks whether an address is free, or joins a multicast group before it has one.
      compare(new Array(addressBits(family) / 8).fill(0), true),
    ],
    drop,
  );
  if (family === 6)
    return [
      ...others,
      ...source,
      toMany,
      frame(
        'advertises an address that is not its own',
        [...isAdvertisement(), load('network', IP6.target, 16), inSet(insideSets.own, 1, true)],
        drop,
      ),
    ];
  return [
    ...others,
    ...source,
    frame(
      'neither IPv4 nor IPv6 nor ARP',
      [
        { kind: 'meta', key: 'protocol', to: 1 },
        ...[protocols[4], protocols[6], protocols.arp].map((value) => compare([...value], true)),
      ],
      drop,
    ),
    toMany,
    ...macRules('ARP sender', isProtocol('arp'), 'network', ARP.senderMac),
    frame(
      'ARP claims an address that is not its own',
      [
        ...isProtocol('arp'),
        load('network', ARP.senderAddress, 4),
        inSet(insideSets.own, 1, true),
        compare([0, 0, 0, 0], true),
      ],
      drop,
    ),
  ];
}

/** The table of IPv6 judges its frames and no others, that of IPv4 all others. */
function ofOtherTable(family: Family, families: readonly Family[]): FrameRule[] {
  if (families.length === 1) return [];
  const isOther: NftExpression[] = [
    { kind: 'meta', key: 'protocol', to: 1 },
    compare([...protocols[6]], family === 6),
  ];
  return [frame(family === 6 ? 'is not IPv6' : 'is IPv6', isOther, back)];
}

const drop: NftVerdict = { kind: 'drop' };
const back: NftVerdict = { kind: 'return' };

function frame(
  text: string,
  conditions: readonly NftExpression[],
  verdict: NftVerdict,
  isCounted = verdict.kind === 'drop',
): FrameRule {
  const counter: NftExpression[] = isCounted ? [{ kind: 'counter' }] : [];
  return { text, expressions: [...conditions, ...counter, { kind: 'verdict', verdict }] };
}

function isProtocol(which: keyof typeof protocols): NftExpression[] {
  return [{ kind: 'meta', key: 'protocol', to: 1 }, compare([...protocols[which]])];
}

function isAdvertisement(): NftExpression[] {
  return [
    ...isProtocol(6),
    load('network', IP6.nextHeader, 1),
    compare([ICMPV6]),
    load('network', IP6.type, 1),
    compare([NEIGHBOUR_ADVERTISEMENT]),
  ];
}

/** Multicast and broadcast, by the first bit of the destination's MAC that goes over the wire (IEEE 802.3). */
function isToMany(): NftExpression[] {
  return [
    load('link', ETHERNET.destination, 1),
    { kind: 'mask', register: 1, mask: Uint8Array.of(1) },
    compare([1]),
  ];
}

function isNot(base: 'link' | 'network', at: number, bytes: readonly number[]): NftExpression[] {
  return [load(base, at, bytes.length), compare(bytes, true)];
}

/** A MAC of the frame and an address in the packet's header. */
function pair(mac: number, address: number, family: Family): NftExpression[] {
  return [load('link', mac, 6, PAIR), load('network', address, addressBits(family) / 8, ADDRESS_OF_PAIR)];
}

function pairOfArp(mac: number, address: number): NftExpression[] {
  return pair(mac, address, 4);
}

function sourceOf(family: Family): number {
  return family === 4 ? 12 : 8;
}

function load(base: 'link' | 'network', offsetBytes: number, lengthBytes: number, to = 1): NftExpression {
  return { kind: 'payload', base, offsetBytes, lengthBytes, to };
}

function compare(bytes: readonly number[], negated = false): NftExpression {
  return { kind: 'compare', from: 1, negated, value: Uint8Array.from(bytes) };
}

function inSet(set: string, from = 1, negated = false): NftExpression {
  return { kind: 'in-set', from, negated, set };
}
