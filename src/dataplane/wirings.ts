/**
 * The wiring of every kind of endpoint.
 *
 * In: nothing. Out: a type. Never: a kind without its wiring.
 */
import type { Endpoint } from '../model/records.ts';
import type { EndpointWiring } from './endpoint-wiring.ts';
import type { ForeignWiring } from './foreign-wiring.ts';
import type { HandedWiring } from './handed-wiring.ts';
import type { MacvlanWiring } from './macvlan-wiring.ts';
import type { Wiring } from './wiring.ts';

/** One for each kind of endpoint. */
export interface Wirings extends Readonly<Record<Endpoint['kind'], Wiring>> {
  readonly routed: EndpointWiring;
  readonly macvlan: MacvlanWiring;
  readonly foreign: ForeignWiring;
  readonly handed: HandedWiring;
}
