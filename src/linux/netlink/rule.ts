/**
 * rtnetlink policy rules by source address and by mark (linux/fib_rules.h).
 *
 * In: a source or mark, a table. Out: a message that adds or deletes the rule; those by mark that there are. Never: a rule twice (EEXIST
 * where it is there already).
 */
import { type Address, addressBits, addressBytes, type Family, familyOf } from '../../model/ip.ts';
import type { MarkRule } from '../ports.ts';
import { AF } from './address.ts';
import { readAttributes, readU32 } from './attribute.ts';
import { dumpRequest, type Message, type MessageBatch, NLM_F_CREATE, NLM_F_EXCL } from './message.ts';

export const RTM_NEWRULE = 32;
const RTM_DELRULE = 33;
const RTM_GETRULE = 34;
const FRA_SRC = 2;
const FRA_PRIORITY = 6;
const FRA_FWMARK = 10;
const FRA_FWMASK = 16;
const FRA_TABLE = 15;
const FR_ACT_TO_TBL = 1;
/** Before the main table (32766). Without one the kernel gives each rule another, and none is there already. */
const PRIORITY = 32000;

type Verb = 'add' | 'delete';

const messageOf = (verb: Verb): [type: number, flags: number] =>
  verb === 'add' ? [RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL] : [RTM_DELRULE, 0];

export function writeSourceRule(
  batch: MessageBatch,
  { source, table }: { source: Address; table: number },
  verb: Verb,
): void {
  batch.add(...messageOf(verb), (writer) => {
    writer.u8(AF[familyOf(source)]);
    writer.u8(0);
    writer.u8(addressBits(familyOf(source)));
    writer.zeros(4);
    writer.u8(FR_ACT_TO_TBL);
    writer.u32(0);
    writer.attributeU32(FRA_PRIORITY, PRIORITY);
    writer.attribute(FRA_SRC, addressBytes(source));
    writer.attributeU32(FRA_TABLE, table);
  });
}

export function writeMarkRule(
  batch: MessageBatch,
  { family, mark, mask, table }: MarkRule,
  verb: Verb,
): void {
  batch.add(...messageOf(verb), (writer) => {
    writer.u8(AF[family]);
    writer.zeros(6);
    writer.u8(FR_ACT_TO_TBL);
    writer.u32(0);
    writer.attributeU32(FRA_PRIORITY, PRIORITY);
    writer.attributeU32(FRA_FWMARK, mark);
    writer.attributeU32(FRA_FWMASK, mask);
    writer.attributeU32(FRA_TABLE, table);
  });
}

export function ruleDump(family: Family): Buffer {
  return dumpRequest(RTM_GETRULE, (writer) => {
    writer.u8(AF[family]);
    writer.zeros(11);
  });
}

/** Reads RTM_NEWRULE; null for one that does not ask for a mark, or leads to no table. */
export function readMarkRule({ payload }: Message): MarkRule | null {
  const family = payload[0] === AF[4] ? 4 : payload[0] === AF[6] ? 6 : null;
  if (family === null || payload.length < 12 || payload[7] !== FR_ACT_TO_TBL) return null;
  const attributes = readAttributes(payload.subarray(12));
  const mark = readU32(attributes.get(FRA_FWMARK));
  if (mark === null) return null;
  const table = readU32(attributes.get(FRA_TABLE)) ?? payload.readUInt8(4);
  return { family, mark, mask: readU32(attributes.get(FRA_FWMASK)) ?? 0xffffffff, table };
}
