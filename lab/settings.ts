/**
 * What the agents of a lab are told once: pools, who reflects routes, the router's address.
 *
 * In: the lab's shape. Out: requests to the API of any agent, and how many sessions each host must then have. Never: a host named
 * by more than its number: reflectors are the first ones, and have a label.
 */
import type { Method } from '../src/cli/client.ts';
import { routerAddresses } from './network.ts';
import type { LabRecord } from './record.ts';
import { routerAs } from './router.ts';

/** Containers get an address of each. */
const pools = ['10.65.0.0/16', 'fd00:65::/64'];
/** One cluster: a route that has been through one of them is not for the others to reflect again. */
const reflectorCluster = '244.0.0.1';
export const reflectorLabels = { role: 'reflector' };

export interface Request {
  readonly method: Method;
  readonly path: string;
  readonly body: unknown;
}

type Shape = Pick<LabRecord, 'nodes' | 'reflectors' | 'router'>;

const post = (path: string, body: unknown): Request => ({ method: 'POST', path, body });
const patch = (path: string, body: unknown): Request => ({ method: 'PATCH', path, body });
/** From so many nodes on, a mesh that grows with each of them costs more than all else: every one has to be told of every other. */
const lateMesh = 10;
/** From so many on, no BFD in a mesh: each pair tells the other three times a second that it is there, 65,000 packets at 100 nodes. */
const tooManyForBfd = 50;

/** In any order; the reflectors must have registered, most nodes had better not. */
export function settings({ nodes, reflectors, router }: Shape): Request[] {
  const reflecting = Array.from({ length: reflectors }, (_, i) =>
    patch(`/v1/nodes/node${i + 1}`, { routeReflectorClusterId: reflectorCluster }),
  );
  const toReflectors =
    reflectors === 0
      ? []
      : [post('/v1/bgp/peers', { name: 'reflectors', peerSelector: 'role == "reflector"' })];
  const meshOff = reflectors > 0 || nodes > lateMesh ? [patch('/v1/bgp/settings', { mesh: false })] : [];
  const { address4, address6 } = routerAddresses;
  const peers =
    router === null
      ? []
      : [
          post('/v1/bgp/peers', { name: 'router4', address: address4, asNumber: routerAs }),
          post('/v1/bgp/peers', { name: 'router6', address: address6, asNumber: routerAs }),
        ];
  return [
    ...pools.map((cidr) => post('/v1/pools', { cidr })),
    ...meshOff,
    ...reflecting,
    ...toReflectors,
    ...peers,
  ];
}

/** Once all nodes have registered. */
export function lateSettings({ nodes, reflectors }: Shape): Request[] {
  const quiet = nodes > tooManyForBfd ? { bfd: false } : {};
  return reflectors === 0 && nodes > lateMesh ? [patch('/v1/bgp/settings', { mesh: true, ...quiet })] : [];
}

/** @param node its place in the list, from 0 */
export function sessionsOf(node: number, { nodes, reflectors, router }: Shape): number {
  const inside = reflectors === 0 || node < reflectors ? nodes - 1 : reflectors;
  return 2 * (inside + (router === null ? 0 : 1));
}
