/**
 * Store keys: path ⇄ typed key, one line per kind (DESIGN.md, "Data model").
 *
 * In: the parts of a key, or a path from the store. Out: the path relative to the store's prefix, or the parts. Never: a path
 * built elsewhere.
 */
import { type Address, type Cidr, parseAddress, parseCidr } from './ip.ts';

export type Key =
  | { readonly kind: 'node'; readonly node: string }
  | { readonly kind: 'pool'; readonly pool: string }
  | { readonly kind: 'block'; readonly cidr: Cidr }
  | { readonly kind: 'address'; readonly address: Address }
  | {
      readonly kind: 'owner';
      readonly tenant: string;
      readonly app: string;
      readonly instance: string;
      readonly address: Address;
    }
  | { readonly kind: 'endpoint'; readonly node: string; readonly endpoint: string }
  | { readonly kind: 'profile'; readonly profile: string }
  | { readonly kind: 'policy'; readonly policy: string }
  | { readonly kind: 'address-set'; readonly set: string }
  | { readonly kind: 'host-endpoint'; readonly node: string; readonly name: string }
  | { readonly kind: 'bgp-peer'; readonly peer: string }
  | { readonly kind: 'bgp-filter'; readonly filter: string }
  | { readonly kind: 'settings' }
  /** Written with a change of policy whose denials are to cut connections that are there; its value only has to differ. */
  | { readonly kind: 'connection-flush' }
  | { readonly kind: 'reservation'; readonly reservation: string }
  /** `port`: `tcp-8080`. */
  | { readonly kind: 'port'; readonly node: string; readonly port: string }
  | { readonly kind: 'port-reservation'; readonly node: string; readonly reservation: string }
  | { readonly kind: 'tenant'; readonly tenant: string }
  | { readonly kind: 'tenant-use'; readonly tenant: string }
  | { readonly kind: 'node-state'; readonly node: string }
  | { readonly kind: 'status'; readonly node: string; readonly name: string };

export type KeyKind = Key['kind'];

/** Prefix of all keys of a kind, for lists and watches. */
export const keyPrefix: Readonly<Record<KeyKind, string>> = {
  node: 'nodes/',
  pool: 'pools/',
  block: 'blocks/',
  address: 'addresses/',
  owner: 'owners/',
  endpoint: 'endpoints/',
  profile: 'profiles/',
  policy: 'policies/',
  'address-set': 'address-sets/',
  'host-endpoint': 'host-endpoints/',
  'bgp-peer': 'bgp/peers/',
  'bgp-filter': 'bgp/filters/',
  settings: 'settings',
  'connection-flush': 'connection-flush',
  reservation: 'reservations/',
  port: 'ports/',
  'port-reservation': 'port-reservations/',
  tenant: 'tenants/',
  'tenant-use': 'tenant-use/',
  'node-state': 'node-states/',
  status: 'status/',
};

export const nodeKey = (node: string): string => `nodes/${node}`;
export const poolKey = (pool: string): string => `pools/${pool}`;
/** A prefix in a key has `-` for its slash: `blocks/10.0.0.0-26`. */
export const blockKey = (cidr: Cidr): string => `blocks/${cidr.replace('/', '-')}`;
export const addressKey = (address: Address): string => `addresses/${address}`;
/** What all entries of the owner in the index begin with. */
export const ownerPrefix = (owner: { tenant: string; app: string; instance: string }): string =>
  `owners/${owner.tenant}/${owner.app}/${owner.instance}/`;
export const ownerKey = (
  owner: { tenant: string; app: string; instance: string },
  address: Address,
): string => `${ownerPrefix(owner)}${address}`;
export const endpointKey = (node: string, endpoint: string): string => `endpoints/${node}/${endpoint}`;
export const bgpPeerKey = (peer: string): string => `bgp/peers/${peer}`;
export const bgpFilterKey = (filter: string): string => `bgp/filters/${filter}`;
export const settingsKey = 'settings';
export const connectionFlushKey = 'connection-flush';
export const reservationKey = (id: string): string => `reservations/${id}`;
/** @param port of portName */
export const portKey = (node: string, port: string): string => `ports/${node}/${port}`;
export const portReservationKey = (node: string, id: string): string => `port-reservations/${node}/${id}`;
export const tenantKey = (tenant: string): string => `tenants/${tenant}`;
export const tenantUseKey = (tenant: string): string => `tenant-use/${tenant}`;
/** What a node says of itself while its agent lives; `name`: agent. */
export const nodeStateKey = (node: string): string => `node-states/${node}`;
export const statusKey = (node: string, name: string): string => `status/${node}/${name}`;
export const profileKey = (profile: string): string => `profiles/${profile}`;
export const policyKey = (policy: string): string => `policies/${policy}`;
export const addressSetKey = (set: string): string => `address-sets/${set}`;
export const hostEndpointKey = (node: string, name: string): string => `host-endpoints/${node}/${name}`;

/** The typed key of a path, or null for one that is not ours to read (a kind that a newer version keeps). */
export function parseKey(path: string): Key | null {
  const [kind, ...parts] = path.split('/');
  const [a, b, c, d] = parts;
  try {
    if (kind === 'nodes' && a && parts.length === 1) return { kind: 'node', node: a };
    if (kind === 'pools' && a && parts.length === 1) return { kind: 'pool', pool: a };
    if (kind === 'blocks' && a && parts.length === 1)
      return { kind: 'block', cidr: parseCidr(a.replace('-', '/')) };
    if (kind === 'addresses' && a && parts.length === 1) return { kind: 'address', address: parseAddress(a) };
    if (kind === 'owners' && a && b && c && d && parts.length === 4) {
      return { kind: 'owner', tenant: a, app: b, instance: c, address: parseAddress(d) };
    }
    if (kind === 'endpoints' && a && b && parts.length === 2)
      return { kind: 'endpoint', node: a, endpoint: b };
    if (kind === 'profiles' && a && parts.length === 1) return { kind: 'profile', profile: a };
    if (kind === 'policies' && a && parts.length === 1) return { kind: 'policy', policy: a };
    if (kind === 'host-endpoints' && a && b && parts.length === 2)
      return { kind: 'host-endpoint', node: a, name: b };
    if (kind === 'address-sets' && a && parts.length === 1) return { kind: 'address-set', set: a };
    if (kind === 'bgp' && a === 'peers' && b && parts.length === 2) return { kind: 'bgp-peer', peer: b };
    if (kind === 'bgp' && a === 'filters' && b && parts.length === 2)
      return { kind: 'bgp-filter', filter: b };
    if (path === settingsKey) return { kind: 'settings' };
    if (path === connectionFlushKey) return { kind: 'connection-flush' };
    if (kind === 'reservations' && a && parts.length === 1) return { kind: 'reservation', reservation: a };
    if (kind === 'ports' && a && b && parts.length === 2) return { kind: 'port', node: a, port: b };
    if (kind === 'port-reservations' && a && b && parts.length === 2)
      return { kind: 'port-reservation', node: a, reservation: b };
    if (kind === 'tenants' && a && parts.length === 1) return { kind: 'tenant', tenant: a };
    if (kind === 'tenant-use' && a && parts.length === 1) return { kind: 'tenant-use', tenant: a };
    if (kind === 'node-states' && a && parts.length === 1) return { kind: 'node-state', node: a };
    if (kind === 'status' && a && b && parts.length === 2) return { kind: 'status', node: a, name: b };
  } catch {
    return null;
  }
  return null;
}
