/**
 * What `netctl apply` takes: a record of the store as people write it, `{kind, name, …}`.
 *
 * In: one parsed YAML or JSON document. Out: the key and the checked, canonical record; and a record as a document. Never: a key of
 * the document that is not understood.
 */
import { invalid, NetctlError } from '../lib/errors.ts';
import { addressSetFromJson } from './address-set.ts';
import { bgpFilterSchema, bgpPeerSchema, shownPeer } from './bgp.ts';
import { checkJson } from './check.ts';
import { hostEndpointFromJson } from './host-endpoint.ts';
import { parseCidr } from './ip.ts';
import {
  addressSetKey,
  bgpFilterKey,
  bgpPeerKey,
  hostEndpointKey,
  policyKey,
  poolKey,
  profileKey,
} from './keys.ts';
import { parseName, parseNodeName } from './names.ts';
import { type Policy, policyFromJson, policyRecord } from './policy.ts';
import { parseProfileRecord, profileFromJson, profileRecord } from './profile.ts';
import { defaultBlockSize, type Pool, poolSchema } from './records.ts';
import { type Rule, ruleOf } from './rule.ts';
import { ruleText } from './rule-text.ts';

export const documentKinds = [
  'profile',
  'policy',
  'address-set',
  'host-endpoint',
  'pool',
  'bgp-peer',
  'bgp-filter',
] as const;
export type DocumentKind = (typeof documentKinds)[number];

type JsonObject = Record<string, unknown>;

export interface Document {
  readonly kind: DocumentKind;
  /** `NODE/NAME` for a host endpoint. */
  readonly name: string;
  readonly key: string;
  /** The value in the store. */
  readonly record: JsonObject;
}

/** Words that stand where a profile's name may stand: `netctl profile show`. */
const RESERVED = ['add', 'remove', 'show'];

/** @param where for errors, if the document does not say its name: `documents[3]` @throws INVALID naming document and path */
export function parseDocument(json: unknown, where: string): Document {
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw invalid(where, json, 'a document with kind and name');
  const { kind: kindJson, name: nameJson, ...rest } = json as JsonObject;
  const kind = documentKind(kindJson, `${where}.kind`);
  const name = parseName(nameJson, `${where}.name`);
  try {
    return withRecord(kind, name, rest);
  } catch (error) {
    if (!(error instanceof NetctlError) || error.code !== 'INVALID') throw error;
    throw new NetctlError('INVALID', `${kind} ${name}: ${error.message}`, error.details, error);
  }
}

/** @throws INVALID naming `field` */
export function documentKind(text: unknown, field = 'kind'): DocumentKind {
  const kind = documentKinds.find((each) => each === text);
  if (kind === undefined) throw invalid(field, text, documentKinds.join(', '));
  return kind;
}

/** Key of the record that kind and name (`NODE/NAME` for a host endpoint) mean. @throws INVALID */
export function documentKey(kind: DocumentKind, name: string): string {
  switch (kind) {
    case 'profile':
      return profileKey(parseName(name, 'name'));
    case 'policy':
      return policyKey(parseName(name, 'name'));
    case 'address-set':
      return addressSetKey(parseName(name, 'name'));
    case 'pool':
      return poolKey(parseName(name, 'name'));
    case 'bgp-peer':
      return bgpPeerKey(parseName(name, 'name'));
    case 'bgp-filter':
      return bgpFilterKey(parseName(name, 'name'));
    case 'host-endpoint': {
      const [node, own, ...more] = name.split('/');
      if (own === undefined || more.length > 0) throw invalid('name', name, 'NODE/NAME');
      return hostEndpointKey(parseNodeName(node, 'node'), parseName(own, 'name'));
    }
  }
}

/** A record of the store as a document that `parseDocument` takes. @throws when the record is broken */
export function documentOf(kind: DocumentKind, name: string, record: unknown): JsonObject {
  switch (kind) {
    case 'profile':
      return { kind, name, ...profileRecord(parseProfileRecord(record)) };
    case 'policy':
      return { kind, name, ...policyRecord(policyFromJson(record)) };
    case 'address-set':
      return { kind, name, nets: addressSetFromJson(record) };
    case 'pool': {
      const { kind: poolKind, ...rest } = poolSchema.parse(record);
      return { kind, name, poolKind, ...rest };
    }
    case 'bgp-peer':
      return { kind, name, ...shownPeer(bgpPeerSchema.parse(record)) };
    case 'bgp-filter':
      return { kind, name, ...bgpFilterSchema.parse(record) };
    case 'host-endpoint': {
      const [node, own] = name.split('/');
      return { kind, name: own, node, ...hostEndpointFromJson(record) };
    }
  }
}

/** Rules of a document in the words of the command line; null for a kind without rules. */
export function documentRuleTexts(
  document: JsonObject,
): { inbound: string[] | null; outbound: string[] | null } | null {
  if (document['kind'] !== 'profile' && document['kind'] !== 'policy') return null;
  const texts = (key: string): string[] | null =>
    (document[key] as Parameters<typeof ruleOf>[0][] | undefined)?.map((json) => ruleText(ruleOf(json))) ??
    null;
  return { inbound: texts('inbound_rules'), outbound: texts('outbound_rules') };
}

/** The address sets that rules of the record name. */
export function addressSetsOf(kind: DocumentKind, record: unknown): Set<string> {
  const { inbound, outbound } = rulesOf(kind, record);
  const matches = [...inbound, ...outbound].flatMap((rule) => rule.matches);
  return new Set(matches.flatMap((match) => (match.kind === 'set' ? [match.set] : [])));
}

function rulesOf(
  kind: DocumentKind,
  record: unknown,
): { inbound: readonly Rule[]; outbound: readonly Rule[] } {
  if (kind !== 'profile' && kind !== 'policy') return { inbound: [], outbound: [] };
  const { inbound, outbound }: Pick<Policy, 'inbound' | 'outbound'> =
    kind === 'profile' ? parseProfileRecord(record) : policyFromJson(record);
  return { inbound: inbound ?? [], outbound: outbound ?? [] };
}

function withRecord(kind: DocumentKind, name: string, rest: JsonObject): Document {
  const of = (record: object, fullName = name): Document => ({
    kind,
    name: fullName,
    key: documentKey(kind, fullName),
    record: record as JsonObject,
  });
  switch (kind) {
    case 'profile':
      if (RESERVED.includes(name))
        throw invalid('name', name, `a name that is not one of netctl's words ${RESERVED.join(', ')}`);
      return of(profileRecord(profileFromJson({ id: name, ...rest }, name)));
    case 'policy':
      return of(policyRecord(policyFromJson(rest)));
    case 'address-set':
      return of({ nets: addressSetFromJson(rest) });
    case 'pool':
      return of(poolOf(rest));
    case 'bgp-peer':
      return of(checkJson(bgpPeerSchema, rest));
    case 'bgp-filter':
      return of(checkJson(bgpFilterSchema, rest));
    case 'host-endpoint': {
      const { node, ...host } = rest;
      return of(hostEndpointFromJson(host), `${parseNodeName(node, 'node')}/${name}`);
    }
  }
}

function poolOf({ poolKind, ...rest }: JsonObject): Pool {
  const blockSize = rest['blockSize'] ?? defaultBlockSize(parseCidr(rest['cidr'], 'cidr'));
  return checkJson(poolSchema, { ...rest, ...(poolKind === undefined ? {} : { kind: poolKind }), blockSize });
}
