/**
 * Names of the chains and sets that policy is made of. All begin with `nctl`, so a restarted agent knows its own.
 *
 * In: profile lists, tags, selectors, families. Out: names of at most 28 (chains) and 31 (sets) characters. Never: two lists or two tags
 * that share a name because their beginnings are alike: a hash of the whole is part of each.
 */
import { hash } from 'node:crypto';
import { hostInterfacePrefix } from '../model/attachment.ts';
import type { Family } from '../model/ip.ts';

/** Every chain of ours begins so. */
export const chainPrefix = 'nctl-';
/** Every set of ours begins with one of these. */
export const setPrefixes: readonly string[] = ['nctl4-', 'nctl6-'];
/** All host interfaces of endpoints, as iptables matches them. */
export const endpointInterfaces = `${hostInterfacePrefix}+`;

export const chains = {
  /** Forwarded from an endpoint. */
  forward: 'nctl-FORWARD',
  /** Forwarded to an endpoint, from elsewhere. */
  forwardTo: 'nctl-FORWARD-to',
  input: 'nctl-INPUT',
  /** New, and forwarded from an endpoint: finds its list of profiles. */
  from: 'nctl-from',
  /** From an endpoint to this host: finds its list of profiles. */
  host: 'nctl-host',
  /** New, and forwarded to an endpoint: finds its list of profiles. */
  to: 'nctl-to',
  /** Forwarded, and allowed by the outbound rules. */
  allowed: 'nctl-allowed',
  /** From and to the host's own interfaces: finds the host endpoint. */
  hostIn: 'nctl-host-in',
  hostOut: 'nctl-host-out',
  /** Forwarded, and to this host: from and to host interfaces that another plugin has made. */
  foreign: 'nctl-foreign',
  foreignIn: 'nctl-foreign-in',
  /** In table nat. */
  nat: 'nctl-nat',
  /** In table nat: ports of the host that lead to endpoints; what gets another source for it. */
  published: 'nctl-published',
  publishedBack: 'nctl-published-back',
  /** To the loopback of this host, from endpoints. */
  publishedIn: 'nctl-published-in',
} as const;

/** Those that lead to the chains of lists. */
export const dispatching: readonly string[] = [chains.from, chains.host, chains.to];

/** Identifies an ordered list of profiles with the policies before it (sorted by name): `web-sYx8jD_2kQ`. */
export function listId(profiles: readonly string[], policies: readonly string[] = []): string {
  return shortId(
    profiles[0] ?? 'none',
    policies.length === 0 ? JSON.stringify(profiles) : JSON.stringify([profiles, policies]),
  );
}

/** The chains of one list. */
export const listChains = {
  inbound: (list: string): string => `nctl-in-${list}`,
  outbound: (list: string): string => `nctl-out-${list}`,
  host: (list: string): string => `nctl-host-${list}`,
  /** Where `pass` leads: the profiles behind the policies. Only in lists whose policies pass something. */
  inboundPassed: (list: string): string => `nctl-pi-${list}`,
  outboundPassed: (list: string): string => `nctl-po-${list}`,
  hostPassed: (list: string): string => `nctl-ph-${list}`,
  /** The same rules for host endpoints. */
  hostInbound: (list: string): string => `nctl-hi-${list}`,
  hostOutbound: (list: string): string => `nctl-ho-${list}`,
  hostInboundPassed: (list: string): string => `nctl-hip-${list}`,
  hostOutboundPassed: (list: string): string => `nctl-hop-${list}`,
} as const;

/** Members: address and host interface of every local endpoint, extra sources included. */
export const endpointSet = (family: Family): string => `nctl${family}-ep`;
/** True for what listSet names. */
export const isListSet = (set: string): boolean => /^nctl[46]-ep-/.test(set);
/** The same, of the endpoints that have this list of profiles. */
export const listSet = (family: Family, list: string): string => `nctl${family}-ep-${list}`;
/** The members of all lists in a bucket; only where lists are found by a tree (list-tree.ts). */
export const bucketSet = (family: Family, bucket: number): string => `nctl${family}-epb-${bucket}`;
/** The part of a dispatching chain that looks among the lists of a bucket. */
export const bucketChain = (chain: string, bucket: number): string => `${chain}-${bucket}`;
/** Members: the extra sources among them. There only while some endpoint has one. */
export const extraSourceSet = (family: Family): string => `nctl${family}-extra`;
/** Members: all addresses on host interfaces of endpoints that another plugin has made. There only while there is one. */
export const foreignSet = (family: Family): string => `nctl${family}-foreign`;
/** Members: addresses of all endpoints, on any node, that carry the tag. */
export const tagSet = (family: Family, tag: string): string => `nctl${family}-tag-${shortId(tag, tag)}`;

/** Members: addresses of all endpoints, on any node, that the selector picks. @param selector canonical */
export const selectorSet = (family: Family, selector: string): string =>
  `nctl${family}-sel-${shortId(selector.replace(/[^\w.-]+/g, '-'), selector)}`;
/** Members: the prefixes of the address set. */
export const addressSet = (family: Family, set: string): string => `nctl${family}-set-${shortId(set, set)}`;

/** Members: the pools. There, as the next, only while a pool of the family asks for NAT. */
export const poolSet = (family: Family): string => `nctl${family}-pools`;
/** Members: the pools that ask for NAT. */
export const natPoolSet = (family: Family): string => `nctl${family}-nat`;

/**
 * 7 readable characters, and 10 of the hash of all: 60 bits, so that nobody who may name a profile or tag finds one that
 * falls together with another's.
 */
function shortId(readable: string, whole: string): string {
  return `${readable.slice(0, 7)}-${hash('sha256', whole, 'base64url').slice(0, 10)}`;
}
