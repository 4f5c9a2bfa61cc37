/**
 * The result of ADD in the format of each CNI version (notes on the differences: specification 0.2.0 … 1.1.0, "Result").
 *
 * In: an attachment. Out: the JSON value to print. Never: a field that the version does not know, an interface index left out.
 */
import type { Attachment } from '../model/attachment.ts';
import { type Address, everything, type Family, familyOf } from '../model/ip.ts';
import { CniError } from './errors.ts';

export const supportedVersions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
export type CniVersion = (typeof supportedVersions)[number];

export interface Dns {
  readonly domain?: string;
  readonly nameservers?: readonly string[];
  readonly search?: readonly string[];
  readonly options?: readonly string[];
}

type Told<T> = { readonly [K in keyof T]?: T[K] | null | undefined };

/** What is empty says nothing. */
export function dnsTold(dns: Told<Dns>): Dns {
  return Object.fromEntries(Object.entries(dns).filter(([, value]) => value?.length));
}

/** What the answer to an ADD holds besides the attachment. */
export interface AnswerForm {
  /** As runtime and configuration say. */
  readonly dns: Dns;
  /** As the IPAM plugin that gave the addresses said: for who says nothing else. */
  ipamDns(): Dns;
  /** Called as an IPAM plugin: the routes of its configuration, to be handed on; null otherwise. */
  readonly ipamRoutes: readonly { readonly dst: string; readonly gw?: string | null | undefined }[] | null;
  /** The result of the plugin before us in the list. */
  readonly before: Readonly<Record<string, unknown>> | null;
}

/** The whole answer to an ADD. @throws as cniResult */
export function addAnswer(attachment: Attachment, cniVersion: CniVersion, form: AnswerForm): object {
  if (form.ipamRoutes !== null) return ipamResult(attachment, cniVersion, form);
  const dns = Object.keys(form.dns).length > 0 ? form.dns : form.ipamDns();
  if (form.before === null) return cniResult(attachment, cniVersion, dns);
  return attachment.isForeign ? form.before : joined(form.before, cniResult(attachment, cniVersion, dns));
}

/** Addresses without interfaces (CNI specification 1.1.0, section 4). */
function ipamResult(attachment: Attachment, cniVersion: CniVersion, { dns, ipamRoutes }: AnswerForm): object {
  const { interfaces, ips, routes, ...rest } = cniResult(attachment, cniVersion, dns) as {
    interfaces?: unknown;
    ips?: { interface?: number }[];
    routes?: unknown;
  };
  if (ips === undefined) return withLegacyRoutes(rest, ipamRoutes ?? []);
  return { ...rest, ips: ips.map(({ interface: _, ...ip }) => ip), routes: ipamRoutes ?? [] };
}

/** 0.2.0 and older have the routes beside the address of their family. */
function withLegacyRoutes(result: object, routes: NonNullable<AnswerForm['ipamRoutes']>): object {
  const entries = Object.entries(result).map(([key, entry]) => {
    if (key !== 'ip4' && key !== 'ip6') return [key, entry];
    return [key, { ...entry, routes: routes.filter(({ dst }) => dst.includes(':') === (key === 'ip6')) }];
  });
  return Object.fromEntries(entries);
}

/** Ours after theirs; the numbers of our interfaces move on. 0.2.0 and older have one address of each family: that is ours. */
function joined(before: Readonly<Record<string, unknown>>, ours: Record<string, unknown>): object {
  const { dns } = ours as { dns: Dns };
  const bothDns = Object.keys(dns).length > 0 ? dns : (before['dns'] ?? {});
  if (ours['ips'] === undefined) return { ...before, ...ours, dns: bothDns };
  const list = (result: Readonly<Record<string, unknown>>, key: string): Record<string, unknown>[] =>
    Array.isArray(result[key]) ? (result[key] as Record<string, unknown>[]) : [];
  const offset = list(before, 'interfaces').length;
  const ips = list(ours, 'ips').map((ip) => ({ ...ip, interface: Number(ip['interface']) + offset }));
  return {
    ...before,
    cniVersion: ours['cniVersion'],
    interfaces: [...list(before, 'interfaces'), ...list(ours, 'interfaces')],
    ips: [...list(before, 'ips'), ...ips],
    routes: [...list(before, 'routes'), ...list(ours, 'routes')],
    dns: bothDns,
  };
}

/** @throws code 7 where a version cannot say what there is (0.2.0 has one address of each family) */
export function cniResult(attachment: Attachment, cniVersion: CniVersion, dns: Dns): Record<string, unknown> {
  if (cniVersion === '0.1.0' || cniVersion === '0.2.0') return legacyResult(attachment, cniVersion, dns);
  const withVersion = cniVersion.startsWith('0.');
  const mtu = cniVersion === '1.1.0' ? { mtu: attachment.mtuBytes } : {};
  return {
    cniVersion,
    interfaces: [
      ...(attachment.host === null
        ? []
        : [{ name: attachment.host.interface, mac: attachment.host.mac, ...mtu }]),
      { name: attachment.interface, mac: attachment.mac, sandbox: attachment.netnsPath, ...mtu },
    ],
    ips: attachment.addresses.map((address) => ({
      ...(withVersion ? { version: String(familyOf(address)) } : {}),
      address: withLength(attachment, address),
      gateway: attachment.gateways[familyOf(address)],
      interface: attachment.host === null ? 0 : 1,
    })),
    routes: familiesOf(attachment).flatMap((family) => routesIn(attachment, family)),
    dns,
  };
}

/** 0.1.0 and 0.2.0: `ip4` and `ip6`, no interfaces. */
function legacyResult(attachment: Attachment, cniVersion: CniVersion, dns: Dns): Record<string, unknown> {
  const entries = familiesOf(attachment).map((family) => {
    const [address, ...more] = attachment.addresses.filter((candidate) => familyOf(candidate) === family);
    if (address === undefined || more.length > 0) {
      throw new CniError(7, `CNI version ${cniVersion} does not support more than 1 address per family`);
    }
    const gateway = attachment.gateways[family];
    return [
      `ip${family}`,
      { ip: withLength(attachment, address), gateway, routes: routesIn(attachment, family) },
    ];
  });
  return { cniVersion, ...Object.fromEntries(entries), dns };
}

/** Unless others were told, the default route, where the interface has one. */
function routesIn({ gateways, routes }: Attachment, family: Family): { dst: string; gw?: Address }[] {
  const gw = gateways[family];
  const byGateway = gw === undefined ? [] : [{ destination: everything[family], gateway: gw }];
  return (routes?.filter(({ destination }) => familyOf(destination) === family) ?? byGateway).map(
    ({ destination, gateway }) => ({ dst: destination, ...(gateway === null ? {} : { gw: gateway }) }),
  );
}

function withLength({ addresses, prefixLengths }: Attachment, address: Address): string {
  return `${address}/${prefixLengths[addresses.indexOf(address)]}`;
}

function familiesOf(attachment: Attachment): Family[] {
  return [...new Set(attachment.addresses.map(familyOf))];
}
