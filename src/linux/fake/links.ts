/**
 * Links of the fake: veth pairs, macvlans on a parent, ifbs, and the queueing disciplines on them, with the kernel's rules.
 *
 * In: requests of ports.ts, the namespaces they are about. Out: links in those namespaces, or a Refusal with the kernel's errno.
 * Never: half a pair, a macvlan that the kernel would not make.
 */

import type { MacvlanMode } from '../../model/macvlan.ts';
import type { QdiscInfo } from '../link-kinds.ts';
import type { LinkInfo, LinkSpec } from '../ports.ts';
import { checkMtu, childrenOf, type FakeLink, type FakeNetns } from './netns.ts';
import { Refusal } from './refusal.ts';

/** Adds a veth pair over two namespaces, both ends or none. @throws Refusal as the kernel does */
export function addVeth(host: FakeNetns, hostSpec: LinkSpec, container: FakeNetns, peerSpec: LinkSpec): void {
  checkMtu(hostSpec.mtuBytes);
  checkMtu(peerSpec.mtuBytes);
  if (host.linkNamed(hostSpec.name) !== null || host.links.has(hostSpec.index)) throw new Refusal('EEXIST');
  if (container.linkNamed(peerSpec.name) !== null) throw new Refusal('EEXIST');
  if (container.links.has(peerSpec.index)) throw new Refusal('EBUSY');
  if (host === container && hostSpec.name === peerSpec.name) throw new Refusal('EEXIST');
  const hostEnd = place('veth', hostSpec, host);
  const peerEnd = place('veth', peerSpec, container);
  hostEnd.peer = peerEnd;
  peerEnd.peer = hostEnd;
}

/** @throws Refusal as the kernel does */
export function addMacvlan(parent: FakeLink, mode: MacvlanMode, spec: LinkSpec, container: FakeNetns): void {
  if (container.linkNamed(spec.name) !== null || container.links.has(spec.index)) throw new Refusal('EEXIST');
  if (spec.mtuBytes > parent.mtuBytes) throw new Refusal('EINVAL');
  const siblings = childrenOf(parent);
  const exclusive = mode === 'passthru' || siblings.some((sibling) => sibling.mode === 'passthru');
  if (exclusive && siblings.length > 0) throw new Refusal('EINVAL');
  parent.children.push(
    place('macvlan', mode === 'passthru' ? { ...spec, mac: parent.spec.mac } : spec, container, parent, mode),
  );
}

/** @throws Refusal as the kernel does */
export function addIfb(netns: FakeNetns, spec: Omit<LinkSpec, 'mac'>): void {
  if (netns.linkNamed(spec.name) !== null || netns.links.has(spec.index)) throw new Refusal('EEXIST');
  checkMtu(spec.mtuBytes);
  place('ifb', { ...spec, mac: '02:00:00:00:00:00' as LinkSpec['mac'] }, netns);
}

/** @throws Refusal as the kernel does */
export function addVlan(parent: FakeLink, spec: Omit<LinkSpec, 'mac'>, alias: string): void {
  const { netns } = parent;
  if (netns.linkNamed(spec.name) !== null || netns.links.has(spec.index)) throw new Refusal('EEXIST');
  checkMtu(spec.mtuBytes);
  const vlan = place('vlan', { ...spec, mac: parent.spec.mac }, netns, parent);
  vlan.alias = alias;
  parent.children.push(vlan);
}

/** A plain device, as a test finds one on a host: another link's parent. */
export function addDevice(netns: FakeNetns, spec: LinkSpec): void {
  place(null, spec, netns);
}

/** @throws Refusal as the kernel does */
export function redirect(link: FakeLink, toIndex: number): void {
  if (link.redirectedTo !== null) throw new Refusal('EEXIST', 'Exclusivity flag on, cannot modify');
  link.netns.link(toIndex);
  link.redirectedTo = toIndex;
}

/** @throws Refusal as the kernel does */
export function endRedirect(link: FakeLink): void {
  if (link.redirectedTo === null) throw new Refusal('EINVAL', 'Invalid handle');
  link.redirectedTo = null;
}

/** @throws Refusal as the kernel does */
export function endShape(link: FakeLink): void {
  if (link.bucket === null) throw new Refusal('ENOENT', 'Cannot delete qdisc with handle of zero');
  link.bucket = null;
}

/** A link that is down and has no limit has none: the default comes with its being up. */
export function qdiscsOf({ spec, up, bucket, redirectedTo }: FakeLink): QdiscInfo[] {
  const linkIndex = spec.index;
  const root = { linkIndex, place: 'root' } as const;
  const qdiscs: QdiscInfo[] = [];
  if (bucket !== null) {
    const rateBitsPerSecond = Math.floor(bucket.rateBitsPerSecond / 8) * 8;
    qdiscs.push({ ...root, kind: 'tbf', isOurs: true, rateBitsPerSecond });
  } else if (up) qdiscs.push({ ...root, kind: 'noqueue', isOurs: false, rateBitsPerSecond: null });
  if (redirectedTo !== null)
    qdiscs.push({ linkIndex, kind: 'ingress', place: 'ingress', isOurs: false, rateBitsPerSecond: null });
  return qdiscs;
}

export function linkInfo({ spec, type, mtuBytes, up, peer, parent, mode, alias }: FakeLink): LinkInfo {
  return {
    index: spec.index,
    name: spec.name,
    type,
    mac: spec.mac,
    mtuBytes,
    up,
    running: up && (peer?.up ?? parent?.up ?? false),
    peerIndex: peer?.spec.index ?? null,
    parentIndex: parent?.spec.index ?? null,
    masterIndex: null,
    macvlanMode: mode,
    alias,
  };
}

function place(
  type: FakeLink['type'],
  spec: LinkSpec,
  netns: FakeNetns,
  parent: FakeLink | null = null,
  mode: MacvlanMode | null = null,
): FakeLink {
  const link: FakeLink = {
    spec,
    type,
    netns,
    parent,
    mode,
    mtuBytes: spec.mtuBytes,
    up: false,
    addressGeneration: 'eui64',
    peer: null,
    bucket: null,
    redirectedTo: null,
    alias: null,
    children: [],
  };
  netns.links.set(spec.index, link);
  return link;
}
