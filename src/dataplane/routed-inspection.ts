/**
 * What is wrong with a routed endpoint in the kernel, in words: what CHECK says.
 *
 * In: the endpoint as the store has it, both namespaces. Out: sentences; none when all is right. Never: a word about what a plugin after
 * us in a list may change (the container's MAC and MTU, routes of other tables, further addresses, routes and interfaces).
 */
import type { LinkInfo, Linux, Netns, RouteInfo, Routing } from '../linux/ports.ts';
import { type Address, type Family, familyOf, hostCidr } from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';
import { gateways } from '../veth/plan.ts';

export interface Inspection {
  readonly linux: Linux;
  readonly host: Routing;
  readonly endpoint: Endpoint;
  readonly netns: Netns;
  /** Of our protocols, on the host. */
  readonly hostRoutes: readonly RouteInfo[];
}

export async function inspectRouted(inspection: Inspection): Promise<string[]> {
  const { linux, host, endpoint, netns } = inspection;
  const outside = host.link({ name: endpoint.hostInterface });
  if (outside === null) return [`host interface ${endpoint.hostInterface} is missing`];
  const container = linux.openRouting(netns);
  try {
    const inside = container.link({ name: endpoint.interface });
    if (inside === null) return [`interface ${endpoint.interface} is missing in the container`];
    if (inside.index !== outside.peerIndex)
      return [`interface ${endpoint.interface} in the container is not the one that netctl has made`];
    return [
      ...(outside.up ? [] : [`host interface ${endpoint.hostInterface} is down`]),
      ...(inside.up ? [] : [`interface ${endpoint.interface} is down in the container`]),
      ...(await missingOnHost(inspection, outside)),
      ...(await inContainer(inspection, container, inside)),
      ...switches(inspection),
    ];
  } finally {
    container.close();
  }
}

/** What leads from the host to the endpoint. */
export async function missingOnHost(
  { host, endpoint, hostRoutes }: Pick<Inspection, 'host' | 'endpoint' | 'hostRoutes'>,
  link: LinkInfo,
): Promise<string[]> {
  const neighbours = await host.neighbours(link.index);
  return endpoint.addresses.flatMap((address) => [
    ...(hostRoutes.some((route) => route.destination === hostCidr(address) && route.linkIndex === link.index)
      ? []
      : [`the host has no route to ${address}`]),
    ...(neighbours.some((neighbour) => neighbour.permanent && neighbour.address === address)
      ? []
      : [`the host does not know the MAC of ${address}`]),
  ]);
}

async function inContainer({ endpoint }: Inspection, container: Routing, link: LinkInfo): Promise<string[]> {
  const present = (await container.addresses(link.index)).map(({ address }) => address);
  const neighbours = await container.neighbours(link.index);
  const routes = await container.routes({ everyTable: true });
  return [
    ...endpoint.addresses
      .filter((address) => !present.includes(address))
      .map((address) => `address ${address} is missing in the container`),
    ...familiesOf(endpoint).flatMap((family) => {
      const gateway = gateways[family];
      return [
        ...(routes.some((route) => route.gateway === gateway && route.linkIndex === link.index)
          ? []
          : [`the default route by way of ${gateway} is missing in the container`]),
        ...(neighbours.some((neighbour) => neighbour.permanent && neighbour.address === gateway)
          ? []
          : [`the container does not know the MAC of ${gateway}`]),
      ];
    }),
  ];
}

function switches({ linux, endpoint, netns }: Inspection): string[] {
  const wrong = (path: string, wanted: string, where: string, of?: Netns): string[] => {
    const value = linux.readSysctl(path, of).trim();
    return value === wanted ? [] : [`${path} is ${value} ${where}, not ${wanted}`];
  };
  return familiesOf(endpoint).flatMap((family) =>
    family === 4
      ? wrong('net/ipv4/ip_forward', '1', 'on the host')
      : [
          ...wrong('net/ipv6/conf/all/forwarding', '1', 'on the host'),
          ...wrong(`net/ipv6/conf/${endpoint.interface}/disable_ipv6`, '0', 'in the container', netns),
        ],
  );
}

function familiesOf({ addresses }: { readonly addresses: readonly Address[] }): Family[] {
  return [...new Set(addresses.map(familyOf))];
}
