/**
 * The result of ADD in the format of each CNI version (notes on the differences: specification 0.2.0 … 1.1.0, "Result").
 *
 * In: an attachment. Out: the JSON value to print. Never: a field that the version does not know, an interface index left out.
 */
import type { Attachment } from '../model/attachment.ts';
import { type Address, type Family, familyOf } from '../model/ip.ts';
import { CniError } from './errors.ts';

export const supportedVersions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
export type CniVersion = (typeof supportedVersions)[number];

export interface Dns {
  readonly nameservers?: readonly string[];
  readonly search?: readonly string[];
  readonly options?: readonly string[];
}

/** @throws code 7 where a version cannot say what there is (0.2.0 has one address of each family) */
export function cniResult(attachment: Attachment, cniVersion: CniVersion, dns: Dns): Record<string, unknown> {
  if (cniVersion === '0.1.0' || cniVersion === '0.2.0') return legacyResult(attachment, cniVersion, dns);
  const withVersion = cniVersion.startsWith('0.');
  const mtu = cniVersion === '1.1.0' ? { mtu: attachment.mtuBytes } : {};
  return {
    cniVersion,
    interfaces: [
      { name: attachment.hostInterface, mac: attachment.hostMac, ...mtu },
      { name: attachment.interface, mac: attachment.mac, sandbox: attachment.netnsPath, ...mtu },
    ],
    ips: attachment.addresses.map((address) => ({
      ...(withVersion ? { version: String(familyOf(address)) } : {}),
      address: withLength(address),
      gateway: attachment.gateways[familyOf(address)],
      interface: 1,
    })),
    routes: familiesOf(attachment).map((family) => ({
      dst: everything[family],
      gw: attachment.gateways[family],
    })),
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
      { ip: withLength(address), gateway, routes: [{ dst: everything[family], gw: gateway }] },
    ];
  });
  return { cniVersion, ...Object.fromEntries(entries), dns };
}

const everything: Readonly<Record<Family, string>> = { 4: '0.0.0.0/0', 6: '::/0' };

const withLength = (address: Address): string => `${address}/${familyOf(address) === 4 ? 32 : 128}`;

function familiesOf(attachment: Attachment): Family[] {
  return [...new Set(attachment.addresses.map(familyOf))];
}
