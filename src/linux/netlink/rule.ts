/**
 * rtnetlink policy rules by source address (linux/fib_rules.h).
 *
 * In: a source, a table. Out: a message that adds the rule. Never: a rule twice (EEXIST where it is there already).
 */
import { type Address, addressBits, addressBytes, familyOf } from '../../model/ip.ts';
import { AF } from './address.ts';
import { type MessageBatch, NLM_F_CREATE, NLM_F_EXCL } from './message.ts';

const RTM_NEWRULE = 32;
const FRA_SRC = 2;
const FRA_TABLE = 15;
const FR_ACT_TO_TBL = 1;

export function writeSourceRule(
  batch: MessageBatch,
  { source, table }: { source: Address; table: number },
): void {
  batch.add(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, (writer) => {
    writer.u8(AF[familyOf(source)]);
    writer.u8(0);
    writer.u8(addressBits(familyOf(source)));
    writer.zeros(4);
    writer.u8(FR_ACT_TO_TBL);
    writer.u32(0);
    writer.attribute(FRA_SRC, addressBytes(source));
    writer.attributeU32(FRA_TABLE, table);
  });
}
