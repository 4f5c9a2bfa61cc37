/**
 * rtnetlink traffic control: a token bucket at the root of a link, and what arrives on a link led through another one (tc(8), tbf(8),
 * linux/pkt_sched.h, linux/pkt_cls.h).
 *
 * In: the values of ports.ts. Out: messages in a batch; the queueing disciplines that a link has. Never: a table of rates (kernels
 * since 3.13 reckon by themselves), a filter that lets part of the packets pass by.
 */
import { invalid } from '../../lib/errors.ts';
import type { QdiscInfo, TokenBucket } from '../link-kinds.ts';
import type { RoutingRequest } from '../ports.ts';
import { type ByteWriter, NLA_F_NESTED, readAttributes, readText } from './attribute.ts';
import { checkIndex } from './link.ts';
import {
  dumpRequest,
  type Message,
  type MessageBatch,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
} from './message.ts';

export const RTM_NEWQDISC = 36;
const RTM_DELQDISC = 37;
const RTM_GETQDISC = 38;
const RTM_NEWTFILTER = 44;

const TCA_KIND = 1;
const TCA_OPTIONS = 2;
const TCA_TBF_PARMS = 1;
const TCA_TBF_RATE64 = 4;
const TCA_TBF_BURST = 6;
const TCA_U32_SEL = 5;
const TCA_U32_ACT = 7;
const TCA_ACT_KIND = 1;
const TCA_ACT_OPTIONS = 2;
const TCA_MIRRED_PARMS = 2;

const TC_H_ROOT = 0xffffffff;
const TC_H_INGRESS = 0xfffffff1;
const INGRESS_HANDLE = 0xffff0000;
/** "nc" in ASCII: others number theirs from 1. */
const ROOT_HANDLE = 0x6e630000;
const TC_LINKLAYER_ETHERNET = 1;
const TC_U32_TERMINAL = 1;
const TC_ACT_STOLEN = 4;
const TCA_EGRESS_REDIR = 1;
/** Priority 1, ETH_P_ALL in network order. */
const ALL_PACKETS = 0x10300;
/** `struct tc_ratespec` and `struct tc_tbf_qopt` count bytes per second in 32 bits; what is more goes in TCA_TBF_RATE64. */
const MAX_RATE32 = 0xffffffff;
/** The kernel keeps the size of a bucket as nanoseconds at its rate in 32 bits of microseconds and refuses less than a packet. */
const MIN_BURST_BYTES = 1600;

type ShapeRequest = Extract<RoutingRequest, { kind: 'shape' }>;
type RedirectRequest = Extract<RoutingRequest, { kind: 'redirect-ingress' }>;

/** @throws INVALID */
export function checkBucket({ rateBitsPerSecond, burstBytes, queueBytes }: TokenBucket): void {
  if (!Number.isSafeInteger(rateBitsPerSecond) || rateBitsPerSecond < 8)
    throw invalid('rateBitsPerSecond', rateBitsPerSecond, 'a whole number from 8');
  if (!Number.isInteger(burstBytes) || burstBytes < MIN_BURST_BYTES || burstBytes > 2 ** 31)
    throw invalid('burstBytes', burstBytes, `a whole number from ${MIN_BURST_BYTES} to 2^31`);
  if (!Number.isInteger(queueBytes) || queueBytes < 1 || queueBytes > MAX_RATE32)
    throw invalid('queueBytes', queueBytes, 'a whole number from 1 to 2^32-1');
}

/** Makes the bucket the link's root discipline, or changes the one that is there (its queue stays). */
export function writeShape(batch: MessageBatch, { index, bucket }: ShapeRequest): void {
  checkIndex(index, 'index');
  checkBucket(bucket);
  const bytesPerSecond = Math.floor(bucket.rateBitsPerSecond / 8);
  batch.add(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, (writer) => {
    writeHeader(writer, index, ROOT_HANDLE, TC_H_ROOT, 0);
    writer.attributeText(TCA_KIND, 'tbf');
    writer.nested(TCA_OPTIONS | NLA_F_NESTED, () => {
      const parameters = Buffer.alloc(36);
      parameters.writeUInt8(TC_LINKLAYER_ETHERNET, 1);
      parameters.writeUInt32LE(Math.min(bytesPerSecond, MAX_RATE32), 8);
      parameters.writeUInt32LE(bucket.queueBytes, 24);
      writer.attribute(TCA_TBF_PARMS, parameters);
      if (bytesPerSecond > MAX_RATE32) {
        const rate = Buffer.alloc(8);
        rate.writeBigUInt64LE(BigInt(bytesPerSecond));
        writer.attribute(TCA_TBF_RATE64, rate);
      }
      writer.attributeU32(TCA_TBF_BURST, bucket.burstBytes);
    });
  });
}

/** Back to the link's default discipline. */
export function writeUnshape(batch: MessageBatch, index: number): void {
  checkIndex(index, 'index');
  batch.add(RTM_DELQDISC, 0, (writer) => writeHeader(writer, index, 0, TC_H_ROOT, 0));
}

/** All that arrives on a link is as if it left by another (an ifb), and goes on from there. */
export function writeRedirect(batch: MessageBatch, { index, toIndex }: RedirectRequest): void {
  checkIndex(index, 'index');
  checkIndex(toIndex, 'toIndex');
  batch.add(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, (writer) => {
    writeHeader(writer, index, INGRESS_HANDLE, TC_H_INGRESS, 0);
    writer.attributeText(TCA_KIND, 'ingress');
  });
  batch.add(RTM_NEWTFILTER, NLM_F_CREATE, (writer) => {
    writeHeader(writer, index, 0, INGRESS_HANDLE, ALL_PACKETS);
    writer.attributeText(TCA_KIND, 'u32');
    writer.nested(TCA_OPTIONS | NLA_F_NESTED, () => {
      writer.attribute(TCA_U32_SEL, matchEverything());
      writer.nested(TCA_U32_ACT | NLA_F_NESTED, () => {
        writer.nested(1 | NLA_F_NESTED, () => {
          writer.attributeText(TCA_ACT_KIND, 'mirred');
          writer.nested(TCA_ACT_OPTIONS | NLA_F_NESTED, () => {
            writer.attribute(TCA_MIRRED_PARMS, redirectTo(toIndex));
          });
        });
      });
    });
  });
}

/** The ingress discipline goes, and its filters with it. */
export function writeUnredirect(batch: MessageBatch, index: number): void {
  checkIndex(index, 'index');
  batch.add(RTM_DELQDISC, 0, (writer) => writeHeader(writer, index, INGRESS_HANDLE, TC_H_INGRESS, 0));
}

/** The kernel lists those of all links, whatever index it is given. */
export function qdiscDump(): Buffer {
  return dumpRequest(RTM_GETQDISC, (writer) => writeHeader(writer, 0, 0, 0, 0));
}

/** The kernel's rounding: a rate is told in whole bytes per second. */
export function readQdisc({ payload }: Message): QdiscInfo | null {
  if (payload.length < 20) return null;
  const attributes = readAttributes(payload.subarray(20));
  const kind = readText(attributes.get(TCA_KIND));
  if (kind === null) return null;
  const linkIndex = payload.readInt32LE(4);
  const isRoot = payload.readUInt32LE(12) === TC_H_ROOT;
  const isOurs = isRoot && payload.readUInt32LE(8) === ROOT_HANDLE;
  const options = attributes.get(TCA_OPTIONS);
  if (kind !== 'tbf' || options === undefined)
    return { linkIndex, kind, place: placeOf(kind, isRoot), isOurs, rateBitsPerSecond: null };
  const parameters = readAttributes(options);
  const rate64 = parameters.get(TCA_TBF_RATE64);
  const rate = parameters.get(TCA_TBF_PARMS)?.readUInt32LE(8) ?? 0;
  const bytesPerSecond = rate64 === undefined ? rate : Number(rate64.readBigUInt64LE());
  return { linkIndex, kind, place: placeOf(kind, isRoot), isOurs, rateBitsPerSecond: bytesPerSecond * 8 };
}

function placeOf(kind: string, isRoot: boolean): QdiscInfo['place'] {
  if (kind === 'ingress' || kind === 'clsact') return 'ingress';
  return isRoot ? 'root' : 'other';
}

/** struct tcmsg */
function writeHeader(writer: ByteWriter, index: number, handle: number, parent: number, info: number): void {
  writer.u32(0);
  writer.u32(index);
  writer.u32(handle);
  writer.u32(parent);
  writer.u32(info);
}

/** struct tc_u32_sel with one key whose mask is nought. */
function matchEverything(): Buffer {
  const selector = Buffer.alloc(32);
  selector.writeUInt8(TC_U32_TERMINAL, 0);
  selector.writeUInt8(1, 2);
  return selector;
}

/** struct tc_mirred */
function redirectTo(index: number): Buffer {
  const mirred = Buffer.alloc(28);
  mirred.writeInt32LE(TC_ACT_STOLEN, 8);
  mirred.writeInt32LE(TCA_EGRESS_REDIR, 20);
  mirred.writeUInt32LE(index, 24);
  return mirred;
}
