/**
 * rtnetlink addresses of links (linux/if_addr.h).
 *
 * In: index, address, prefix length. Out: messages; AddressInfo. Never: an IPv6 address that waits for duplicate address
 * detection (1 s and more).
 */
import { invalid } from '../../lib/errors.ts';
import { type Address, addressBits, addressBytes, addressFromBytes, familyOf } from '../../model/ip.ts';
import type { AddressInfo } from '../ports.ts';
import { type ByteWriter, readAttributes, readU32 } from './attribute.ts';
import { checkIndex } from './link.ts';
import { dumpRequest, type Message, type MessageBatch, NLM_F_CREATE, NLM_F_EXCL } from './message.ts';

export const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
const RTM_GETADDR = 22;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_FLAGS = 8;
const RT_SCOPE_HOST = 254;
const IFA_F_NODAD = 0x02;
const IFA_F_TENTATIVE = 0x40;

/** AF_INET and AF_INET6 as numbers of the kernel. */
export const AF = { 4: 2, 6: 10 } as const;

interface LinkAddress {
  readonly index: number;
  readonly address: Address;
  readonly prefixLength: number;
  readonly scope?: 'host';
}

export function writeAddressAdd(batch: MessageBatch, address: LinkAddress): void {
  batch.add(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, bodyOf(address));
}

export function writeAddressDelete(batch: MessageBatch, address: LinkAddress): void {
  batch.add(RTM_DELADDR, 0, bodyOf(address));
}

/** @throws INVALID */
function bodyOf({ index, address, prefixLength, scope }: LinkAddress): (writer: ByteWriter) => void {
  checkIndex(index, 'index');
  const family = familyOf(address);
  if (!Number.isInteger(prefixLength) || prefixLength < 0 || prefixLength > addressBits(family)) {
    throw invalid('prefixLength', prefixLength, `0 to ${addressBits(family)}`);
  }
  const bytes = addressBytes(address);
  return (writer) => {
    writer.u8(AF[family]);
    writer.u8(prefixLength);
    writer.u8(family === 6 ? IFA_F_NODAD : 0);
    writer.u8(scope === 'host' ? RT_SCOPE_HOST : 0);
    writer.u32(index);
    writer.attribute(IFA_LOCAL, bytes);
    writer.attribute(IFA_ADDRESS, bytes);
  };
}

/** @param linkIndex only those of one link (the kernel filters; 0 for all) */
export function addressDump(linkIndex: number): Buffer {
  return dumpRequest(RTM_GETADDR, (writer) => {
    writer.u32(0);
    writer.u32(linkIndex);
  });
}

/** Reads RTM_NEWADDR; null for what is neither IPv4 nor IPv6. */
export function readAddress({ payload }: Message): AddressInfo | null {
  if (payload.length < 8 || (payload[0] !== AF[4] && payload[0] !== AF[6])) return null;
  const attributes = readAttributes(payload.subarray(8));
  // With a peer address, IFA_ADDRESS is the peer's; IPv6 without one has no IFA_LOCAL.
  const bytes = attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS);
  if (bytes === undefined) return null;
  const flags = readU32(attributes.get(IFA_FLAGS)) ?? payload.readUInt8(2);
  return {
    linkIndex: payload.readUInt32LE(4),
    address: addressFromBytes(bytes),
    prefixLength: payload.readUInt8(1),
    tentative: (flags & IFA_F_TENTATIVE) !== 0,
  };
}
