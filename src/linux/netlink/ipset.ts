/**
 * IP sets over nfnetlink (linux/netfilter/ipset/ip_set.h): create, destroy, flush, add, delete, list.
 *
 * In: requests of ports.ts. Out: messages, members by the hundred in each; sets with members; ipset's own errors as text.
 * Never: an error because a member to add is there or one to delete is not (messages go without NLM_F_EXCL), a member in
 * another form than the kernel will list it.
 */
import { invalid } from '../../lib/errors.ts';
import {
  addressBytes,
  addressFromBytes,
  type Cidr,
  cidrBase,
  familyOf,
  parseCidr,
  prefixLength,
} from '../../model/ip.ts';
import { parseInterfaceName } from '../../model/names.ts';
import type { IpSetInfo, IpSetMember, IpSetRequest, IpSetType } from '../ports.ts';
import { AF } from './address.ts';
import {
  type ByteWriter,
  eachAttribute,
  NLA_F_NESTED,
  NLA_F_NET_BYTEORDER,
  readAttributes,
  readText,
  readU32,
} from './attribute.ts';
import { errnoName } from './errno.ts';
import { dumpRequest, type Message, type MessageBatch, NLM_F_CREATE } from './message.ts';

const NFNL_SUBSYS_IPSET = 6;
const CREATE = 2;
const DESTROY = 3;
const FLUSH = 4;
const LIST = 7;
const ADD = 9;
const DEL = 10;
/** The oldest protocol that today's kernels speak; version 7 added nothing that we use. */
const PROTOCOL_VERSION = 6;
const ATTR_PROTOCOL = 1;
const ATTR_SETNAME = 2;
const ATTR_TYPENAME = 3;
const ATTR_REVISION = 4;
const ATTR_FAMILY = 5;
const ATTR_FLAGS = 6;
const ATTR_DATA = 7;
const ATTR_ADT = 8;
const ATTR_LINENO = 9;
const ATTR_IP = 1;
const ATTR_CIDR = 3;
const ATTR_MAXELEM = 19;
const ATTR_IFACE = 23;
const ATTR_IPADDR = { 4: 1, 6: 2 };
const FLAG_LIST_SETNAME = 2;
const MAX_MEMBERS = 1048576;
const MAX_NAME = 31;
/** Well below the 64 KiB that an attribute can hold, however long the interface names. */
const MEMBERS_PER_MESSAGE = 500;

const TYPE_NAMES = { net: 'hash:net', 'net,iface': 'hash:net,iface' };

/** A request, or the part of one that fits a message. */
export interface IpSetPart {
  readonly request: IpSetRequest;
  /** Number of the request in its batch. */
  readonly position: number;
  /** Number of the part's first member in its request. */
  readonly firstLine: number;
}

/** Cuts long lists of members into parts of one message each. */
export function splitIpSetRequests(requests: readonly IpSetRequest[]): IpSetPart[] {
  return requests.flatMap((request, position): IpSetPart[] => {
    if (request.kind !== 'add' && request.kind !== 'delete') return [{ request, position, firstLine: 0 }];
    const parts: IpSetPart[] = [];
    for (let firstLine = 0; firstLine < request.members.length; firstLine += MEMBERS_PER_MESSAGE) {
      const members = request.members.slice(firstLine, firstLine + MEMBERS_PER_MESSAGE);
      parts.push({ request: { ...request, members }, position, firstLine });
    }
    return parts;
  });
}

/** Appends one message. @throws INVALID for a name or member that the kernel would not take */
export function writeIpSet(batch: MessageBatch, { request, firstLine }: IpSetPart): void {
  checkSetName(request.name);
  switch (request.kind) {
    case 'create':
      writeCommand(batch, CREATE, request.name, AF[request.family], (writer) => {
        writer.attributeText(ATTR_TYPENAME, TYPE_NAMES[request.type]);
        writer.attributeU8(ATTR_REVISION, 0);
        writer.attributeU8(ATTR_FAMILY, AF[request.family]);
        writer.nested(ATTR_DATA | NLA_F_NESTED, () => {
          writer.attributeU32NetworkOrder(ATTR_MAXELEM | NLA_F_NET_BYTEORDER, MAX_MEMBERS);
        });
      });
      break;
    case 'destroy':
      writeCommand(batch, DESTROY, request.name, 0, () => {});
      break;
    case 'flush':
      writeCommand(batch, FLUSH, request.name, 0, () => {});
      break;
    case 'add':
    case 'delete':
      writeCommand(batch, request.kind === 'add' ? ADD : DEL, request.name, 0, (writer) => {
        // With line numbers an error names the line, that is the member; 0 would mean none.
        writer.attributeU32(ATTR_LINENO, firstLine + 1);
        writer.nested(ATTR_ADT | NLA_F_NESTED, () => {
          for (const [i, member] of request.members.entries()) writeMember(writer, member, firstLine + i + 1);
        });
      });
      break;
  }
}

function writeMember(writer: ByteWriter, member: IpSetMember, line: number): void {
  const { cidr, iface } = parseMember(member);
  const family = familyOf(cidr);
  writer.nested(ATTR_DATA | NLA_F_NESTED, () => {
    writer.nested(ATTR_IP | NLA_F_NESTED, () => {
      writer.attribute(ATTR_IPADDR[family] | NLA_F_NET_BYTEORDER, addressBytes(cidrBase(cidr)));
    });
    writer.attributeU8(ATTR_CIDR, prefixLength(cidr));
    if (iface !== null) writer.attributeText(ATTR_IFACE, iface);
    writer.attributeU32(ATTR_LINENO, line);
  });
}

/** `10.0.0.0/8` or `10.0.0.0/8,eth0`. @throws INVALID */
export function parseMember(member: IpSetMember): { cidr: Cidr; iface: string | null } {
  const comma = member.indexOf(',');
  const cidr = parseCidr(comma < 0 ? member : member.slice(0, comma), 'member');
  if (prefixLength(cidr) === 0) throw invalid('member', member, 'a prefix of length 1 or more');
  return { cidr, iface: comma < 0 ? null : parseInterfaceName(member.slice(comma + 1), 'member') };
}

export function checkSetName(name: string): void {
  if (!/^[^\s\0]{1,31}$/.test(name)) throw invalid('name', name, `a set name of 1 to ${MAX_NAME} characters`);
}

/** A list of the names of all sets, without members. */
export function setNamesDump(): Buffer {
  return dumpRequest(messageType(LIST), (writer) => {
    writeHeader(writer, 0);
    writer.attributeU8(ATTR_PROTOCOL, PROTOCOL_VERSION);
    writer.attributeU32NetworkOrder(ATTR_FLAGS | NLA_F_NET_BYTEORDER, FLAG_LIST_SETNAME);
  });
}

/** One set with its members. */
export function setDump(name: string): Buffer {
  return dumpRequest(messageType(LIST), (writer) => {
    writeHeader(writer, 0);
    writer.attributeU8(ATTR_PROTOCOL, PROTOCOL_VERSION);
    writer.attributeText(ATTR_SETNAME, name);
  });
}

/** One message of a list: a large set comes in several, all with its name, only the first with its type. */
export function readSetPart({
  payload,
}: Message): (Omit<IpSetInfo, 'type'> & { type: IpSetType | 'other' | null }) | null {
  const attributes = readAttributes(payload.subarray(4));
  const name = readText(attributes.get(ATTR_SETNAME));
  if (name === null) return null;
  const typeName = readText(attributes.get(ATTR_TYPENAME));
  const adt = attributes.get(ATTR_ADT);
  const type = typeName === 'hash:net' ? 'net' : typeName === 'hash:net,iface' ? 'net,iface' : 'other';
  return {
    name,
    type: typeName === null ? null : type,
    family: attributes.get(ATTR_FAMILY)?.[0] === AF[6] ? 6 : 4,
    members: adt ? [...eachAttribute(adt)].flatMap(({ value }) => readMember(value)) : [],
  };
}

function readMember(bytes: Buffer): IpSetMember[] {
  const attributes = readAttributes(bytes);
  const ip = attributes.get(ATTR_IP);
  const address = ip
    ? (readAttributes(ip).get(ATTR_IPADDR[4]) ?? readAttributes(ip).get(ATTR_IPADDR[6]))
    : undefined;
  if (address === undefined) return [];
  const bits = attributes.get(ATTR_CIDR)?.[0] ?? address.length * 8;
  const iface = readText(attributes.get(ATTR_IFACE));
  return [`${addressFromBytes(address)}/${bits}${iface === null ? '' : `,${iface}`}`];
}

/** Which member the error is about, from 0: the kernel sends the request back with the line in it. Null where it does not. */
export function readFailedLine({ payload }: Message): number | null {
  const requestStart = 4 + 16 + 4;
  if (payload.length <= requestStart) return null;
  const line = readU32(readAttributes(payload.subarray(requestStart)).get(ATTR_LINENO));
  return line === null ? null : line - 1;
}

const ERRORS: ReadonlyMap<number, readonly [name: string, text: string]> = new Map([
  [
    4097,
    ['IPSET_ERR_PROTOCOL', 'the message does not fit the set: another address family or kind of member'],
  ],
  [4098, ['IPSET_ERR_FIND_TYPE', 'the kernel has no such set type']],
  [4099, ['IPSET_ERR_MAX_SETS', 'the most sets possible exist']],
  [4100, ['IPSET_ERR_BUSY', 'the set is in use by a rule']],
  [4101, ['IPSET_ERR_EXIST_SETNAME2', 'a set of the new name exists']],
  [4102, ['IPSET_ERR_TYPE_MISMATCH', 'the sets differ in type']],
  [4103, ['IPSET_ERR_EXIST', 'the member is there already, or not there to delete']],
  [4104, ['IPSET_ERR_INVALID_CIDR', 'the prefix length is not valid']],
  [4105, ['IPSET_ERR_INVALID_NETMASK', 'the netmask is not valid']],
  [4106, ['IPSET_ERR_INVALID_FAMILY', 'the address family is not that of the set']],
  [4107, ['IPSET_ERR_TIMEOUT', 'the set has no timeouts']],
  [4108, ['IPSET_ERR_REFERENCED', 'the set is referred to']],
  [4109, ['IPSET_ERR_IPADDR_IPV4', 'an IPv4 address is needed']],
  [4110, ['IPSET_ERR_IPADDR_IPV6', 'an IPv6 address is needed']],
  [4111, ['IPSET_ERR_COUNTER', 'the set has no counters']],
  [4112, ['IPSET_ERR_COMMENT', 'the set has no comments']],
  [4113, ['IPSET_ERR_INVALID_MARKMASK', 'the mark mask is not valid']],
  [4114, ['IPSET_ERR_SKBINFO', 'the set has no packet metadata']],
  [4352, ['IPSET_ERR_HASH_FULL', 'the set is full']],
  [4353, ['IPSET_ERR_HASH_ELEM', 'the member is not of the kind that the set holds']],
]);

/** The symbolic name of an error of this subsystem, and words for ipset's own (4096 and up), which come without. */
export function ipSetError(errno: number): { name: string; text: string | null } {
  const own = ERRORS.get(errno);
  return own ? { name: own[0], text: own[1] } : { name: errnoName(errno), text: null };
}

function writeCommand(
  batch: MessageBatch,
  command: number,
  name: string,
  family: number,
  body: (writer: ByteWriter) => void,
): void {
  batch.add(messageType(command), command === CREATE ? NLM_F_CREATE : 0, (writer) => {
    writeHeader(writer, family);
    writer.attributeU8(ATTR_PROTOCOL, PROTOCOL_VERSION);
    writer.attributeText(ATTR_SETNAME, name);
    body(writer);
  });
}

/** struct nfgenmsg */
function writeHeader(writer: ByteWriter, family: number): void {
  writer.u8(family);
  writer.u8(0);
  writer.u16(0);
}

function messageType(command: number): number {
  return (NFNL_SUBSYS_IPSET << 8) | command;
}
