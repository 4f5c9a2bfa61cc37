/**
 * What the kernel tells of a traced packet (linux/netfilter/nf_tables.h, NFTA_TRACE_*).
 *
 * In: notifications. Out: which rule or policy of which chain it met, and the verdict. Never: a packet mixed up with another: each has
 * an id.
 */
import type { TraceStep } from '../nftables-port.ts';
import { readAttributes, readText } from './attribute.ts';
import type { Message } from './message.ts';
import { verdictOf } from './nft-expression.ts';
import { messageType } from './nftables.ts';

/** The group of notifications. */
export const TRACE_GROUP = 9;
const NFT_MSG_TRACE = 17;
const TYPES = { 1: 'policy', 2: 'end', 3: 'rule' } as const;
const FAMILIES = { 1: 'inet', 2: 'ip', 10: 'ip6' } as const;
const CONTINUE = -1;

/** null for what is not a step of a packet in a family that routes. */
export function readTrace({ type, payload }: Message): { id: number; step: TraceStep } | null {
  if (type !== messageType(NFT_MSG_TRACE)) return null;
  const attributes = readAttributes(payload.subarray(4));
  const [table, chain] = [readText(attributes.get(1)), readText(attributes.get(2))];
  const family = FAMILIES[payload[0] as keyof typeof FAMILIES];
  const at = TYPES[(attributes.get(4)?.readUInt32BE(0) ?? 0) as keyof typeof TYPES];
  const id = attributes.get(6)?.readUInt32BE(0);
  if (table === null || chain === null || id === undefined || at === undefined || family === undefined)
    return null;
  const verdict = readAttributes(attributes.get(5) ?? Buffer.alloc(0));
  const code = verdict.get(1)?.readInt32BE(0) ?? attributes.get(16)?.readInt32BE(0) ?? CONTINUE;
  const known = verdictOf(code, readText(verdict.get(2)));
  const text = known === null ? 'continue' : 'chain' in known ? `${known.kind} ${known.chain}` : known.kind;
  return { id, step: { family, table, chain, at, verdict: text } };
}
