/**
 * Ethernet frames with IPv4 or IPv6 (RFC 791, RFC 8200), byte by byte and with right checksums: connection tracking looks at them.
 *
 * In: addresses, a transport packet, whether to cut it in two fragments. Out: frames. Never: a frame whose last bytes are not the
 * payload's: what arrives is recognised by them.
 */
import { type Address, addressBytes, familyOf } from '../../src/model/ip.ts';

export interface Transport {
  readonly protocol: number;
  /** With zeros where the checksum goes. */
  readonly bytes: Buffer;
  /** Where the checksum goes; null: it has none. */
  readonly checksumAt: number | null;
}

export const SYN = 0x02;
export const SYN_ACK = 0x12;

const TCP = 6;
const UDP = 17;
const ICMP = 1;
const ICMPV6 = 58;
const FRAGMENT = 44;
const HOPS = 64;
/** A multiple of 8 that holds the whole header of a transport. */
const FIRST_FRAGMENT = 24;

export function tcp(ports: readonly [number, number], flags: number, payload: Buffer): Transport {
  const header = Buffer.alloc(20);
  header.writeUInt16BE(ports[0], 0);
  header.writeUInt16BE(ports[1], 2);
  header.writeUInt32BE(flags === SYN ? 1 : 1000, 4);
  // The answer acknowledges the SYN.
  header.writeUInt32BE(flags === SYN ? 0 : 2, 8);
  header.writeUInt8(5 << 4, 12);
  header.writeUInt8(flags, 13);
  header.writeUInt16BE(65535, 14);
  return { protocol: TCP, bytes: Buffer.concat([header, payload]), checksumAt: 16 };
}

export function udp(ports: readonly [number, number], payload: Buffer): Transport {
  const header = Buffer.alloc(8);
  header.writeUInt16BE(ports[0], 0);
  header.writeUInt16BE(ports[1], 2);
  header.writeUInt16BE(8 + payload.length, 4);
  return { protocol: UDP, bytes: Buffer.concat([header, payload]), checksumAt: 6 };
}

/** @param family of the addresses */
export function icmp(family: 4 | 6, type: number, code: number, id: number, payload: Buffer): Transport {
  const header = Buffer.alloc(8);
  header.writeUInt8(type, 0);
  header.writeUInt8(code, 1);
  header.writeUInt16BE(id & 0xffff, 4);
  return {
    protocol: family === 4 ? ICMP : ICMPV6,
    bytes: Buffer.concat([header, payload]),
    checksumAt: 2,
  };
}

export function other(protocol: number, payload: Buffer): Transport {
  return { protocol, bytes: payload, checksumAt: null };
}

export interface Envelope {
  readonly source: Address;
  readonly destination: Address;
  readonly sourceMac: string;
  readonly destinationMac: string;
  /** Different for packets that are cut. */
  readonly id: number;
  readonly isCut: boolean;
}

/** One frame, or two fragments. */
export function framesOf(envelope: Envelope, transport: Transport): Buffer[] {
  const bytes = Buffer.from(transport.bytes);
  if (transport.checksumAt !== null) writeChecksum(bytes, envelope, transport);
  const pieces = envelope.isCut
    ? [
        { at: 0, more: true, bytes: bytes.subarray(0, FIRST_FRAGMENT) },
        { at: FIRST_FRAGMENT, more: false, bytes: bytes.subarray(FIRST_FRAGMENT) },
      ]
    : [{ at: 0, more: false, bytes }];
  const packet = familyOf(envelope.source) === 4 ? packet4 : packet6;
  return pieces.map((piece) => ethernet(envelope, packet(envelope, transport.protocol, piece)));
}

interface Piece {
  readonly at: number;
  readonly more: boolean;
  readonly bytes: Buffer;
}

function packet4(
  { source, destination, id }: Envelope,
  protocol: number,
  { at, more, bytes }: Piece,
): Buffer {
  const header = Buffer.alloc(20);
  header.writeUInt8(0x45, 0);
  header.writeUInt16BE(20 + bytes.length, 2);
  header.writeUInt16BE(id & 0xffff, 4);
  header.writeUInt16BE((more ? 0x2000 : 0) | (at >> 3), 6);
  header.writeUInt8(HOPS, 8);
  header.writeUInt8(protocol, 9);
  header.set(addressBytes(source), 12);
  header.set(addressBytes(destination), 16);
  header.writeUInt16BE(checksum([header]), 10);
  return Buffer.concat([header, bytes]);
}

function packet6(
  { source, destination, id, isCut }: Envelope,
  protocol: number,
  { at, more, bytes }: Piece,
): Buffer {
  const fragment = Buffer.alloc(isCut ? 8 : 0);
  if (isCut) {
    fragment.writeUInt8(protocol, 0);
    fragment.writeUInt16BE(at | (more ? 1 : 0), 2);
    fragment.writeUInt32BE(id, 4);
  }
  const header = Buffer.alloc(40);
  header.writeUInt8(0x60, 0);
  header.writeUInt16BE(fragment.length + bytes.length, 4);
  header.writeUInt8(isCut ? FRAGMENT : protocol, 6);
  header.writeUInt8(HOPS, 7);
  header.set(addressBytes(source), 8);
  header.set(addressBytes(destination), 24);
  return Buffer.concat([header, fragment, bytes]);
}

function ethernet({ source, sourceMac, destinationMac }: Envelope, packet: Buffer): Buffer {
  const mac = (text: string): Buffer => Buffer.from(text.replaceAll(':', ''), 'hex');
  const type = familyOf(source) === 4 ? [0x08, 0x00] : [0x86, 0xdd];
  return Buffer.concat([mac(destinationMac), mac(sourceMac), Buffer.from(type), packet]);
}

/** IPv4's ICMP is the only one that leaves the addresses out. */
function writeChecksum(bytes: Buffer, { source, destination }: Envelope, transport: Transport): void {
  const { protocol, checksumAt } = transport;
  const pseudo = Buffer.alloc(8);
  pseudo.writeUInt32BE(bytes.length, 0);
  pseudo.writeUInt32BE(protocol, 4);
  const addresses = [Buffer.from(addressBytes(source)), Buffer.from(addressBytes(destination)), pseudo];
  const sum = checksum(protocol === ICMP ? [bytes] : [...addresses, bytes]);
  bytes.writeUInt16BE(protocol === UDP && sum === 0 ? 0xffff : sum, checksumAt!);
}

/** RFC 1071. Each part but the last has an even length. */
function checksum(parts: readonly Buffer[]): number {
  let sum = 0;
  for (const part of parts) {
    for (let at = 0; at + 1 < part.length; at += 2) sum += part.readUInt16BE(at);
    if (part.length % 2 === 1) sum += part[part.length - 1]! << 8;
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
