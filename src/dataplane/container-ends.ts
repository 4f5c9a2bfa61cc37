/**
 * Where the traffic of a macvlan endpoint enters and leaves its container, for the chains that stand there (pure).
 *
 * In: the endpoint's record, its node. Out: names, the mark of what came by the host, how the host is known on the wire. Never: a look
 * into the kernel: an explanation is made from the same.
 */
import { wayBackOf } from '../macvlan/plan.ts';
import { shimMac } from '../macvlan/shim-plan.ts';
import { type Address, type Family, familyOf, hostCidr } from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';
import type { ContainerEnds } from '../policy/container-chains.ts';
import { insideName } from './host-pair.ts';
import { parentName } from './macvlan-parents.ts';
import { macvlanOf } from './macvlan-wiring.ts';

/** The node that the endpoint is on. */
export interface OwnHost {
  readonly node: string;
  /** By which the host is known on the wire. */
  readonly hostAddresses: readonly Address[];
}

/** @param family null: of both */
export function containerEnds(
  endpoint: Endpoint,
  { node, hostAddresses }: OwnHost,
  family: Family | null,
): ContainerEnds {
  const macvlan = macvlanOf(endpoint);
  const { hostAccess } = macvlan;
  const { mark: value, mask } = wayBackOf(endpoint.hostInterface);
  const known = hostAddresses.filter((address) => family === null || familyOf(address) === family);
  return {
    wire: endpoint.interface,
    hostPair: hostAccess === 'veth' ? { name: insideName(endpoint), mark: { value, mask } } : null,
    hostOnWire:
      hostAccess === 'shim' ? { nets: known.map(hostCidr), mac: shimMac(node, parentName(macvlan)) } : null,
  };
}
