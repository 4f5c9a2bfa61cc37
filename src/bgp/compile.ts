/**
 * Who this node's BIRD talks to and how: from the records of the store to one flat configuration.
 *
 *   settings.mesh ─────────► every other node, reflectors excepted on both sides
 *   peers with an address ─► that router, on the nodes that the record means
 *   peers by selector ─────► the nodes that it picks; a session stands on both sides, whichever of them the record means
 *
 * In: `BgpInput`. Out: `BgpConfig`. Never: two sessions with one address (the more specific record wins, mesh comes last), a session to
 * the node itself, a session that passes everything because its filter is not there (it passes nothing).
 */
import { createHash } from 'node:crypto';
import type { BgpPeer } from '../model/bgp.ts';
import { type Address, addressValue, type Cidr, type Family, families, familyOf } from '../model/ip.ts';
import { parseSelector, selects } from '../model/selector.ts';
import type { BgpConfig, BgpInput, BgpNode, BgpSession, SessionType } from './config.ts';

/** The port of RFC 4271. */
const standardPort = 179;

/** @throws INVALID when a selector is broken, which the model has refused before */
export function compileBgp(input: BgpInput): BgpConfig {
  const own = input.nodes.get(input.node);
  const problems: string[] = [];
  const found = own === undefined ? [] : sessionsOf(input, own, problems);
  const sessions = found.toSorted((a, b) => (a.protocol < b.protocol ? -1 : 1));
  const used = [
    ...new Set(sessions.flatMap((each) => [...each.importFilters, ...each.exportFilters])),
  ].sort();
  for (const name of used) {
    const filter = input.filters.get(name);
    if (filter === undefined)
      problems.push(`there is no bgp-filter ${name}: the sessions that use it pass nothing`);
    if (filter === null)
      problems.push(`bgp-filter ${name} cannot be read: the sessions that use it pass nothing`);
  }
  return {
    routerId: own?.address4 ?? madeUpRouterId(input.node),
    pools: { 4: poolsOf(input, 4), 6: poolsOf(input, 6) },
    isRouted: { 4: isRouted(input, sessions, 4), 6: isRouted(input, sessions, 6) },
    gracefulRestartSeconds: input.settings.gracefulRestartSeconds,
    bfd: {
      intervalMilliseconds: input.settings.bfdIntervalMilliseconds,
      multiplier: input.settings.bfdMultiplier,
    },
    sessions,
    filters: used.map((name) => ({ name, rules: input.filters.get(name)?.rules ?? null })),
    problems: [...new Set(problems)],
  };
}

function poolsOf({ pools }: BgpInput, family: Family): Cidr[] {
  return [...new Set(pools.filter((cidr) => familyOf(cidr) === family))].sort();
}

/** Some next hop of the family lies behind a router: BIRD has to look up the way there. */
function isRouted({ nodes, isOnLink }: BgpInput, sessions: readonly BgpSession[], family: Family): boolean {
  if (sessions.some(({ multihop, families }) => multihop && families.includes(family))) return true;
  if (!sessions.some(({ families }) => families.includes(family))) return false;
  return [...nodes.values()].some((node) => {
    const address = addressOf(node, family);
    return node.bgpPort !== null && address !== null && !isOnLink(address);
  });
}

/** An id has the form of an IPv4 address; a node that has none gets one that its name decides. */
function madeUpRouterId(node: string): Address {
  const bytes = createHash('sha256').update(node).digest();
  return `${1 + (bytes[0]! % 223)}.${bytes[1]}.${bytes[2]}.${bytes[3]}` as Address;
}

/** A session that a record or the mesh asks for, before it is known whether a better one has its address. */
interface Wish {
  readonly type: SessionType;
  readonly name: string | null;
  readonly peer: BgpPeer | null;
  readonly node: string | null;
  readonly address: Address;
}

/** The most specific first. */
const order: readonly SessionType[] = ['node', 'selector', 'global', 'mesh'];

function sessionsOf(input: BgpInput, own: BgpNode, problems: string[]): BgpSession[] {
  const wishes = [...peerWishes(input, own), ...meshWishes(input, own)];
  wishes.sort(
    (a, b) => order.indexOf(a.type) - order.indexOf(b.type) || compareText(a.name ?? '', b.name ?? ''),
  );
  const taken = new Map<Address, Wish>();
  const sessions: BgpSession[] = [];
  for (const wish of wishes) {
    const other = taken.get(wish.address);
    if (other !== undefined) {
      if (wish.type !== 'mesh' && other.name !== wish.name)
        problems.push(
          `bgp-peer ${wish.name}: bgp-peer ${other.name} stands for ${wish.address} on this node already`,
        );
      continue;
    }
    taken.set(wish.address, wish);
    const session = sessionOf(input, own, wish);
    if (typeof session === 'string') problems.push(`bgp-peer ${wish.name}: ${session}`);
    else sessions.push(session);
  }
  return sessions;
}

function* meshWishes({ node, nodes, settings }: BgpInput, own: BgpNode): Generator<Wish> {
  if (!settings.mesh || own.routeReflectorClusterId !== null) return;
  for (const [name, other] of nodes) {
    if (name === node || other.routeReflectorClusterId !== null) continue;
    for (const address of sharedAddresses(own, other))
      yield { type: 'mesh', name: null, peer: null, node: name, address };
  }
}

function* peerWishes({ node, nodes, peers }: BgpInput, own: BgpNode): Generator<Wish> {
  for (const [name, peer] of peers) {
    const type =
      peer.node !== null
        ? 'node'
        : peer.nodeSelector !== null || peer.peerSelector !== null
          ? 'selector'
          : 'global';
    const isMine = means(peer, node, own);
    if (peer.address !== null) {
      const isOwn = peer.address === own.address4 || peer.address === own.address6;
      if (isMine && !isOwn)
        yield { type, name, peer, node: nodeAt(nodes, peer.address), address: peer.address };
      continue;
    }
    const selector = parseSelector(peer.peerSelector);
    for (const [other, record] of nodes) {
      if (other === node) continue;
      const isWanted = isMine && selects(selector, record.labels);
      // The other side of a session that the record asks of that node.
      const isAnswer = means(peer, other, record) && selects(selector, own.labels);
      if (!isWanted && !isAnswer) continue;
      for (const address of sharedAddresses(own, record)) yield { type, name, peer, node: other, address };
    }
  }
}

/** Whether the record is for the node. */
function means(peer: BgpPeer, name: string, { labels }: BgpNode): boolean {
  if (peer.node !== null) return peer.node === name;
  return peer.nodeSelector === null || selects(parseSelector(peer.nodeSelector), labels);
}

/** The other's addresses in the families that both have; none when one of them has no BIRD. */
function sharedAddresses(own: BgpNode, other: BgpNode): Address[] {
  if (own.bgpPort === null || other.bgpPort === null) return [];
  return families.flatMap((family) => {
    const address = addressOf(other, family);
    return address === null || addressOf(own, family) === null ? [] : [address];
  });
}

function nodeAt(nodes: BgpInput['nodes'], address: Address): string | null {
  for (const [name, { address4, address6 }] of nodes)
    if (address === address4 || address === address6) return name;
  return null;
}

/** @returns what stands in the way, as the second half of a sentence */
function sessionOf(input: BgpInput, own: BgpNode, wish: Wish): BgpSession | string {
  const { settings, nodes, isOnLink } = input;
  const { peer, address } = wish;
  const family = familyOf(address);
  const localAddress = peer?.sourceAddress ?? addressOf(own, family);
  if (localAddress === null) return `this node has no IPv${family} address for the peer ${address}`;
  const isNodeToNode = peer === null || peer.address === null;
  const other = wish.node === null ? undefined : nodes.get(wish.node);
  const ownAsNumber = peer?.localAsNumber ?? own.asNumber ?? settings.asNumber;
  const asNumber = peer?.asNumber ?? other?.asNumber ?? settings.asNumber;
  const clusterId = own.routeReflectorClusterId;
  const holdSeconds = peer?.holdSeconds ?? settings.holdSeconds;
  const isClient =
    clusterId !== null && asNumber === ownAsNumber && other?.routeReflectorClusterId !== clusterId;
  return {
    protocol: protocolName(wish, family),
    type: wish.type,
    peer: wish.name,
    node: wish.node,
    address,
    port: peer?.port ?? other?.bgpPort ?? standardPort,
    asNumber,
    localAddress,
    localAsNumber: ownAsNumber,
    localPort: own.bgpPort ?? standardPort,
    families: peer?.extendedNextHop === true && family === 6 ? [4, 6] : [family],
    multihop: peer?.multihop ?? !isOnLink(address),
    // One side of a pair connects, so that two connections do not collide.
    passive: peer?.passive === true || (isNodeToNode && addressValue(localAddress) < addressValue(address)),
    password: peer === null ? settings.meshPassword : peer.password,
    holdSeconds,
    // One for the hold time of the cluster may be too long for that of this peer.
    keepaliveSeconds:
      peer?.keepaliveSeconds ?? ((peer?.holdSeconds ?? null) === null ? settings.keepaliveSeconds : null),
    ttlSecurityHops: peer?.ttlSecurityHops ?? null,
    bfd:
      (peer?.bfd ?? (other !== undefined && settings.bfd)) ? (other === undefined ? 'on' : 'graceful') : null,
    nextHop: peer?.nextHop ?? null,
    clientOf: isClient ? clusterId : null,
    passesOn: clusterId !== null,
    onlyPools: isNodeToNode,
    extendedNextHop: peer?.extendedNextHop === true && family === 6,
    allowOwnAsNumbers: peer?.allowOwnAsNumbers ?? 0,
    prepend: peer?.prepend ?? 0,
    communities: [...new Set([...settings.communities, ...(peer?.communities ?? [])])],
    importFilters: peer?.importFilters ?? [],
    exportFilters: peer?.exportFilters ?? [],
    maxPrefixes: peer?.maxPrefixes ?? null,
  };
}

function addressOf(node: BgpNode, family: Family): Address | null {
  return family === 4 ? node.address4 : node.address6;
}

/** The same as long as it is the same peer, so that BIRD keeps the session over a reconfiguration. */
function protocolName({ type, name, node, address }: Wish, family: Family): string {
  const identity = node === null ? `${name} ${address}` : `${name} ${node} ${family}`;
  return `${type}_${createHash('sha256').update(identity).digest('hex').slice(0, 12)}`;
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
