/**
 * The first packet of a connection, as bytes (RFC 791, 768, 792, 4443, 8200, 9293): for probes (pure).
 *
 * In: addresses, protocol, ports. Out: an IP packet with right checksums. Never: a payload.
 */
import { type Address, addressBytes, familyOf } from '../model/ip.ts';

export interface ProbePacket {
  readonly source: Address;
  readonly destination: Address;
  readonly protocol: number;
  readonly sourcePort: number | null;
  readonly destinationPort: number | null;
  readonly icmp: { readonly type: number; readonly code: number } | null;
  /** 16 bits, not 0: tells this packet from others. */
  readonly id: number;
}

const TCP = 6;
const UDP = 17;
const ICMPV6 = 58;
const SCTP = 132;
const HOPS = 64;

export function probePacket(packet: ProbePacket): Buffer {
  const body = bodyOf(packet);
  return Buffer.concat([familyOf(packet.source) === 4 ? header4(packet, body) : header6(packet, body), body]);
}

function header4({ source, destination, protocol, id }: ProbePacket, body: Buffer): Buffer {
  const header = Buffer.alloc(20);
  header[0] = 0x45;
  header.writeUInt16BE(header.length + body.length, 2);
  header.writeUInt16BE(id, 4);
  header[8] = HOPS;
  header[9] = protocol;
  header.set(addressBytes(source), 12);
  header.set(addressBytes(destination), 16);
  header.writeUInt16BE(checksum(header), 10);
  return header;
}

/** The flow label carries the id. */
function header6({ source, destination, protocol, id }: ProbePacket, body: Buffer): Buffer {
  const header = Buffer.alloc(40);
  header.writeUInt32BE(0x60000000 | id, 0);
  header.writeUInt16BE(body.length, 4);
  header[6] = protocol;
  header[7] = HOPS;
  header.set(addressBytes(source), 8);
  header.set(addressBytes(destination), 24);
  return header;
}

function bodyOf(packet: ProbePacket): Buffer {
  const { protocol, icmp, id } = packet;
  if (icmp !== null) {
    const body = Buffer.alloc(8);
    body.set([icmp.type, icmp.code]);
    body.writeUInt16BE(id, 4);
    const covered = protocol === ICMPV6 ? [pseudoHeader(packet, body.length), body] : [body];
    body.writeUInt16BE(checksum(Buffer.concat(covered)), 2);
    return body;
  }
  const body = Buffer.alloc(protocol === TCP ? 20 : protocol === UDP ? 8 : protocol === SCTP ? 32 : 0);
  if (body.length === 0) return body;
  body.writeUInt16BE(packet.sourcePort ?? 0, 0);
  body.writeUInt16BE(packet.destinationPort ?? 0, 2);
  if (protocol === TCP) {
    body.writeUInt32BE((id << 8) >>> 0, 4);
    body.set([5 << 4, 0x02], 12); // no options; SYN
    body.writeUInt16BE(0xffff, 14);
    body.writeUInt16BE(checksum(Buffer.concat([pseudoHeader(packet, body.length), body])), 16);
  } else if (protocol === UDP) {
    body.writeUInt16BE(body.length, 4);
    body.writeUInt16BE(checksum(Buffer.concat([pseudoHeader(packet, body.length), body])) || 0xffff, 6);
  } else {
    // An INIT chunk (RFC 9260).
    body.set([1, 0, 0, 20], 12);
    body.writeUInt32BE(id, 16);
    body.writeUInt32BE(0xffff, 20);
    body.set([0, 1, 0, 1], 24);
    body.writeUInt32BE(id, 28);
    body.writeUInt32LE(crc32c(body), 8);
  }
  return body;
}

function pseudoHeader({ source, destination, protocol }: ProbePacket, length: number): Buffer {
  const end = Buffer.alloc(8);
  end.writeUInt32BE(length, 0);
  end[7] = protocol;
  return Buffer.concat([addressBytes(source), addressBytes(destination), end]);
}

/** RFC 9260, appendix A */
function crc32c(bytes: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}

/** RFC 1071 */
function checksum(bytes: Buffer): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
