/**
 * The members of all sets, each with the number of reasons for it (pure, in memory).
 *
 * In: reasons that come and go (an endpoint with an address, once per tag); which sets are wanted in the kernel. Out: a member when
 * its first reason comes and when its last one goes, for wanted sets only. Never: a member lost while a reason is left.
 */
import type { IpSetMember } from '../linux/ports.ts';
import type { PolicyOutput, SetSpec } from './output.ts';

interface CountedSet {
  readonly reasons: Map<IpSetMember, number>;
  /** How many users want the set in the kernel. */
  users: number;
  /** Known while there are users. */
  spec: SetSpec | null;
}

export class CountedSets {
  readonly #sets = new Map<string, CountedSet>();
  readonly #output: PolicyOutput;

  constructor(output: PolicyOutput) {
    this.#output = output;
  }

  /** One user more; the first brings the set and all members that it has by now. */
  acquire(name: string, spec: SetSpec): void {
    const set = this.#entry(name);
    if (++set.users > 1) return;
    set.spec = spec;
    this.#output.set(name, spec);
    for (const member of set.reasons.keys()) this.#output.member(name, member, true);
  }

  release(name: string): void {
    const set = this.#entry(name);
    if (--set.users === 0) this.#output.set(name, null);
    this.#forgetIfIdle(name, set);
  }

  add(name: string, member: IpSetMember): void {
    const set = this.#entry(name);
    const reasons = (set.reasons.get(member) ?? 0) + 1;
    set.reasons.set(member, reasons);
    if (reasons === 1 && set.users > 0) this.#output.member(name, member, true);
  }

  remove(name: string, member: IpSetMember): void {
    const set = this.#entry(name);
    const reasons = (set.reasons.get(member) ?? 0) - 1;
    if (reasons > 0) {
      set.reasons.set(member, reasons);
      return;
    }
    set.reasons.delete(member);
    if (set.users > 0) this.#output.member(name, member, false);
    this.#forgetIfIdle(name, set);
  }

  /** All wanted sets with their members, to another output. */
  tellTo(output: PolicyOutput): void {
    for (const [name, { reasons, users, spec }] of this.#sets) {
      if (users === 0 || spec === null) continue;
      output.set(name, spec);
      for (const member of reasons.keys()) output.member(name, member, true);
    }
  }

  #entry(name: string): CountedSet {
    let set = this.#sets.get(name);
    if (set === undefined) {
      set = { reasons: new Map(), users: 0, spec: null };
      this.#sets.set(name, set);
    }
    return set;
  }

  #forgetIfIdle(name: string, set: CountedSet): void {
    if (set.users === 0 && set.reasons.size === 0) this.#sets.delete(name);
  }
}
