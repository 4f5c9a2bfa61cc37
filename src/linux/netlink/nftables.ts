/**
 * nftables over nfnetlink (linux/netfilter/nf_tables.h): transactions. What a table holds is read by nft-list.ts.
 *
 * In: requests of ports.ts. Out: messages in a batch that the kernel carries out as a whole. Never: a request outside a batch.
 */
import { invalid } from '../../lib/errors.ts';
import type { NftExpression, NftHook, NftPlace, NftRequest, NftSetSpec } from '../nftables-port.ts';
import { AF } from './address.ts';
import { type ByteWriter, NLA_F_NESTED } from './attribute.ts';
import { type MessageBatch, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL } from './message.ts';
import { layoutOf, writeElement, writeRange } from './nft-element.ts';
import {
  ANONYMOUS_SET,
  LIST_ELEMENT,
  type PortSet,
  portSetOf,
  u16,
  writeExpression,
} from './nft-expression.ts';

const NFNL_SUBSYS_NFTABLES = 10;
/** In the frame of a transaction. */
const SUBSYSTEM = u16(NFNL_SUBSYS_NFTABLES);
const BATCH_BEGIN = 0x10;
const BATCH_END = 0x11;
const NLM_F_APPEND = 0x800;
/** Messages; what asks for a list is one more than what makes, what deletes two more. */
export const MESSAGES = { table: 0, chain: 3, rule: 6, set: 9, elements: 12, generation: 15 } as const;
const DELETE = 2;

export const SET_ANONYMOUS = 0x1;
const SET_CONSTANT = 0x2;
const SET_INTERVAL = 0x4;
export const SET_MAP = 0x8;
const SET_CONCATENATED = 0x80;
const HOST_ORDER = 1;
const PORT_TYPE = 13;
export const POLICY_ACCEPT = 1;
export const HOOKS = { prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4 } as const;
/** Of the link layer. */
export const LINK_HOOKS = { ingress: 0, egress: 1 } as const;
const NFPROTO_NETDEV = 5;
export const USERDATA_COMMENT = 0;
const MAX_COMMENT = 127;
const MAX_NAME = 255;
const NAME = /^[a-zA-Z][\w./-]{0,254}$/;
/**
 * Of a set whose size is known, the kernel makes a table of fixed size, in which it finds faster; beyond it takes no more. Every packet
 * of an endpoint is looked up among the pairs, and no host has as many.
 */
export const MAX_PAIRS = 65_536;
/** Well below the 64 KiB that an attribute can hold. */
const ELEMENTS_PER_MESSAGE = 500;

/** Expressions that were met before in the transaction, by identity: most rules load the same things. */
type Encoded = Map<NftExpression, Buffer>;
const SHARED: ReadonlySet<NftExpression['kind']> = new Set(['meta', 'payload', 'counter']);

/** A request, or the part of one that fits a message. */
export interface NftPart {
  readonly request: NftRequest;
  /** Number of the request in its transaction. */
  readonly position: number;
}

/** Cuts long lists of elements into parts of one message each. */
export function splitNftRequests(requests: readonly NftRequest[]): NftPart[] {
  return requests.flatMap((request, position): NftPart[] => {
    if (request.kind !== 'elements-add' && request.kind !== 'elements-delete') return [{ request, position }];
    if (request.elements.length <= ELEMENTS_PER_MESSAGE)
      return request.elements.length === 0 ? [] : [{ request, position }];
    const parts: NftPart[] = [];
    for (let first = 0; first < request.elements.length; first += ELEMENTS_PER_MESSAGE) {
      const elements = request.elements.slice(first, first + ELEMENTS_PER_MESSAGE);
      parts.push({ request: { ...request, elements }, position });
    }
    return parts;
  });
}

/**
 * Appends a whole transaction; the last request asks for an acknowledgement. Returns the position of the request that each message
 * belongs to (the first and the last message belong to none).
 * @throws INVALID for what the kernel would not take
 */
export function writeTransaction(batch: MessageBatch, parts: readonly NftPart[]): (number | null)[] {
  const positions: (number | null)[] = [];
  const frame = (type: number): void => {
    batch.add(type, 0, (writer) => {
      writer.u8(0);
      writer.u8(0);
      writer.raw(SUBSYSTEM);
    });
    positions.push(null);
  };
  const known: Encoded = new Map();
  frame(BATCH_BEGIN);
  for (const [i, { request, position }] of parts.entries()) {
    writeRequest(batch, request, i === parts.length - 1 ? NLM_F_ACK : 0, known);
    while (positions.length < batch.count) positions.push(position);
  }
  frame(BATCH_END);
  return positions;
}

/** All but its elements, each of which is checked when it is written. @throws INVALID for a name or comment that the kernel would not take */
export function checkNftRequest(request: NftRequest): void {
  for (const key of ['table', 'chain', 'set'] as const) {
    const name = (request as { readonly [key in typeof key]?: string })[key];
    if (name !== undefined && !NAME.test(name)) {
      throw invalid(key, name, `letters, digits, "_", ".", "/" or "-", a letter first, at most ${MAX_NAME}`);
    }
  }
  if (request.kind === 'rule-add' && !/^[ !#-~]{0,127}$/.test(request.rule.comment)) {
    throw invalid('comment', request.rule.comment, `at most ${MAX_COMMENT} printable characters`);
  }
}

function writeRequest(batch: MessageBatch, request: NftRequest, acknowledge: number, known: Encoded): void {
  const { family, table } = request;
  const protocol = protocolOf(request);
  if (request.kind === 'rule-add') {
    writeRule(batch, request, acknowledge, known);
    return;
  }
  batch.add(messageType(typeOf(request)), createFlags(request) | acknowledge, (writer) => {
    writeHeader(writer, protocol);
    writer.attributeText(1, table);
    switch (request.kind) {
      case 'chain-add':
        writer.attributeText(3, request.chain);
        if (request.hook !== null) writeHook(writer, request.hook);
        break;
      case 'chain-delete':
        writer.attributeText(3, request.chain);
        break;
      case 'chain-flush':
        writer.attributeText(2, request.chain);
        break;
      case 'set-add':
        writeSet(writer, request);
        break;
      case 'set-delete':
        writer.attributeText(2, request.set);
        break;
      case 'elements-add':
      case 'elements-delete':
        writer.attributeText(2, request.set);
        writer.nested(3 | NLA_F_NESTED, () => {
          for (const element of request.elements) writeElement(writer, family, request.spec, element);
        });
    }
  });
}

function createFlags({ kind }: NftRequest): number {
  if (kind === 'table-make') return NLM_F_CREATE | NLM_F_EXCL;
  return kind.endsWith('-add') ? NLM_F_CREATE : 0;
}

function typeOf({ kind }: NftRequest): number {
  if (kind === 'chain-flush') return MESSAGES.rule + DELETE;
  const [object, verb] = kind.split('-') as [keyof typeof MESSAGES, string];
  const type = MESSAGES[object];
  return verb === 'add' || verb === 'make' ? type : type + DELETE;
}

function writeHook(writer: ByteWriter, place: NftHook): void {
  const { type, priority } = place;
  writer.nested(4 | NLA_F_NESTED, () => {
    writer.attributeU32NetworkOrder(1, 'device' in place ? LINK_HOOKS[place.hook] : HOOKS[place.hook]);
    writer.attributeU32NetworkOrder(2, priority >>> 0);
    if ('device' in place) writer.attributeText(3, place.device);
  });
  writer.attributeU32NetworkOrder(5, POLICY_ACCEPT);
  writer.attributeText(7, type);
}

/** The rule's own sets come first; the number of its message tells them apart from those of other rules. */
function writeRule(
  batch: MessageBatch,
  request: NftRequest & { kind: 'rule-add' },
  acknowledge: number,
  known: Encoded,
): void {
  const { table, chain, rule } = request;
  const protocol = protocolOf(request);
  const ids = rule.expressions.map((expression, i) => {
    const set = portSetOf(expression, batch.count + 1);
    if (set !== null) writePortSet(batch, protocol, table, { ...set, id: set.id + i });
    return (set?.id ?? 0) + i;
  });
  batch.add(messageType(MESSAGES.rule), NLM_F_CREATE | NLM_F_APPEND | acknowledge, (writer) => {
    writeHeader(writer, protocol);
    writer.attributeText(1, table);
    writer.attributeText(2, chain);
    writer.nested(4 | NLA_F_NESTED, () => {
      for (const [i, expression] of rule.expressions.entries()) {
        const bytes = known.get(expression);
        if (bytes !== undefined) {
          writer.raw(bytes);
          continue;
        }
        const start = writer.length;
        writeExpression(writer, expression, ids[i]!);
        if (SHARED.has(expression.kind)) known.set(expression, Buffer.from(writer.bytes().subarray(start)));
      }
    });
    writer.attribute(7, commentBytes(rule.comment));
  });
}

function writePortSet(batch: MessageBatch, protocol: number, table: string, { id, ranges }: PortSet): void {
  batch.add(messageType(MESSAGES.set), NLM_F_CREATE, (writer) => {
    writeHeader(writer, protocol);
    writer.attributeText(1, table);
    writer.attributeText(2, ANONYMOUS_SET);
    writer.attributeU32NetworkOrder(3, SET_ANONYMOUS | SET_CONSTANT | SET_INTERVAL);
    writer.attributeU32NetworkOrder(4, PORT_TYPE);
    writer.attributeU32NetworkOrder(5, 2);
    writer.attributeU32NetworkOrder(10, id);
  });
  batch.add(messageType(MESSAGES.elements), NLM_F_CREATE, (writer) => {
    writeHeader(writer, protocol);
    writer.attributeText(1, table);
    writer.attributeText(2, ANONYMOUS_SET);
    writer.attributeU32NetworkOrder(4, id);
    writer.nested(3 | NLA_F_NESTED, () => {
      for (const { from, to } of ranges) writeRange(writer, u16(from), to === 0xffff ? null : u16(to + 1));
    });
  });
}

function writeSet(writer: ByteWriter, { family, set, spec }: NftRequest & { kind: 'set-add' }): void {
  const { keyType, keyBytes, dataType, dataBytes, fieldBytes } = layoutOf(spec, family);
  writer.attributeText(2, set);
  writer.attributeU32NetworkOrder(3, flagsOf(spec));
  writer.attributeU32NetworkOrder(4, keyType);
  writer.attributeU32NetworkOrder(5, keyBytes);
  if (dataType !== null) writer.attributeU32NetworkOrder(6, dataType);
  if (dataBytes !== null) writer.attributeU32NetworkOrder(7, dataBytes);
  if (!spec.prefixes && (spec.key === 'pair' || spec.key === 'index-pair')) writeSize(writer, MAX_PAIRS);
  if (spec.prefixes && fieldBytes !== null) writeFields(writer, fieldBytes);
  // Only anonymous sets are found by their number, but the kernel wants one for all.
  writer.attributeU32NetworkOrder(10, 1);
  writer.attribute(13, Buffer.concat([byteOrder(0, spec.key), byteOrder(1, spec.data)]));
}

function writeSize(writer: ByteWriter, elements: number): void {
  writer.nested(9 | NLA_F_NESTED, () => writer.attributeU32NetworkOrder(1, elements));
}

/** Pairs with prefixes are compared field by field. */
function writeFields(writer: ByteWriter, lengths: readonly number[]): void {
  writer.nested(9 | NLA_F_NESTED, () => {
    writer.nested(2 | NLA_F_NESTED, () => {
      for (const length of lengths) {
        writer.nested(LIST_ELEMENT | NLA_F_NESTED, () => writer.attributeU32NetworkOrder(1, length));
      }
    });
  });
}

/** For the listings of nft: numbers of ours are in the host's order. */
function byteOrder(attribute: number, what: string | null): Buffer {
  return what === 'id' ? Buffer.from([attribute, 4, HOST_ORDER, 0, 0, 0]) : Buffer.alloc(0);
}

export function flagsOf(spec: NftSetSpec): number {
  const isPair = spec.key.endsWith('pair');
  const interval = spec.prefixes ? SET_INTERVAL | (isPair ? SET_CONCATENATED : 0) : 0;
  return interval | (spec.data === null ? 0 : SET_MAP);
}

/** What nft shows as the rule's comment: type, length, text. */
function commentBytes(comment: string): Buffer {
  return Buffer.concat([Buffer.from([USERDATA_COMMENT, comment.length + 1]), Buffer.from(`${comment}\0`)]);
}

/** By number: NFPROTO_NETDEV, or the family of the addresses. */
export function protocolOf({ family, layer }: Pick<NftPlace, 'family' | 'layer'>): number {
  return layer === 'link' ? NFPROTO_NETDEV : AF[family];
}

/** struct nfgenmsg @param protocol of protocolOf */
export function writeHeader(writer: ByteWriter, protocol: number): void {
  writer.u8(protocol);
  writer.u8(0);
  writer.u16(0);
}

export function messageType(type: number): number {
  return (NFNL_SUBSYS_NFTABLES << 8) | type;
}
