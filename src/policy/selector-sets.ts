/**
 * Selectors as sets of addresses: those that some list of this host names, filled with the endpoints of all hosts that they pick
 * (pure, in memory).
 *
 * In: endpoints with labels and addresses, selectors taken into use and given back. Out: reasons for members, to CountedSets.
 * Never: an address out of a set that it stays in.
 */
import type { IpSetMember } from '../linux/ports.ts';
import { type Family, families } from '../model/ip.ts';
import { type Labels, parseSelector } from '../model/selector.ts';
import type { CountedSets } from './counted-sets.ts';
import { LabelIndex } from './label-index.ts';
import { selectorSet } from './names.ts';

/** Per family. */
type Members = Readonly<Record<Family, readonly IpSetMember[]>>;

export class SelectorSets {
  readonly #sets: CountedSets;
  readonly #index = new LabelIndex();
  readonly #members = new Map<string, Members>();
  readonly #users = new Map<string, number>();

  constructor(sets: CountedSets) {
    this.#sets = sets;
  }

  onEndpoint(id: string, endpoint: { readonly labels: Labels; readonly members: Members } | null): void {
    const old = this.#members.get(id);
    const before = [...this.#index.pickedBy(id)];
    this.#index.setThing(id, endpoint?.labels ?? null);
    if (endpoint === null) this.#members.delete(id);
    else {
      this.#members.set(id, endpoint.members);
      for (const selector of this.#index.pickedBy(id)) this.#count('add', selector, endpoint.members);
    }
    if (old !== undefined) for (const selector of before) this.#count('remove', selector, old);
  }

  use(selector: string): void {
    const users = (this.#users.get(selector) ?? 0) + 1;
    this.#users.set(selector, users);
    if (users > 1) return;
    for (const id of this.#index.setSelector(selector, parseSelector(selector)).came)
      this.#count('add', selector, this.#members.get(id)!);
  }

  giveBack(selector: string): void {
    const users = this.#users.get(selector)! - 1;
    if (users > 0) {
      this.#users.set(selector, users);
      return;
    }
    this.#users.delete(selector);
    for (const id of this.#index.setSelector(selector, null).went)
      this.#count('remove', selector, this.#members.get(id)!);
  }

  #count(what: 'add' | 'remove', selector: string, members: Members): void {
    for (const family of families)
      for (const member of members[family]) this.#sets[what](selectorSet(family, selector), member);
  }
}
