/**
 * rtnetlink links: veth pairs, macvlans, VLANs, ifbs, changes, deletion, and what the kernel tells of a link (linux/if_link.h).
 *
 * In: the values of ports.ts. Out: messages in a batch; LinkInfo. Never: an end of a veth that is up at creation (the kernel
 * answers ENOTCONN and takes 14–35 ms to roll back), a name that the kernel only refuses late.
 */
import { invalid } from '../../lib/errors.ts';
import { type Mac, macBytes, macFromBytes } from '../../model/mac.ts';
import type { MacvlanMode } from '../../model/macvlan.ts';
import { parseInterfaceName } from '../../model/names.ts';
import type { LinkCounters } from '../link-kinds.ts';
import type { LinkChoice, LinkInfo, LinkSpec, RoutingRequest } from '../ports.ts';
import { type ByteWriter, NLA_F_NESTED, readAttributes, readText, readU32 } from './attribute.ts';
import { dumpRequest, type Message, type MessageBatch, NLM_F_CREATE, NLM_F_EXCL } from './message.ts';

export const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
export const RTM_GETLINK = 18;
/** Multicast group of RTM_NEWLINK and RTM_DELLINK. */
export const RTNLGRP_LINK = 1;

const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINK = 5;
const IFLA_MASTER = 10;
const IFLA_OPERSTATE = 16;
const IFLA_LINKINFO = 18;
const IFLA_STATS64 = 23;
const IFLA_AF_SPEC = 26;
const IFLA_GROUP = 27;
const IFLA_NET_NS_FD = 28;
const IFLA_EXT_MASK = 29;
const IFLA_NUM_TX_QUEUES = 31;
const IFLA_NUM_RX_QUEUES = 32;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const VETH_INFO_PEER = 1;
const IFLA_MACVLAN_MODE = 1;
const IFLA_VLAN_ID = 1;
const IFLA_IFALIAS = 20;
const MACVLAN_MODES = { private: 1, vepa: 2, bridge: 4, passthru: 8 } as const;
const IFLA_INET6_ADDR_GEN_MODE = 8;
const ADDRESS_GENERATION = { eui64: 0, none: 1 };
const RTEXT_FILTER_SKIP_STATS = 8;

const IFF_UP = 1;
const IF_OPER_UP = 6;
const AF_INET6 = 10;
const MAX_INDEX = 2 ** 31 - 1;

type VethAdd = Extract<RoutingRequest, { kind: 'veth-add' }>;
type MacvlanAdd = Extract<RoutingRequest, { kind: 'macvlan-add' }>;
type IfbAdd = Extract<RoutingRequest, { kind: 'ifb-add' }>;
type VlanAdd = Extract<RoutingRequest, { kind: 'vlan-add' }>;
type LinkSet = Extract<RoutingRequest, { kind: 'link-set' }>;

/** Everything that the kernel would refuse late, or that would go wrong silently. @throws INVALID */
export function checkVeth({ host, peer }: VethAdd): void {
  parseInterfaceName(host.name, 'host.name');
  parseInterfaceName(peer.name, 'peer.name');
  checkIndex(host.index, 'host.index');
  checkIndex(peer.index, 'peer.index');
  // With equal indexes the kernel takes the link for not stacked, and its state stays unknown.
  if (host.index === peer.index)
    throw invalid('peer.index', peer.index, 'an index other than that of the host end');
}

/** @throws INVALID */
export function checkMacvlan({ parentIndex, link }: MacvlanAdd): void {
  parseInterfaceName(link.name, 'link.name');
  checkIndex(link.index, 'link.index');
  checkIndex(parentIndex, 'parentIndex');
}

/** @throws INVALID */
export function checkIfb({ link }: IfbAdd): void {
  parseInterfaceName(link.name, 'link.name');
  checkIndex(link.index, 'link.index');
}

/** @throws INVALID */
export function checkVlan({ link, parentIndex, id }: VlanAdd): void {
  parseInterfaceName(link.name, 'link.name');
  checkIndex(link.index, 'link.index');
  checkIndex(parentIndex, 'parentIndex');
  if (!Number.isInteger(id) || id < 1 || id > 4094) throw invalid('id', id, 'a VLAN id from 1 to 4094');
}

export function checkIndex(index: number, field: string): void {
  if (!Number.isInteger(index) || index < 1 || index > MAX_INDEX) {
    throw invalid(field, index, `an interface index from 1 to ${MAX_INDEX}`);
  }
}

export function writeVethAdd(batch: MessageBatch, request: VethAdd): void {
  checkVeth(request);
  batch.add(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, (writer) => {
    writeHeader(writer, request.host.index);
    writeSpec(writer, request.host);
    writeOneQueue(writer);
    writer.nested(IFLA_LINKINFO | NLA_F_NESTED, () => {
      writer.attributeText(IFLA_INFO_KIND, 'veth');
      writer.nested(IFLA_INFO_DATA | NLA_F_NESTED, () => {
        writer.nested(VETH_INFO_PEER | NLA_F_NESTED, () => {
          writeHeader(writer, request.peer.index);
          writeSpec(writer, request.peer);
          writeOneQueue(writer);
          writer.attributeU32(IFLA_NET_NS_FD, request.peer.netnsFd);
        });
      });
    });
  });
}

/**
 * As many as a pair uses in the end. Without a word the kernel makes one for each processor and takes all but one away again, which costs
 * each end a grace period, under the lock that all changes of links need.
 */
function writeOneQueue(writer: ByteWriter): void {
  writer.attributeU32(IFLA_NUM_TX_QUEUES, 1);
  writer.attributeU32(IFLA_NUM_RX_QUEUES, 1);
}

export function writeMacvlanAdd(batch: MessageBatch, request: MacvlanAdd): void {
  checkMacvlan(request);
  const { parentIndex, mode, link } = request;
  batch.add(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, (writer) => {
    writeHeader(writer, link.index);
    writeSpec(writer, link);
    writer.attributeU32(IFLA_LINK, parentIndex);
    if (link.netnsFd !== undefined) writer.attributeU32(IFLA_NET_NS_FD, link.netnsFd);
    writer.nested(IFLA_LINKINFO | NLA_F_NESTED, () => {
      writer.attributeText(IFLA_INFO_KIND, 'macvlan');
      writer.nested(IFLA_INFO_DATA | NLA_F_NESTED, () => {
        writer.attributeU32(IFLA_MACVLAN_MODE, MACVLAN_MODES[mode]);
      });
    });
  });
}

export function writeVlanAdd(batch: MessageBatch, request: VlanAdd): void {
  checkVlan(request);
  const { link, parentIndex, id, alias } = request;
  batch.add(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, (writer) => {
    writeHeader(writer, link.index);
    writer.attributeText(IFLA_IFNAME, link.name);
    writer.attributeU32(IFLA_MTU, link.mtuBytes);
    writer.attributeU32(IFLA_LINK, parentIndex);
    writer.attributeText(IFLA_IFALIAS, alias);
    writer.nested(IFLA_LINKINFO | NLA_F_NESTED, () => {
      writer.attributeText(IFLA_INFO_KIND, 'vlan');
      writer.nested(IFLA_INFO_DATA | NLA_F_NESTED, () =>
        writer.attribute(IFLA_VLAN_ID, Uint8Array.from([id & 0xff, id >> 8])),
      );
    });
  });
}

export function writeIfbAdd(batch: MessageBatch, request: IfbAdd): void {
  checkIfb(request);
  const { link } = request;
  batch.add(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, (writer) => {
    writeHeader(writer, link.index);
    writer.attributeText(IFLA_IFNAME, link.name);
    writer.attributeU32(IFLA_MTU, link.mtuBytes);
    writer.nested(IFLA_LINKINFO | NLA_F_NESTED, () => writer.attributeText(IFLA_INFO_KIND, 'ifb'));
  });
}

/** Two messages where the link also changes its up state: the kernel would bring it up before it reads the rest. */
export function writeLinkSet(batch: MessageBatch, request: LinkSet): void {
  checkIndex(request.index, 'index');
  const { index, up, mtuBytes, ipv6AddressGeneration } = request;
  if (mtuBytes !== undefined || ipv6AddressGeneration !== undefined) {
    batch.add(RTM_NEWLINK, 0, (writer) => {
      writeHeader(writer, index);
      if (mtuBytes !== undefined) writer.attributeU32(IFLA_MTU, mtuBytes);
      if (ipv6AddressGeneration !== undefined) {
        writer.nested(IFLA_AF_SPEC | NLA_F_NESTED, () => {
          writer.nested(AF_INET6 | NLA_F_NESTED, () => {
            writer.attributeU8(IFLA_INET6_ADDR_GEN_MODE, ADDRESS_GENERATION[ipv6AddressGeneration]);
          });
        });
      }
    });
  }
  if (up !== undefined || (mtuBytes === undefined && ipv6AddressGeneration === undefined)) {
    batch.add(RTM_NEWLINK, 0, (writer) =>
      writeHeader(writer, index, up ? IFF_UP : 0, up === undefined ? 0 : IFF_UP),
    );
  }
}

export function writeLinkDelete(batch: MessageBatch, link: LinkChoice): void {
  const choose = chosen(link);
  batch.add(RTM_DELLINK, 0, choose);
}

/** Puts the links into a group, one message each, and deletes the group: one grace period of the kernel for all of them. */
export function writeGroupDelete(batch: MessageBatch, links: readonly LinkChoice[], group: number): void {
  for (const link of links) {
    const choose = chosen(link);
    batch.add(RTM_NEWLINK, 0, (writer) => {
      choose(writer);
      writer.attributeU32(IFLA_GROUP, group);
    });
  }
  batch.add(RTM_DELLINK, 0, (writer) => {
    writeHeader(writer, 0);
    writer.attributeU32(IFLA_GROUP, group);
  });
}

export function writeLinkGet(batch: MessageBatch, link: LinkChoice): void {
  const choose = chosen(link);
  batch.add(RTM_GETLINK, 0, (writer) => {
    choose(writer);
    writer.attributeU32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  });
}

/** Checked before a message is begun. With a name there is no index, and nothing is renamed. */
function chosen(link: LinkChoice): (writer: ByteWriter) => void {
  if ('index' in link) {
    checkIndex(link.index, 'index');
    return (writer) => writeHeader(writer, link.index);
  }
  const name = parseInterfaceName(link.name);
  return (writer) => {
    writeHeader(writer, 0);
    writer.attributeText(IFLA_IFNAME, name);
  };
}

export function linkDump(): Buffer {
  return dumpRequest(RTM_GETLINK, (writer) => {
    writeHeader(writer, 0);
    writer.attributeU32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  });
}

/** Like `linkDump`, with the counters. */
export function counterDump(): Buffer {
  return dumpRequest(RTM_GETLINK, (writer) => writeHeader(writer, 0));
}

/** The link's index and counters, of an answer to `counterDump` (struct rtnl_link_stats64). */
export function readCounters({ payload }: Message): [number, LinkCounters] | null {
  if (payload.length < 16 || payload.readUInt8(0) !== 0) return null;
  const stats = readAttributes(payload.subarray(16)).get(IFLA_STATS64);
  if (stats === undefined || stats.length < 64) return null;
  const [inPackets, outPackets, inBytes, outBytes, , , inDropped, outDropped] = Array.from(
    { length: 8 },
    (_, at) => Number(stats.readBigUInt64LE(8 * at)),
  ) as [number, number, number, number, number, number, number, number];
  return [payload.readInt32LE(4), { inPackets, inBytes, outPackets, outBytes, inDropped, outDropped }];
}

/** Reads RTM_NEWLINK and RTM_DELLINK; null for those of bridge ports and other families, which are not about the link. */
export function readLink(message: Message): LinkInfo | null {
  const { payload } = message;
  if (payload.length < 16 || payload.readUInt8(0) !== 0) return null;
  const attributes = readAttributes(payload.subarray(16));
  const linkInfo = readAttributes(attributes.get(IFLA_LINKINFO) ?? Buffer.alloc(0));
  const type = readText(linkInfo.get(IFLA_INFO_KIND));
  const below = readU32(attributes.get(IFLA_LINK));
  return {
    index: payload.readInt32LE(4),
    name: readText(attributes.get(IFLA_IFNAME)) ?? '',
    type,
    mac: readMac(attributes.get(IFLA_ADDRESS)),
    mtuBytes: readU32(attributes.get(IFLA_MTU)) ?? 0,
    up: (payload.readUInt32LE(8) & IFF_UP) !== 0,
    running: attributes.get(IFLA_OPERSTATE)?.[0] === IF_OPER_UP,
    peerIndex: type === 'veth' ? below : null,
    parentIndex: type === 'veth' ? null : below,
    masterIndex: readU32(attributes.get(IFLA_MASTER)),
    alias: readText(attributes.get(IFLA_IFALIAS)),
    macvlanMode: type === 'macvlan' ? readMode(linkInfo.get(IFLA_INFO_DATA)) : null,
  };
}

function readMode(data: Buffer | undefined): MacvlanMode | null {
  const number = data === undefined ? null : readU32(readAttributes(data).get(IFLA_MACVLAN_MODE));
  const known = Object.entries(MACVLAN_MODES).find(([, value]) => value === number);
  return (known?.[0] as MacvlanMode | undefined) ?? null;
}

/** A hardware address, or null where the device has none (the loopback device has zeros). */
export function readMac(bytes: Buffer | undefined): Mac | null {
  if (bytes === undefined || bytes.length !== 6 || bytes.every((byte) => byte === 0)) return null;
  return macFromBytes(bytes);
}

/** struct ifinfomsg */
function writeHeader(writer: ByteWriter, index: number, flags = 0, change = 0): void {
  writer.u32(0);
  writer.u32(index);
  writer.u32(flags);
  writer.u32(change);
}

function writeSpec(writer: ByteWriter, spec: LinkSpec): void {
  writer.attributeText(IFLA_IFNAME, spec.name);
  writer.attributeU32(IFLA_MTU, spec.mtuBytes);
  writer.attribute(IFLA_ADDRESS, macBytes(spec.mac));
}
