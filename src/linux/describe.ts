/**
 * Requests in words, for the errors of both adapters.
 *
 * In: a request of ports.ts. Out: `add route 10.0.0.1/32`. Never: a value that the request does not hold.
 */

import type { NftRequest } from './nftables-port.ts';
import type { IpSetRequest, RoutingRequest } from './ports.ts';

export function describeRouting(request: RoutingRequest): string {
  switch (request.kind) {
    case 'veth-add':
      return `add veth ${request.host.name} with peer ${request.peer.name}`;
    case 'macvlan-add':
      return `add macvlan ${request.link.name} on link ${request.parentIndex}`;
    case 'vlan-add':
      return `add VLAN ${request.id} on link ${request.parentIndex}`;
    case 'ifb-add':
      return `add ifb ${request.link.name}`;
    case 'link-set':
      return `change link ${request.index}`;
    case 'link-settle':
      return `read link ${request.index}`;
    case 'link-delete':
      return `delete link ${request.index}`;
    case 'address-add':
      return `add address ${request.address}/${request.prefixLength} to link ${request.index}`;
    case 'address-delete':
      return `delete address ${request.address}/${request.prefixLength} from link ${request.index}`;
    case 'shape':
      return `limit link ${request.index} to ${request.bucket.rateBitsPerSecond} bit/s`;
    case 'unshape':
      return `end the limit of link ${request.index}`;
    case 'redirect-ingress':
      return `lead what arrives on link ${request.index} through link ${request.toIndex}`;
    case 'unredirect-ingress':
      return `end the redirection of link ${request.index}`;
    case 'neighbour-replace':
      return `set neighbour ${request.address} of link ${request.index}`;
    case 'source-rule-add':
      return `add rule: from ${request.source} by table ${request.table}`;
    case 'source-rule-delete':
      return `delete rule: from ${request.source} by table ${request.table}`;
    case 'mark-rule-add':
      return `add rule: mark ${request.mark} by table ${request.table}`;
    case 'mark-rule-delete':
      return `delete rule: mark ${request.mark} by table ${request.table}`;
    case 'route-add':
    case 'route-replace':
    case 'route-delete':
      return `${request.kind.slice('route-'.length)} route ${request.route.destination}`;
  }
}

/** @param line number of the member that the error is about, if known */
export function describeIpSet(request: IpSetRequest, line: number | null = null): string {
  const member = 'members' in request && line !== null ? request.members[line] : undefined;
  if (member === undefined) return `${request.kind} ipset ${request.name}`;
  return request.kind === 'add'
    ? `add ${member} to ipset ${request.name}`
    : `delete ${member} from ipset ${request.name}`;
}

export function describeNft(request: NftRequest): string {
  const [object, verb] = request.kind.split('-') as [string, string];
  const name = 'chain' in request ? request.chain : 'set' in request ? request.set : null;
  const family = request.layer === 'link' ? 'netdev' : request.family === 4 ? 'ip' : 'ip6';
  const table = `nftables table ${family} ${request.table}`;
  return name === null ? `${verb} ${table}` : `${verb} ${object} (${name}) in ${table}`;
}
