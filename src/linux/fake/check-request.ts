/**
 * What the real adapter refuses before it asks the kernel.
 *
 * In: a request. Out: nothing, or INVALID. Never: a rule of its own: they are those of the codecs.
 */
import { checkIfb, checkIndex, checkMacvlan, checkVeth, checkVlan } from '../netlink/link.ts';
import { checkRoute } from '../netlink/route.ts';
import { checkBucket } from '../netlink/traffic-control.ts';
import type { RoutingRequest } from '../ports.ts';

/** @throws INVALID */
export function check(request: RoutingRequest): void {
  if (request.kind === 'veth-add') checkVeth(request);
  else if (request.kind === 'macvlan-add') checkMacvlan(request);
  else if (request.kind === 'vlan-add') checkVlan(request);
  else if (request.kind === 'ifb-add') checkIfb(request);
  else if (request.kind === 'shape') checkBucket(request.bucket);
  else if ('route' in request) checkRoute(request.route);
  else if ('index' in request) checkIndex(request.index, 'index');
}
