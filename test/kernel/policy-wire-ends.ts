/**
 * What stands at the ends of the wires of random policy: addresses, MACs, names.
 *
 * In: nothing. Out: constants, by the number of the wire. Never: an address at two ends.
 */
import type { Address } from '../../src/model/ip.ts';
import type { Transport } from './frames.ts';

/** Addresses behind each interface, v4 and v6 in turns: four of endpoints, then two foreign ones with several each. */
export const endpointAddresses = [0, 1, 2, 3].map((i) => both(`10.0.0.${i + 1}`, `fd00::${i + 1}`));
export const foreignAddresses = [
  [2, 3, 6].flatMap((i) => both(`192.0.2.${i}`, `2001:db8::${i}`)),
  [2, 9].flatMap((i) => both(`198.51.100.${i}`, `2001:db8:1::${i}`)),
];
export const interfaces = ['nctl0', 'nctl1', 'nctl2', 'nctl3', 'up0', 'up1'];
export const addressesBehind = [...endpointAddresses, ...foreignAddresses];
export const HOST_MAC = '02:00:00:00:00:01';
export const macOf = (i: number): string => `02:00:00:00:01:0${i}`;

export interface WirePacket {
  /** Index of the interface by which it comes. */
  readonly via: number;
  readonly source: Address;
  readonly destination: Address;
  readonly isCut: boolean;
  /** @param payload to be its last bytes */
  transport(payload: Buffer): Transport;
}

function both(v4: string, v6: string): Address[] {
  return [v4, v6] as Address[];
}
