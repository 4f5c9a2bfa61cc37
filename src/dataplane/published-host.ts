/**
 * What publishing ports of the host asks of the host besides rules: its loopback led through an endpoint's interface, and connections that
 * are older than the rules.
 *
 * In: endpoints with their interfaces. Out: a setting of the interface, connections forgotten. Never: the setting for an endpoint that
 * publishes nothing.
 */
import type { Conntrack, Linux } from '../linux/ports.ts';
import { type Address, families, familyOf } from '../model/ip.ts';
import { hostFamilies, portProtocolNumbers } from '../model/port-mapping.ts';
import type { Endpoint } from '../model/records.ts';

/** From 127.0.0.1 by way of an interface the kernel lets something go only where it is told. Needs the interface. @throws KernelError */
export function openLoopback(linux: Linux, endpoint: Endpoint): void {
  const path = loopbackSetting(endpoint);
  if (path !== null && linux.readSysctl(path).trim() !== '1') linux.writeSysctl(path, '1');
}

/** What is wrong of it, in words. @throws KernelError */
export function inspectLoopback(linux: Linux, endpoint: Endpoint): string[] {
  const path = loopbackSetting(endpoint);
  if (path === null || linux.readSysctl(path).trim() === '1') return [];
  return [`published ports cannot be reached by 127.0.0.1: ${path.replaceAll('/', '.')} is not 1`];
}

/**
 * Who went on sending datagrams to the port while nobody had it would not get there: the kernel asks the rules for the first packet only.
 * @param hostAddresses of this host @throws KernelError
 */
export async function forgetOlder(
  conntrack: Conntrack,
  { portMappings }: Endpoint,
  hostAddresses: () => Promise<ReadonlySet<Address>>,
): Promise<void> {
  const datagrams = portMappings.filter(({ protocol }) => protocol !== 'tcp');
  if (datagrams.length === 0) return;
  const own = await hostAddresses();
  for (const family of families) {
    const ports = new Set(
      datagrams
        .filter(({ hostIP }) => hostFamilies(hostIP).includes(family))
        .map(({ protocol, hostPort }) => `${portProtocolNumbers[protocol]} ${hostPort}`),
    );
    if (ports.size === 0) continue;
    await conntrack.flushWhere(
      family,
      ({ protocol, destination, destinationPort }) =>
        ports.has(`${protocol} ${destinationPort}`) && own.has(destination),
    );
  }
}

function loopbackSetting({ portMappings, addresses, hostInterface }: Endpoint): string | null {
  const isPublishing = portMappings.some(({ hostIP }) => hostFamilies(hostIP).includes(4));
  return isPublishing && addresses.some((address) => familyOf(address) === 4)
    ? `net/ipv4/conf/${hostInterface}/route_localnet`
    : null;
}
