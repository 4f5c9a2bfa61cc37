/**
 * Which list of policies and profiles each interface has, by what the engine tells (pure, in memory): the sets of lists hold addresses with
 * their host interfaces.
 *
 * In: members of sets. Out: the list of an interface. Never: an answer from an older list while the newer one is there.
 */
import type { IpSetMember } from '../linux/ports.ts';
import type { Family } from '../model/ip.ts';
import { isListSet, listSet } from './names.ts';

export class ToldLists {
  /** By family and host interface: the lists with the number of members that say so, the newest last. */
  readonly #lists = new Map<string, Map<string, number>>();

  /** @returns the host interface that may have another list now; null where the set is none of a list */
  member(set: string, member: IpSetMember, present: boolean): string | null {
    if (!isListSet(set)) return null;
    const family: Family = set.startsWith('nctl4') ? 4 : 6;
    const list = set.slice(listSet(family, '').length);
    const hostInterface = member.slice(member.indexOf(',') + 1);
    const key = `${family} ${hostInterface}`;
    const lists = this.#lists.get(key) ?? new Map<string, number>();
    this.#lists.set(key, lists);
    const reasons = (lists.get(list) ?? 0) + (present ? 1 : -1);
    if (reasons > 0) lists.set(list, reasons);
    else lists.delete(list);
    if (lists.size === 0) this.#lists.delete(key);
    return hostInterface;
  }

  /** Id of the list that is in force for what the interface has of the family. */
  listOf(hostInterface: string, family: Family): string | null {
    return [...(this.#lists.get(`${family} ${hostInterface}`)?.keys() ?? [])].at(-1) ?? null;
  }
}
