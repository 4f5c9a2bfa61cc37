/**
 * Names of the chains and sets that policy is made of. All begin with `nctl`, so a restarted agent knows its own.
 *
 * In: profile lists, tags, families. Out: names of at most 28 (chains) and 31 (sets) characters. Never: two lists or two tags
 * that share a name because their beginnings are alike: a hash of the whole is part of each.
 */
import { createHash } from 'node:crypto';
import { hostInterfacePrefix } from '../model/attachment.ts';
import type { Family } from '../model/ip.ts';

/** Every chain of ours begins so. */
export const chainPrefix = 'nctl-';
/** Every set of ours begins with one of these. */
export const setPrefixes: readonly string[] = ['nctl4-', 'nctl6-'];
/** All host interfaces of endpoints, as iptables matches them. */
export const endpointInterfaces = `${hostInterfacePrefix}+`;

export const chains = {
  forward: 'nctl-FORWARD',
  input: 'nctl-INPUT',
  /** Forwarded from an endpoint: finds its list of profiles. */
  from: 'nctl-from',
  /** From an endpoint to this host: finds its list of profiles. */
  host: 'nctl-host',
  /** Forwarded to an endpoint: finds its list of profiles. */
  to: 'nctl-to',
  /** Forwarded, and allowed by the outbound rules. */
  allowed: 'nctl-allowed',
} as const;

/** Identifies an ordered list of profiles: `web-sYx8jD_2kQ`. */
export function listId(profiles: readonly string[]): string {
  return shortId(profiles[0] ?? 'none', JSON.stringify(profiles));
}

/** The chains of one list. */
export const listChains = {
  inbound: (list: string): string => `nctl-in-${list}`,
  outbound: (list: string): string => `nctl-out-${list}`,
  host: (list: string): string => `nctl-host-${list}`,
} as const;

/** Members: address and host interface of every local endpoint. */
export const endpointSet = (family: Family): string => `nctl${family}-ep`;
/** The same, of the endpoints that have this list of profiles. */
export const listSet = (family: Family, list: string): string => `nctl${family}-ep-${list}`;
/** Members: addresses of all endpoints, on any node, that carry the tag. */
export const tagSet = (family: Family, tag: string): string => `nctl${family}-tag-${shortId(tag, tag)}`;

/**
 * 7 readable characters, and 10 of the hash of all: 60 bits, so that nobody who may name a profile or tag finds one that
 * falls together with another's.
 */
function shortId(readable: string, whole: string): string {
  return `${readable.slice(0, 7)}-${createHash('sha256').update(whole).digest('base64url').slice(0, 10)}`;
}
