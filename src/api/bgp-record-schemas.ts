/**
 * The schemas of BGP's records over HTTP: peers, settings, reflectors.
 *
 * In: the model's records. Out: zod schemas and their types, as in schemas.ts. Never: a password in an answer: `set` stands for it.
 */
import { z } from 'zod';
import { bgpPeerSchema, bgpSettingsSchema } from '../model/bgp.ts';
import { exactObject } from '../model/check.ts';
import { addressText, changed, nameText, nodeItem, readableListOf, revision } from './schemas.ts';

const text = z.string().nullable();
const number = z.int().nullable();
const texts = z.array(z.string());
const password = z.literal('set').nullable().meta({ description: 'Whether there is one; it is never shown' });

export const bgpPeerAdd = bgpPeerSchema.safeExtend({ name: nameText });
export type BgpPeerAdd = z.input<typeof bgpPeerAdd>;
export const bgpPeerItem = z.object({
  name: z.string(),
  address: text,
  asNumber: number,
  port: number,
  node: text,
  nodeSelector: text,
  peerSelector: text,
  password,
  holdSeconds: number,
  keepaliveSeconds: number,
  sourceAddress: text,
  localAsNumber: number,
  multihop: z.boolean().nullable(),
  ttlSecurityHops: number,
  bfd: z.boolean().nullable(),
  passive: z.boolean(),
  nextHop: text,
  extendedNextHop: z.boolean(),
  allowOwnAsNumbers: z.int(),
  prepend: z.int(),
  communities: texts,
  importFilters: texts,
  exportFilters: texts,
  maxPrefixes: number,
  revision,
});
export type BgpPeerItem = z.output<typeof bgpPeerItem>;
export const bgpPeerList = readableListOf(bgpPeerItem);
export const bgpPeerChanged = changed(bgpPeerItem);
export const bgpPeerParams = exactObject({ peer: nameText });

export const bgpSettingsItem = z.object({
  asNumber: z.int(),
  mesh: z.boolean(),
  meshPassword: password,
  bfd: z.boolean(),
  bfdIntervalMilliseconds: z.int(),
  bfdMultiplier: z.int(),
  holdSeconds: z.int(),
  keepaliveSeconds: number,
  gracefulRestartSeconds: z.int(),
  communities: texts,
  revision,
});
export type BgpSettingsItem = z.output<typeof bgpSettingsItem>;
export const bgpSettingsChanged = changed(bgpSettingsItem);
const setting = bgpSettingsSchema.shape;
/** What is absent stays. */
export const bgpSettingsSet = exactObject({
  asNumber: setting.asNumber.unwrap().optional(),
  mesh: setting.mesh.unwrap().optional(),
  meshPassword: setting.meshPassword.unwrap().optional(),
  bfd: setting.bfd.unwrap().optional(),
  bfdIntervalMilliseconds: setting.bfdIntervalMilliseconds.unwrap().optional(),
  bfdMultiplier: setting.bfdMultiplier.unwrap().optional(),
  holdSeconds: setting.holdSeconds.unwrap().optional(),
  keepaliveSeconds: setting.keepaliveSeconds.unwrap().optional(),
  gracefulRestartSeconds: setting.gracefulRestartSeconds.unwrap().optional(),
  communities: setting.communities.unwrap().optional(),
});
export type BgpSettingsSet = z.input<typeof bgpSettingsSet>;

/** What is absent stays. Addresses, AS and labels are in the configuration of the node's agent. */
export const nodeSet = exactObject({
  routeReflectorClusterId: addressText
    .nullish()
    .meta({ description: 'Makes the node a route reflector of this cluster id; null: it is none' }),
});
export type NodeSet = z.input<typeof nodeSet>;
/** The record alone: whether its agent lives is not asked for a change. */
export const nodeChanged = changed(nodeItem.omit({ alive: true, since: true, problems: true, state: true }));
