/**
 * BGP as users describe it: peers, filters, and what holds for the whole cluster.
 *
 * In: JSON from a file, the API or the store. Out: checked records. Never: a text that could end a string of BIRD's configuration
 * (which has no escapes), a filter rule left out because it was not understood.
 */
import { z } from 'zod';
import { parseCommunity, parsePassword, parsePrefixMatch } from './bgp-text.ts';
import { exactObject, textOf } from './check.ts';
import { type Address, familyOf, parseAddress } from './ip.ts';
import { parseName, parseNodeName } from './names.ts';
import { canonicalSelector } from './selector.ts';

const SWITCH = 'true or false';
const AS = 'an AS number from 1 to 4294967295';
export const asNumber = z.int(AS).min(1, AS).max(4_294_967_295, AS);
const PORT = 'a port from 1 to 65535';
export const port = z.int(PORT).min(1, PORT).max(65_535, PORT);
const HOLD = 'seconds from 3 to 65535';
const hold = z.int(HOLD).min(3, HOLD).max(65_535, HOLD);
const KEEPALIVE = 'seconds from 1 to 65535';
const keepalive = z.int(KEEPALIVE).min(1, KEEPALIVE).max(65_535, KEEPALIVE);
const INTERVAL = 'milliseconds from 10 to 10000';
const MULTIPLIER = 'a number from 2 to 50';
const RESTART = 'seconds from 1 to 4095';
const addressText = textOf<Address>(parseAddress, '192.0.2.1');
const nameText = textOf<string>(parseName, 'rack1');
const selectorText = textOf<string>(canonicalSelector, 'rack == "r1"');
const passwordText = textOf<string>(parsePassword, 'a secret');
const communities = z
  .array(textOf<string>(parseCommunity, '64512:100'), 'a list of communities such as 64512:100')
  .max(32, 'at most 32 communities');
const PREPEND = 'a number from 0 to 10';
const prepend = z.int(PREPEND).min(0, PREPEND).max(10, PREPEND);
const filterNames = z.array(nameText, 'a list of bgp-filters').max(16, 'at most 16 bgp-filters');

/**
 * A peer. With an `address`: a router outside the cluster; with a `peerSelector`: the nodes of the cluster whose labels match. It is
 * a peer of one `node`, of the nodes that `nodeSelector` picks, or of all.
 */
export const bgpPeerSchema = exactObject({
  address: addressText.nullable().default(null),
  asNumber: asNumber.nullable().default(null),
  port: port.nullable().default(null),
  node: textOf<string>(parseNodeName, 'node1').nullable().default(null),
  nodeSelector: selectorText.nullable().default(null),
  peerSelector: selectorText.nullable().default(null),
  /** Of TCP MD5 (RFC 2385). */
  password: passwordText.nullable().default(null),
  holdSeconds: hold.nullable().default(null),
  keepaliveSeconds: keepalive.nullable().default(null),
  /** Of the session, on this side; null for the node's own address. */
  sourceAddress: addressText.nullable().default(null),
  /** What this node calls itself towards the peer; null for its own. */
  localAsNumber: asNumber.nullable().default(null),
  /** True: the peer may be behind routers. null: it is, unless it is on a network of the node. */
  multihop: z.boolean(SWITCH).nullable().default(null),
  /** RFC 5082: packets that came over more than this many hops are dropped. */
  ttlSecurityHops: z
    .int('a number from 1 to 254')
    .min(1, 'a number from 1 to 254')
    .max(254, 'a number from 1 to 254')
    .nullable()
    .default(null),
  /** null: as the cluster's setting for peers that are nodes, off for others. */
  bfd: z.boolean(SWITCH).nullable().default(null),
  /** Wait for the peer to connect. */
  passive: z.boolean(SWITCH).default(false),
  /** self: what is passed on goes through this node. keep: it goes where it went. null: BGP's own rule. */
  nextHop: z.enum(['self', 'keep'], 'self or keep').nullable().default(null),
  /** IPv4 routes over a session of IPv6 (RFC 8950). */
  extendedNextHop: z.boolean(SWITCH).default(false),
  /** How often our own AS may be in a path that is taken: where nodes of one AS reach each other through another. */
  allowOwnAsNumbers: prepend.default(0),
  /** How often our own AS is put in front of the path of what is announced. */
  prepend: prepend.default(0),
  /** Given to what is announced. */
  communities: communities.default([]),
  /** Names of filters, tried in this order. */
  importFilters: filterNames.default([]),
  exportFilters: filterNames.default([]),
  /** Prefixes that the peer may announce; with more the session ends. null: any number. */
  maxPrefixes: z.int('a number from 1 on').min(1, 'a number from 1 on').nullable().default(null),
}).superRefine((peer, context) => {
  const refuse = (path: string, message: string): void =>
    context.addIssue({ code: 'custom', path: [path], message });
  if ((peer.address === null) === (peer.peerSelector === null))
    refuse('address', 'either an address or a peerSelector');
  if (peer.address !== null && peer.asNumber === null)
    refuse('asNumber', `${AS}: a peer with an address needs one`);
  if (peer.peerSelector !== null && peer.asNumber !== null)
    refuse('asNumber', 'none with a peerSelector: each node has its own');
  if (peer.peerSelector !== null && peer.port !== null)
    refuse('port', 'none with a peerSelector: each node has its own');
  if (peer.node !== null && peer.nodeSelector !== null) refuse('nodeSelector', 'either node or nodeSelector');
  if (peer.peerSelector !== null && peer.sourceAddress !== null)
    refuse('sourceAddress', 'none with a peerSelector: the nodes have theirs');
  if (
    peer.address !== null &&
    peer.sourceAddress !== null &&
    familyOf(peer.address) !== familyOf(peer.sourceAddress)
  )
    refuse('sourceAddress', `an address of the same family as ${peer.address}`);
  if (peer.keepaliveSeconds !== null && peer.holdSeconds !== null && peer.keepaliveSeconds > peer.holdSeconds)
    refuse('keepaliveSeconds', `at most the hold time, ${peer.holdSeconds}`);
});
export type BgpPeer = z.output<typeof bgpPeerSchema>;

/** What stands for a password wherever a record is shown; a record that is applied with it keeps the one it had. */
export const passwordIsSet = 'set' as const;

/** As it is shown: what says nothing is left out, the password is not there. */
export function shownPeer(peer: BgpPeer): Partial<BgpPeer> {
  const shown = { ...peer, password: peer.password === null ? null : passwordIsSet };
  const says = ([, value]: [string, unknown]): boolean =>
    !(value === null || value === false || value === 0 || (Array.isArray(value) && value.length === 0));
  return Object.fromEntries(Object.entries(shown).filter(says));
}

/** One rule of a filter: what is absent matches everything; of the first rule that matches, what it says is done. */
export const bgpFilterRuleSchema = exactObject({
  action: z.enum(['accept', 'reject'], 'accept or reject'),
  /** `10.0.0.0/8` this prefix; `10.0.0.0/8 le 24`, `10.0.0.0/8 ge 16 le 24` prefixes in it of these lengths. */
  prefixes: z
    .array(
      textOf<string>(parsePrefixMatch, '10.0.0.0/8 le 24'),
      'a list of prefixes such as 10.0.0.0/8 le 24',
    )
    .max(1024, 'at most 1024 prefixes')
    .default([]),
  /** Any of them. */
  communities: communities.default([]),
  /** The path begins with these, the neighbour's first. */
  asPathPrefix: z.array(asNumber, 'a list of AS numbers').max(32, 'at most 32 AS numbers').default([]),
  /** Done to what is accepted. */
  addCommunities: communities.default([]),
  prepend: prepend.default(0),
  localPreference: z
    .int('a number from 0 to 4294967295')
    .min(0, 'a number from 0 to 4294967295')
    .max(4_294_967_295, 'a number from 0 to 4294967295')
    .nullable()
    .default(null),
});
export type BgpFilterRule = z.output<typeof bgpFilterRuleSchema>;

/** Rules for what comes from a peer and what goes to it. What no rule matches is treated as without the filter. */
export const bgpFilterSchema = exactObject({
  rules: z
    .array(bgpFilterRuleSchema, 'a list of rules')
    .min(1, 'at least one rule')
    .max(256, 'at most 256 rules'),
});
export type BgpFilter = z.output<typeof bgpFilterSchema>;

/** Of the whole cluster: `bgp` in the settings. */
export const bgpSettingsSchema = exactObject({
  /** Of nodes that have none of their own. */
  asNumber: asNumber.default(64_512),
  /** Every node is a peer of every other, reflectors excepted. */
  mesh: z.boolean(SWITCH).default(true),
  meshPassword: passwordText.nullable().default(null),
  /** Between nodes. */
  bfd: z.boolean(SWITCH).default(true),
  bfdIntervalMilliseconds: z.int(INTERVAL).min(10, INTERVAL).max(10_000, INTERVAL).default(300),
  /** A peer is dead after so many intervals without a word. */
  bfdMultiplier: z.int(MULTIPLIER).min(2, MULTIPLIER).max(50, MULTIPLIER).default(3),
  holdSeconds: hold.default(90),
  /** null: a third of the hold time that the two sides agree on. */
  keepaliveSeconds: keepalive.nullable().default(null),
  /** How long peers keep the routes of a node whose BIRD went away without a word. */
  gracefulRestartSeconds: z.int(RESTART).min(1, RESTART).max(4095, RESTART).default(15),
  /** Given to all that nodes announce. */
  communities: communities.default([]),
});
export type BgpSettings = z.output<typeof bgpSettingsSchema>;
