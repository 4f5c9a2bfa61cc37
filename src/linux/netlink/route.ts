/**
 * rtnetlink routes, of the main table unless another is named (linux/rtnetlink.h).
 *
 * In: RouteSpec. Out: messages; RouteInfo. Never: a cached one.
 */
import { invalid } from '../../lib/errors.ts';
import {
  type Address,
  addressBytes,
  addressFromBytes,
  type Cidr,
  cidrBase,
  type Family,
  familyOf,
  prefixLength,
} from '../../model/ip.ts';
import type { RouteInfo, RouteSpec } from '../ports.ts';
import { AF } from './address.ts';
import { readAttributes, readU32 } from './attribute.ts';
import { checkIndex } from './link.ts';
import {
  dumpRequest,
  type Message,
  type MessageBatch,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
} from './message.ts';

export const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;
const RTM_GETROUTE = 26;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PREFSRC = 7;
const RTA_TABLE = 15;
/** The attribute says it: numbers above 255 have no room in the header. */
const RT_TABLE_UNSPECIFIED = 0;
const RT_TABLE_MAIN = 254;
const RT_TABLE_LOCAL = 255;
const RT_SCOPE_UNIVERSE = 0;
const RT_SCOPE_LINK = 253;
const RT_SCOPE_HOST = 254;
/** Any scope, in a deletion. */
const RT_SCOPE_NOWHERE = 255;
const RTNH_F_ONLINK = 4;
const RTM_F_CLONED = 0x200;
const TYPES: ReadonlyMap<number, RouteInfo['type']> = new Map([
  [1, 'unicast'],
  [6, 'blackhole'],
  [7, 'unreachable'],
  [8, 'prohibit'],
]);
const TYPE_NUMBERS = { unicast: 1, local: 2, blackhole: 6 };

export function writeRoute(
  batch: MessageBatch,
  kind: 'route-add' | 'route-replace' | 'route-delete',
  route: RouteSpec,
): void {
  checkRoute(route);
  const type = kind === 'route-delete' ? RTM_DELROUTE : RTM_NEWROUTE;
  const flags = {
    'route-add': NLM_F_CREATE | NLM_F_EXCL,
    'route-replace': NLM_F_CREATE | NLM_F_REPLACE,
    'route-delete': 0,
  };
  const { destination, gateway, source, linkIndex } = route;
  const scope =
    route.type === 'local' ? RT_SCOPE_HOST : route.scope === 'link' ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  batch.add(type, flags[kind], (writer) => {
    writer.u8(AF[familyOf(destination)]);
    writer.u8(prefixLength(destination));
    writer.u8(0);
    writer.u8(0);
    writer.u8(
      route.table !== undefined
        ? RT_TABLE_UNSPECIFIED
        : route.type === 'local'
          ? RT_TABLE_LOCAL
          : RT_TABLE_MAIN,
    );
    writer.u8(route.protocol);
    writer.u8(kind === 'route-delete' ? RT_SCOPE_NOWHERE : scope);
    writer.u8(TYPE_NUMBERS[route.type]);
    writer.u32(route.onlink ? RTNH_F_ONLINK : 0);
    writer.attribute(RTA_DST, addressBytes(cidrBase(destination)));
    if (gateway !== undefined) writer.attribute(RTA_GATEWAY, addressBytes(gateway));
    if (source !== undefined) writer.attribute(RTA_PREFSRC, addressBytes(source));
    if (linkIndex !== undefined) writer.attributeU32(RTA_OIF, linkIndex);
    if (route.table !== undefined) writer.attributeU32(RTA_TABLE, route.table);
  });
}

/** @throws INVALID for what no family of the kernel could mean */
export function checkRoute(route: RouteSpec): void {
  const family = familyOf(route.destination);
  for (const field of ['gateway', 'source'] as const) {
    const address = route[field];
    if (address !== undefined && familyOf(address) !== family)
      throw invalid(field, address, `an IPv${family} address`);
  }
  if (route.linkIndex !== undefined) checkIndex(route.linkIndex, 'linkIndex');
  if (route.type === 'blackhole' && (route.linkIndex !== undefined || route.gateway !== undefined)) {
    throw invalid('type', route.type, 'unicast where a link or a gateway is given');
  }
  if (!Number.isInteger(route.protocol) || route.protocol < 1 || route.protocol > 255) {
    throw invalid('protocol', route.protocol, 'a routing protocol number from 1 to 255');
  }
}

/** Of one table, or of all but the local one. */
export type RouteTables = number | 'all';
export const mainTable = RT_TABLE_MAIN;

/** @param protocol only those of one protocol (the kernel filters; 0 for all) */
export function routeDump(family: Family, protocol: number, tables: RouteTables): Buffer {
  return dumpRequest(RTM_GETROUTE, (writer) => {
    writer.u8(AF[family]);
    writer.zeros(3);
    writer.u8(tables === RT_TABLE_MAIN ? RT_TABLE_MAIN : RT_TABLE_UNSPECIFIED);
    writer.u8(protocol);
    writer.zeros(2);
    writer.u32(0);
    if (tables !== 'all') writer.attributeU32(RTA_TABLE, tables);
  });
}

/** Reads RTM_NEWROUTE; null for the local and (unless asked for) other tables, other families and cached entries. */
export function readRoute({ payload }: Message, tables: RouteTables = RT_TABLE_MAIN): RouteInfo | null {
  const family = payload[0] === AF[4] ? 4 : payload[0] === AF[6] ? 6 : null;
  if (family === null || payload.length < 12) return null;
  const attributes = readAttributes(payload.subarray(12));
  const table = readU32(attributes.get(RTA_TABLE)) ?? payload.readUInt8(4);
  if (tables === 'all' ? table === RT_TABLE_LOCAL : table !== tables) return null;
  if ((payload.readUInt32LE(8) & RTM_F_CLONED) !== 0) return null;
  const base = attributes.get(RTA_DST);
  const gateway = attributes.get(RTA_GATEWAY);
  const type = TYPES.get(payload.readUInt8(7)) ?? 'other';
  return {
    destination: `${base ? addressFromBytes(base) : anywhere(family)}/${payload[1]}` as Cidr,
    type,
    // IPv6 reports the loopback device for routes that lead nowhere.
    linkIndex: type === 'unicast' ? readU32(attributes.get(RTA_OIF)) : null,
    gateway: gateway ? addressFromBytes(gateway) : null,
    protocol: payload.readUInt8(5),
  };
}

function anywhere(family: Family): Address {
  return (family === 4 ? '0.0.0.0' : '::') as Address;
}
