/**
 * What the policy engine says and the dataplane hears: sets, their members, chains.
 *
 * Calls are differences to what was said before. A set is told before its members and before a chain that names it; null means
 * gone, and the members of a set go with it.
 */
import type { IpSetMember, IpSetType } from '../linux/ports.ts';
import type { Family } from '../model/ip.ts';
import type { Chain } from './chain.ts';

export interface SetSpec {
  readonly type: IpSetType;
  readonly family: Family;
}

export interface PolicyOutput {
  set(name: string, spec: SetSpec | null): void;
  member(set: string, member: IpSetMember, present: boolean): void;
  chain(family: Family, name: string, chain: Chain | null): void;
}
