/**
 * Routes and rules in a container that may have other interfaces: where one of them has the default route, rules by source lead what is
 * sent from ours into a table of its own.
 *
 * In: an open namespace, a planned link. Out: routes and rules in the container; which are missing, in words. Never: another interface's
 * default route replaced; a rule of somebody else taken away.
 */
import type { Linux, Netns, RouteInfo, Routing, RoutingRequest } from '../linux/ports.ts';
import { defaultRoutes, type MacvlanSpec, planBeside } from '../macvlan/plan.ts';
import { type Address, familyOf } from '../model/ip.ts';
import type { WireRoute } from '../model/macvlan.ts';
import { isErrno } from './is-errno.ts';

/** The default routes of a macvlan: in the main table, or where that has one, beside it. @throws KernelError */
export function leadOut(container: Routing, spec: MacvlanSpec, table: number): void {
  for (const route of defaultRoutes(spec)) {
    if (send(container, { kind: 'route-add', route }, ['EEXIST'])) continue;
    for (const request of planBeside(spec, familyOf(route.destination), table))
      send(container, request, ['EEXIST']);
  }
}

/** Of those that the link is to have, in whatever table, since a plugin after us may move them. */
export function missingRoutes(
  wanted: readonly WireRoute[],
  present: readonly RouteInfo[],
  linkIndex: number,
): string[] {
  const isThere = ({ destination, gateway }: WireRoute): boolean =>
    present.some(
      (route) =>
        route.destination === destination && route.gateway === gateway && route.linkIndex === linkIndex,
    );
  return wanted
    .filter((route) => !isThere(route))
    .map(({ destination, gateway }) => {
      const what = /\/0$/.test(destination) ? 'default route' : `route to ${destination}`;
      return `the ${what}${gateway === null ? '' : ` by way of ${gateway}`} is missing in the container`;
    });
}

/** Takes the rules out of a namespace that lives on; their table went with the link. */
export function endBeside(
  linux: Pick<Linux, 'openRouting'>,
  netns: Netns,
  addresses: readonly Address[],
  table: number,
): void {
  const container = linux.openRouting(netns);
  try {
    for (const source of addresses)
      send(container, { kind: 'source-rule-delete', source, table }, ['ENOENT', 'EAFNOSUPPORT']);
  } finally {
    container.close();
  }
}

/** False where it was refused for one of these reasons. @throws any other refusal */
function send(container: Routing, request: RoutingRequest, expected: readonly string[]): boolean {
  try {
    container.batch([request]);
    return true;
  } catch (error) {
    if (!isErrno(error, ...expected)) throw error;
    return false;
  }
}
