/**
 * Connection tracking over nfnetlink (linux/netfilter/nfnetlink_conntrack.h): delete what has an address.
 *
 * In: an address, or what picks connections. Out: deletions by filter, one for each of the two places that it can stand in; a list of
 * connections and deletions one by one. Never: a deletion without a tuple, which would flush the whole table.
 */
import { type Address, addressBytes, addressFromBytes, type Family, familyOf } from '../../model/ip.ts';
import type { TrackedConnection } from '../ports.ts';
import { AF } from './address.ts';
import {
  attributeEnd,
  type ByteWriter,
  findAttribute,
  NLA_F_NESTED,
  NLA_F_NET_BYTEORDER,
  readAttributes,
} from './attribute.ts';
import { dumpRequest, type Message, type MessageBatch } from './message.ts';

const NFNL_SUBSYS_CTNETLINK = 1;
const GET = 1;
const DELETE = 2;
const GET_STATS = 5;
const CTA_STATS_GLOBAL_ENTRIES = 1;
const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_REPLY = 2;
const CTA_ID = 12;
const CTA_ZONE = 18;
const CTA_FILTER = 25;
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_PROTO = {
  number: 1,
  sourcePort: 2,
  destinationPort: 3,
  icmp: { 4: { type: 5, code: 6 }, 6: { type: 8, code: 9 } },
} as const;
const CTA_IP = { 4: { source: 1, destination: 2 }, 6: { source: 3, destination: 4 } } as const;
const CTA_FILTER_ORIG_FLAGS = 1;
const CTA_FILTER_REPLY_FLAGS = 2;
/** Bits of a filter's flags (the kernel's net/netfilter/nf_internals.h): which field of the tuple counts. */
const FILTER_IP = { source: 1, destination: 2 } as const;

const TUPLE = { original: CTA_TUPLE_ORIG, reply: CTA_TUPLE_REPLY } as const;
const AF_UNSPEC = 0;
const NFGENMSG_BYTES = 4;

type Direction = 'original' | 'reply';
type End = 'source' | 'destination';

/**
 * Where who has an end of a connection stands, however it is translated: its first packets are sent from there, or its answers. Only in a
 * destination stands an address whose packets another one gets.
 */
const PLACES: readonly (readonly [Direction, End])[] = [
  ['original', 'source'],
  ['reply', 'source'],
];

/** Two messages that delete all connections that the address has an end of; EOPNOTSUPP or EINVAL from kernels without the filter. */
export function writeFilteredDeletes(batch: MessageBatch, address: Address): void {
  const family = familyOf(address);
  for (const [direction, end] of PLACES) {
    batch.add(messageType(DELETE), 0, (writer) => {
      writeHeader(writer, family);
      writeTuple(writer, direction, end, address);
      writer.nested(CTA_FILTER | NLA_F_NESTED, () => {
        writer.attributeU32(CTA_FILTER_ORIG_FLAGS, direction === 'original' ? FILTER_IP[end] : 0);
        writer.attributeU32(CTA_FILTER_REPLY_FLAGS, direction === 'reply' ? FILTER_IP[end] : 0);
      });
    });
  }
}

/** Microseconds for the kernel's table as it is, and for each connection in it: docs/decisions/0028-what-add-and-del-wait-for.md. */
const COST = { filter: { table: 440, each: 0.6 }, list: { table: 4000, each: 1.6 } } as const;

/** Whether one list to choose from costs less than deletions by filter, two for each of the addresses. */
export function isListCheaper(addresses: number, connections: number): boolean {
  const { filter, list } = COST;
  return addresses * (filter.table + filter.each * connections) > list.table + list.each * connections;
}

/** Asks how many connections the namespace has. */
export function writeCountRequest(batch: MessageBatch): void {
  batch.add(messageType(GET_STATS), 0, (writer) => writeHeader(writer, 4));
}

/** The answer to writeCountRequest; null for another message. */
export function readCount({ type, payload }: Message): number | null {
  if (type !== messageType(GET_STATS)) return null;
  return (
    readAttributes(payload.subarray(NFGENMSG_BYTES)).get(CTA_STATS_GLOBAL_ENTRIES)?.readUInt32BE(0) ?? null
  );
}

/** @param family null: both */
export function connectionDump(family: Family | null): Buffer {
  return dumpRequest(messageType(GET), (writer) => writeHeader(writer, family));
}

/** What names one connection, in the kernel's own bytes. */
export interface Connection {
  readonly family: Family;
  readonly original: Buffer;
  readonly reply: Buffer;
  readonly id: Buffer | undefined;
  readonly zone: Buffer | undefined;
}

/** Reads one message of a list; null for what is not a connection of IPv4 or IPv6. */
export function readConnection({ payload }: Message): Connection | null {
  const family = familyIn(payload);
  if (family === null) return null;
  const attributes = readAttributes(payload.subarray(NFGENMSG_BYTES));
  const original = attributes.get(CTA_TUPLE_ORIG);
  const reply = attributes.get(CTA_TUPLE_REPLY);
  if (original === undefined || reply === undefined) return null;
  return { family, original, reply, id: attributes.get(CTA_ID), zone: attributes.get(CTA_ZONE) };
}

/** Picks out of a list the connections that one of the addresses has an end of. Of the others, no more is read than these ends. */
export class ConnectionPicker {
  readonly #wanted: ReadonlySet<string>;

  constructor(addresses: Iterable<Address>) {
    this.#wanted = new Set(
      Array.from(addresses, (address) => Buffer.from(addressBytes(address)).toString('latin1')),
    );
  }

  pick(message: Message): Connection | null {
    const { payload } = message;
    const family = familyIn(payload);
    if (family === null) return null;
    const isWanted = PLACES.some(([direction, end]) => {
      const tuple = findAttribute(payload, NFGENMSG_BYTES, payload.length, TUPLE[direction]);
      const ip = tuple < 0 ? -1 : findAttribute(payload, tuple, attributeEnd(payload, tuple), CTA_TUPLE_IP);
      const at = ip < 0 ? -1 : findAttribute(payload, ip, attributeEnd(payload, ip), CTA_IP[family][end]);
      return at >= 0 && this.#wanted.has(payload.toString('latin1', at, attributeEnd(payload, at)));
    });
    return isWanted ? readConnection(message) : null;
  }
}

/** The first packet as a filter has seen it: destination and its port are where the answers come from. */
export function trackedConnection({ family, original, reply }: Connection): TrackedConnection | null {
  const [first, answer] = [readTuple(original, family), readTuple(reply, family)];
  if (first === null || answer === null) return null;
  return { ...first, destination: answer.source, destinationPort: answer.sourcePort };
}

/** The first packet as the wire has seen it: its source is where the answers go to. */
export function connectionOnWire({ family, original, reply }: Connection): TrackedConnection | null {
  const [first, answer] = [readTuple(original, family), readTuple(reply, family)];
  if (first === null || answer === null) return null;
  return { ...first, source: answer.destination, sourcePort: answer.destinationPort };
}

function readTuple(bytes: Buffer, family: Family): TrackedConnection | null {
  const tuple = readAttributes(bytes);
  const ip = readAttributes(tuple.get(CTA_TUPLE_IP) ?? Buffer.alloc(0));
  const proto = readAttributes(tuple.get(CTA_TUPLE_PROTO) ?? Buffer.alloc(0));
  const [source, destination] = [ip.get(CTA_IP[family].source), ip.get(CTA_IP[family].destination)];
  const protocol = proto.get(CTA_PROTO.number)?.[0];
  if (source === undefined || destination === undefined || protocol === undefined) return null;
  const port = (which: number): number | null => proto.get(which)?.readUInt16BE(0) ?? null;
  const type = proto.get(CTA_PROTO.icmp[family].type)?.[0];
  return {
    source: addressFromBytes(source),
    destination: addressFromBytes(destination),
    protocol,
    sourcePort: port(CTA_PROTO.sourcePort),
    destinationPort: port(CTA_PROTO.destinationPort),
    icmp: type === undefined ? null : { type, code: proto.get(CTA_PROTO.icmp[family].code)?.[0] ?? 0 },
  };
}

/** Deletes exactly this connection: the id tells it from a later one with the same ports. */
export function writeDelete(batch: MessageBatch, connection: Connection): void {
  batch.add(messageType(DELETE), 0, (writer) => {
    writeHeader(writer, connection.family);
    writer.attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, connection.original);
    if (connection.zone !== undefined) writer.attribute(CTA_ZONE | NLA_F_NET_BYTEORDER, connection.zone);
    if (connection.id !== undefined) writer.attribute(CTA_ID | NLA_F_NET_BYTEORDER, connection.id);
  });
}

function writeTuple(writer: ByteWriter, direction: Direction, end: End, address: Address): void {
  writer.nested(TUPLE[direction] | NLA_F_NESTED, () => {
    writer.nested(CTA_TUPLE_IP | NLA_F_NESTED, () => {
      writer.attribute(CTA_IP[familyOf(address)][end], addressBytes(address));
    });
  });
}

function familyIn(payload: Buffer): Family | null {
  return payload[0] === AF[4] ? 4 : payload[0] === AF[6] ? 6 : null;
}

/** struct nfgenmsg */
function writeHeader(writer: ByteWriter, family: Family | null): void {
  writer.u8(family === null ? AF_UNSPEC : AF[family]);
  writer.u8(0);
  writer.u16(0);
}

function messageType(command: number): number {
  return (NFNL_SUBSYS_CTNETLINK << 8) | command;
}
