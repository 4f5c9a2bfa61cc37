/**
 * Frames that tell or ask who has an address: ARP (RFC 826, RFC 5227) for IPv4, neighbour discovery (RFC 4861, RFC 4862) for IPv6.
 *
 * In: addresses, MACs; received frames. Out: Ethernet frames to send; who claims what in a received one. Never: a frame that makes
 * others learn an address that we are only asking about.
 */
import { type Address, addressBytes, addressFromBytes, familyOf } from '../model/ip.ts';
import { type Mac, macBytes, macFromBytes } from '../model/mac.ts';

/** Numbers of linux/if_ether.h. */
export const etherTypes = { 4: 0x0806, 6: 0x86dd } as const;

/** Everything that tells who has an address, heard before rules on the link drop it. */
export const allTypes = 0x0003;

const BROADCAST = new Uint8Array(6).fill(0xff);
const MINIMUM_FRAME_BYTES = 60;
const ARP_REQUEST = 1;
const ARP_REPLY = 2;
const ICMPV6 = 58;
const NEIGHBOUR_SOLICITATION = 135;
const NEIGHBOUR_ADVERTISEMENT = 136;
const OVERRIDE = 0x20000000;
const SOURCE_LINK_ADDRESS = 1;
const TARGET_LINK_ADDRESS = 2;
const ALL_NODES = addressBytes('ff02::1' as Address);
const NOBODY = { 4: new Uint8Array(4), 6: new Uint8Array(16) };

/**
 * Tells everybody on the wire that the address is at the MAC now. IPv4: gratuitous ARP, as request and as reply, since some devices
 * heed only one of them. IPv6: an unsolicited advertisement that overrides.
 */
export function announcement(address: Address, mac: Mac): Buffer[] {
  const bytes = addressBytes(address);
  if (familyOf(address) === 4)
    return [ARP_REQUEST, ARP_REPLY].map((operation) =>
      arp(operation, mac, bytes, operation === ARP_REPLY ? BROADCAST : NOBODY[4], bytes),
    );
  const body = Buffer.alloc(32);
  body.writeUInt8(NEIGHBOUR_ADVERTISEMENT, 0);
  body.writeUInt32BE(OVERRIDE, 4);
  body.set(bytes, 8);
  body.writeUInt8(TARGET_LINK_ADDRESS, 24);
  body.writeUInt8(1, 25);
  body.set(macBytes(mac), 26);
  return [icmpv6(mac, bytes, ALL_NODES, body)];
}

/** Asks whether somebody has the address, as nobody: others learn nothing from it. */
export function probe(address: Address, mac: Mac): Buffer {
  const bytes = addressBytes(address);
  if (familyOf(address) === 4) return arp(ARP_REQUEST, mac, NOBODY[4], NOBODY[4], bytes);
  const body = Buffer.alloc(24);
  body.writeUInt8(NEIGHBOUR_SOLICITATION, 0);
  body.set(bytes, 8);
  return icmpv6(mac, NOBODY[6], solicitedNode(bytes), body);
}

/** Asks who has the address, as one of the wire: others learn where the asker is, which they know. */
export function question(target: Address, source: Address, mac: Mac): Buffer {
  const bytes = addressBytes(target);
  const own = addressBytes(source);
  if (familyOf(target) === 4) return arp(ARP_REQUEST, mac, own, NOBODY[4], bytes);
  const body = Buffer.alloc(32);
  body.writeUInt8(NEIGHBOUR_SOLICITATION, 0);
  body.set(bytes, 8);
  body.writeUInt8(SOURCE_LINK_ADDRESS, 24);
  body.writeUInt8(1, 25);
  body.set(macBytes(mac), 26);
  return icmpv6(mac, own, solicitedNode(bytes), body);
}

export interface Claim {
  readonly address: Address;
  readonly mac: Mac;
  /** It only asks for the address, to have it next. */
  readonly isProbe: boolean;
}

/** What a received frame says about who has (or is about to take) an address; null where it says nothing of the kind. */
export function readClaim(frame: Buffer): Claim | null {
  if (frame.length < 42) return null;
  const etherType = frame.readUInt16BE(12);
  if (etherType === etherTypes[4]) return readArp(frame);
  if (etherType === etherTypes[6]) return readNeighbour(frame);
  return null;
}

function readArp(frame: Buffer): Claim | null {
  if (frame.readUInt16BE(14) !== 1 || frame.readUInt16BE(16) !== 0x0800) return null;
  const mac = macFromBytes(frame.subarray(22, 28));
  const sender = frame.subarray(28, 32);
  if (sender.some((byte) => byte !== 0)) return { address: addressFromBytes(sender), mac, isProbe: false };
  return { address: addressFromBytes(frame.subarray(38, 42)), mac, isProbe: true };
}

function readNeighbour(frame: Buffer): Claim | null {
  if (frame.length < 78 || frame.readUInt8(20) !== ICMPV6) return null;
  const type = frame.readUInt8(54);
  const target = addressFromBytes(frame.subarray(62, 78));
  const sender = macFromBytes(frame.subarray(6, 12));
  if (type === NEIGHBOUR_ADVERTISEMENT) return { address: target, mac: sender, isProbe: false };
  const asNobody = frame.subarray(22, 38).every((byte) => byte === 0);
  return type === NEIGHBOUR_SOLICITATION && asNobody ? { address: target, mac: sender, isProbe: true } : null;
}

function arp(
  operation: number,
  senderMac: Mac,
  sender: Uint8Array,
  targetMac: Uint8Array,
  target: Uint8Array,
): Buffer {
  const frame = Buffer.alloc(MINIMUM_FRAME_BYTES);
  frame.set(BROADCAST, 0);
  frame.set(macBytes(senderMac), 6);
  frame.writeUInt16BE(etherTypes[4], 12);
  frame.writeUInt16BE(1, 14);
  frame.writeUInt16BE(0x0800, 16);
  frame.writeUInt8(6, 18);
  frame.writeUInt8(4, 19);
  frame.writeUInt16BE(operation, 20);
  frame.set(macBytes(senderMac), 22);
  frame.set(sender, 28);
  frame.set(targetMac.subarray(0, 6), 32);
  frame.set(target, 38);
  return frame;
}

/** To a multicast address: its MAC is 33:33 and the last four bytes (RFC 2464). Hop limit 255, or receivers ignore it. */
function icmpv6(mac: Mac, source: Uint8Array, destination: Uint8Array, body: Buffer): Buffer {
  const frame = Buffer.alloc(54 + body.length);
  frame.set([0x33, 0x33, ...destination.subarray(12)], 0);
  frame.set(macBytes(mac), 6);
  frame.writeUInt16BE(etherTypes[6], 12);
  frame.writeUInt8(0x60, 14);
  frame.writeUInt16BE(body.length, 18);
  frame.writeUInt8(ICMPV6, 20);
  frame.writeUInt8(255, 21);
  frame.set(source, 22);
  frame.set(destination, 38);
  frame.set(body, 54);
  frame.writeUInt16BE(checksum(source, destination, body), 56);
  return frame;
}

/** RFC 4443, 2.3: over a pseudo-header of addresses, length and protocol, and the message. */
function checksum(source: Uint8Array, destination: Uint8Array, body: Buffer): number {
  const words = Buffer.concat([
    source,
    destination,
    Buffer.from([0, 0, 0, body.length, 0, 0, 0, ICMPV6]),
    body,
  ]);
  let sum = 0;
  for (let at = 0; at < words.length; at += 2) sum += words.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** RFC 4291, 2.7.1: ff02::1:ff and the last three bytes. */
function solicitedNode(address: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(16);
  bytes.set([0xff, 0x02], 0);
  bytes.set([1, 0xff], 11);
  bytes.set(address.subarray(13), 13);
  return bytes;
}
