/**
 * Which endpoints can have ports of the host.
 *
 * In: an endpoint's record, mappings. Out: nothing, or why not. Never: a port that is taken and leads nowhere.
 */
import { invalid } from '../lib/errors.ts';
import { familyOf } from './ip.ts';
import { hostFamilies, hostPortText, type PortMapping } from './port-mapping.ts';
import type { Endpoint } from './records.ts';

/** @throws INVALID */
export function refuseUnpublishable(
  { kind, macvlan, addresses }: Pick<Endpoint, 'kind' | 'macvlan' | 'addresses'>,
  mappings: readonly PortMapping[],
): void {
  const [first] = mappings;
  if (first === undefined) return;
  if (kind === 'foreign')
    throw invalid(
      'portMappings',
      hostPortText(first),
      'none: whoever made the interface publishes its ports',
    );
  if (kind === 'macvlan' && macvlan?.hostAccess !== 'veth')
    throw invalid(
      'portMappings',
      hostPortText(first),
      `none with hostAccess ${macvlan?.hostAccess}: what answers would not come back by the host; set hostAccess to veth`,
    );
  for (const mapping of mappings) {
    const families = hostFamilies(mapping.hostIP);
    // Without any: they are asked for later.
    if (addresses.length > 0 && !addresses.some((address) => families.includes(familyOf(address))))
      throw invalid('portMappings', hostPortText(mapping), 'an address of a family that the endpoint has');
  }
}
