/**
 * rtnetlink ids of namespaces: the number by which one namespace knows another (linux/net_namespace.h).
 *
 * In: a descriptor of the other one. Out: messages that ask for its id or have one chosen. Never: an id of our own choice, which somebody else
 * may have given already.
 */
import { readAttributes } from './attribute.ts';
import type { Message, MessageBatch } from './message.ts';

const RTM_NEWNSID = 88;
const RTM_GETNSID = 90;
const NETNSA_NSID = 1;
const NETNSA_FD = 3;
/** As a wish: any. As an answer: it has none. */
const NONE = -1;

/** Has the kernel choose one. EEXIST where it has one. */
export function writeNewNetnsId(batch: MessageBatch, netnsFd: number): void {
  batch.add(RTM_NEWNSID, 0, (writer) => {
    writer.zeros(4);
    writer.attributeU32(NETNSA_NSID, NONE >>> 0);
    writer.attributeU32(NETNSA_FD, netnsFd);
  });
}

export function writeGetNetnsId(batch: MessageBatch, netnsFd: number): void {
  batch.add(RTM_GETNSID, 0, (writer) => {
    writer.zeros(4);
    writer.attributeU32(NETNSA_FD, netnsFd);
  });
}

/** null: it has none. */
export function readNetnsId({ type, payload }: Message): number | null {
  const id = type === RTM_NEWNSID ? readAttributes(payload.subarray(4)).get(NETNSA_NSID) : undefined;
  const number = id?.readInt32LE(0) ?? NONE;
  return number === NONE ? null : number;
}
