/**
 * rtnetlink neighbours: the table of ARP and neighbour discovery (linux/neighbour.h).
 *
 * In: index, address, MAC. Out: messages that make permanent entries (nobody is asked, and the table's limit does not count
 * them); NeighbourInfo. Never: the kernel's own entries for multicast and loopback (NOARP), which nobody made.
 */
import { type Address, addressBytes, addressFromBytes, familyOf } from '../../model/ip.ts';
import { type Mac, macBytes } from '../../model/mac.ts';
import type { NeighbourInfo } from '../ports.ts';
import { AF } from './address.ts';
import { readAttributes } from './attribute.ts';
import { checkIndex, readMac } from './link.ts';
import { dumpRequest, type Message, type MessageBatch, NLM_F_CREATE, NLM_F_REPLACE } from './message.ts';

export const RTM_NEWNEIGH = 28;
const RTM_GETNEIGH = 30;
const NDA_DST = 1;
const NDA_LLADDR = 2;
const NDA_IFINDEX = 8;
const NUD_PERMANENT = 0x80;
const NUD_NOARP = 0x40;

export function writeNeighbourReplace(
  batch: MessageBatch,
  { index, address, mac }: { index: number; address: Address; mac: Mac },
): void {
  checkIndex(index, 'index');
  batch.add(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, (writer) => {
    writer.u32(AF[familyOf(address)]);
    writer.u32(index);
    writer.u16(NUD_PERMANENT);
    writer.u16(0);
    writer.attribute(NDA_DST, addressBytes(address));
    writer.attribute(NDA_LLADDR, macBytes(mac));
  });
}

/** @param linkIndex only those of one link (the kernel filters; 0 for all) */
export function neighbourDump(linkIndex: number): Buffer {
  return dumpRequest(RTM_GETNEIGH, (writer) => {
    writer.zeros(12);
    if (linkIndex !== 0) writer.attributeU32(NDA_IFINDEX, linkIndex);
  });
}

/** Reads RTM_NEWNEIGH; null for the kernel's own entries and for other families. */
export function readNeighbour({ payload }: Message): NeighbourInfo | null {
  if (payload.length < 12 || (payload[0] !== AF[4] && payload[0] !== AF[6])) return null;
  const state = payload.readUInt16LE(8);
  const attributes = readAttributes(payload.subarray(12));
  const address = attributes.get(NDA_DST);
  if (address === undefined || (state & NUD_NOARP) !== 0) return null;
  return {
    linkIndex: payload.readUInt32LE(4),
    address: addressFromBytes(address),
    mac: readMac(attributes.get(NDA_LLADDR)),
    permanent: (state & NUD_PERMANENT) !== 0,
  };
}
