/**
 * What a table of nftables holds, over nfnetlink.
 *
 * In: messages of a list or notification. Out: chains, rules' comments, sets and elements. Never: anything of a table of another name
 * than asked for.
 */
import type {
  NftBaseChain,
  NftChainInfo,
  NftHook,
  NftPlace,
  NftSetInfo,
  NftSetSpec,
} from '../nftables-port.ts';
import { type Attributes, eachAttribute, readAttributes, readText } from './attribute.ts';
import { dumpRequest, type Message } from './message.ts';
import { layoutOf, type RawElement, readRawElements } from './nft-element.ts';
import {
  flagsOf,
  HOOKS,
  LINK_HOOKS,
  MESSAGES,
  messageType,
  POLICY_ACCEPT,
  protocolOf,
  SET_ANONYMOUS,
  SET_MAP,
  USERDATA_COMMENT,
  writeHeader,
} from './nftables.ts';

const GET = 1;
const FORWARD_HOOK = 2;
const POLICY_DROP = 0;
/** Those families in which packets are routed, by their numbers (NFPROTO_…). */
const ROUTED = { 1: 'inet', 2: 'ip', 10: 'ip6' } as const;
/** Notifications of all that changes in nftables. */
export const NFTABLES_GROUP = 7;

type NftList = 'tables' | 'chains' | 'rules' | 'sets';

/** @param chain whose rules, else all of the table */
export function nftDump(place: NftPlace, what: NftList, chain?: string): Buffer {
  const type =
    { tables: MESSAGES.table, chains: MESSAGES.chain, rules: MESSAGES.rule, sets: MESSAGES.set }[what] + GET;
  return dumpRequest(messageType(type), (writer) => {
    writeHeader(writer, protocolOf(place));
    if (what === 'rules' || what === 'sets') writer.attributeText(1, place.table);
    if (chain !== undefined) writer.attributeText(2, chain);
  });
}

export function nftElementDump(place: NftPlace, set: string): Buffer {
  return dumpRequest(messageType(MESSAGES.elements + GET), (writer) => {
    writeHeader(writer, protocolOf(place));
    writer.attributeText(1, place.table);
    writer.attributeText(2, set);
  });
}

/** The flags of the table of this name, or null for another one. */
export function readTable(message: Message, table: string): number | null {
  const attributes = attributesOf(message);
  return readText(attributes.get(1)) === table ? numberIn(attributes.get(2)) : null;
}

export function readChain(
  message: Message,
  { table, layer }: NftPlace,
): { name: string; hook: NftChainInfo['hook'] } | null {
  const attributes = attributesOf(message);
  const name = readText(attributes.get(3));
  if (readText(attributes.get(1)) !== table || name === null) return null;
  const hook = attributes.get(4);
  if (hook === undefined) return { name, hook: null };
  const read = layer === 'link' ? linkHookOf : hookOf;
  return { name, hook: read(readAttributes(hook), attributes) ?? 'other' };
}

/** Chains, or rules of one table, of all families or of the one with the number. */
export function nftDumpAll(what: 'chains' | 'rules', family = 0, table?: string): Buffer {
  return dumpRequest(messageType((what === 'chains' ? MESSAGES.chain : MESSAGES.rule) + GET), (writer) => {
    writer.u8(family);
    writer.u8(0);
    writer.u16(0);
    if (table !== undefined) writer.attributeText(1, table);
  });
}

export interface ForwardChain extends NftBaseChain {
  readonly familyNumber: number;
  readonly dropsByPolicy: boolean;
}

/** A base chain at the hook forward; null for any other chain. */
export function readForwardChain(message: Message): ForwardChain | null {
  const attributes = attributesOf(message);
  const [table, chain, hook] = [readText(attributes.get(1)), readText(attributes.get(3)), attributes.get(4)];
  const familyNumber = message.payload[0]!;
  const family = ROUTED[familyNumber as keyof typeof ROUTED];
  if (family === undefined || table === null || chain === null || hook === undefined) return null;
  if (numberIn(readAttributes(hook).get(1)) !== FORWARD_HOOK) return null;
  const policy = attributes.get(5);
  const dropsByPolicy = policy !== undefined && numberIn(policy) === POLICY_DROP;
  return { family, table, chain, familyNumber, dropsByPolicy };
}

/** Of a rule: its chain, and whether it drops or rejects every packet that comes to it. */
export function readRuleEnd(message: Message): { chain: string; dropsAll: boolean } | null {
  const attributes = attributesOf(message);
  const chain = readText(attributes.get(2));
  if (chain === null) return null;
  const kinds = Array.from(eachAttribute(attributes.get(4) ?? Buffer.alloc(0)), ({ value }) => {
    const expression = readAttributes(value);
    return { kind: readText(expression.get(1)), data: expression.get(2) };
  }).filter(({ kind }) => kind !== 'counter' && kind !== 'log');
  const [only] = kinds;
  return {
    chain,
    dropsAll: kinds.length === 1 && (only!.kind === 'reject' || isDrop(only!)),
  };
}

/** `immediate`: the data are a verdict, whose code is 0 (NF_DROP). */
function isDrop({ kind, data }: { kind: string | null; data: Buffer | undefined }): boolean {
  if (kind !== 'immediate' || data === undefined) return false;
  const verdict = readAttributes(readAttributes(data).get(2) ?? Buffer.alloc(0)).get(2);
  const code = verdict && readAttributes(verdict).get(1);
  return code !== undefined && code.readInt32BE(0) === 0;
}

function hookOf(place: Attributes, chain: Attributes): NftHook | undefined {
  const [hook] = Object.entries(HOOKS).find(([, number]) => number === numberIn(place.get(1))) ?? [];
  const type = readText(chain.get(7));
  if (hook === undefined || (type !== 'filter' && type !== 'nat' && type !== 'route')) return undefined;
  if (numberIn(chain.get(5)) !== POLICY_ACCEPT) return undefined;
  return { type, hook: hook as keyof typeof HOOKS, priority: numberIn(place.get(2)) | 0 };
}

/** On more devices than one, or on none any more: not ours. */
function linkHookOf(place: Attributes, chain: Attributes): NftHook | undefined {
  const [hook] = Object.entries(LINK_HOOKS).find(([, number]) => number === numberIn(place.get(1))) ?? [];
  const device = readText(place.get(3));
  if (hook === undefined || device === null || readText(chain.get(7)) !== 'filter') return undefined;
  if (numberIn(chain.get(5)) !== POLICY_ACCEPT) return undefined;
  return {
    type: 'filter',
    hook: hook as keyof typeof LINK_HOOKS,
    device,
    priority: numberIn(place.get(2)) | 0,
  };
}

export function readRule(message: Message, table: string): { chain: string; comment: string | null } | null {
  const attributes = attributesOf(message);
  const chain = readText(attributes.get(2));
  if (readText(attributes.get(1)) !== table || chain === null) return null;
  return { chain, comment: readComment(attributes.get(7)) };
}

export function readSet(
  message: Message,
  { table, family }: NftPlace,
): { name: string; spec: NftSetInfo['spec'] } | null {
  const attributes = attributesOf(message);
  const name = readText(attributes.get(2));
  const flags = numberIn(attributes.get(3));
  if (readText(attributes.get(1)) !== table || name === null || (flags & SET_ANONYMOUS) !== 0) return null;
  const found = {
    flags,
    keyType: numberIn(attributes.get(4)),
    keyBytes: numberIn(attributes.get(5)),
    dataType: (flags & SET_MAP) === 0 ? null : numberIn(attributes.get(6)),
  };
  const spec = SPECS.find((each) => {
    const { keyType, keyBytes, dataType } = layoutOf(each, family);
    return (
      flagsOf(each) === flags &&
      keyType === found.keyType &&
      keyBytes === found.keyBytes &&
      dataType === found.dataType
    );
  });
  return { name, spec: spec ?? 'other' };
}

export function readElements(message: Message): RawElement[] {
  const list = attributesOf(message).get(3);
  return list === undefined ? [] : readRawElements(list);
}

/** The table that a notification is about; null for the announcement of a generation. */
export function readNotifiedTable(message: Message): string | null {
  return message.type === messageType(MESSAGES.generation) ? null : readText(attributesOf(message).get(1));
}

/** All kinds of sets that there are. */
const SPECS: readonly NftSetSpec[] = (
  ['address', 'pair', 'index-pair', 'id', 'mac', 'mac-pair'] as const
).flatMap((key) =>
  [false, true].flatMap((prefixes) =>
    ([null, 'id', 'verdict'] as const).map((data) => ({ key, prefixes, data })),
  ),
);

/** Of a rule in the table: what its counter says, null where it has none. */
export function readRuleCount(
  message: Message,
  table: string,
): { chain: string; count: { packets: number; bytes: number } | null } | null {
  const attributes = attributesOf(message);
  const chain = readText(attributes.get(2));
  if (readText(attributes.get(1)) !== table || chain === null) return null;
  for (const { value } of eachAttribute(attributes.get(4) ?? Buffer.alloc(0))) {
    const expression = readAttributes(value);
    if (readText(expression.get(1)) !== 'counter') continue;
    const counter = readAttributes(expression.get(2) ?? Buffer.alloc(0));
    const number = (bytes: Buffer | undefined): number => Number(bytes?.readBigUInt64BE(0) ?? 0n);
    return { chain, count: { packets: number(counter.get(2)), bytes: number(counter.get(1)) } };
  }
  return { chain, count: null };
}

function readComment(userdata: Buffer | undefined): string | null {
  for (let at = 0; userdata !== undefined && at + 2 <= userdata.length; at += 2 + userdata[at + 1]!) {
    if (userdata[at] === USERDATA_COMMENT)
      return readText(userdata.subarray(at + 2, at + 2 + userdata[at + 1]!));
  }
  return null;
}

function attributesOf({ payload }: Message) {
  return readAttributes(payload.subarray(4));
}

function numberIn(value: Buffer | undefined): number {
  return value !== undefined && value.length >= 4 ? value.readUInt32BE(0) : 0;
}
