/**
 * Members of sets as the policy engine tells them → elements as nftables takes them (pure).
 *
 * In: members that come and go, prefixes among them, one inside another. Out: elements. Never: two elements that overlap (the
 * kernel refuses them), a scan of a set that holds single addresses only.
 */

import type { NftData } from '../linux/nftables-port.ts';
import type { IpSetMember } from '../linux/ports.ts';
import {
  addressBits,
  addressValue,
  type Cidr,
  cidrBase,
  cidrSize,
  type Family,
  prefixLength,
} from '../model/ip.ts';

type ChangeElement = (key: string, data: NftData | null | undefined) => void;

export class NftMembers {
  readonly #family: Family;
  readonly #change: ChangeElement;
  /** Each with the reasons for it, the newest last; what they say is the data of a map's element. */
  readonly #members = new Map<IpSetMember, (NftData | null)[]>();
  readonly #told = new Map<string, NftData | null>();
  /** From the first prefix on, for good: the kernel cannot change a set. */
  #hasPrefixes = false;
  #mustCover = false;

  /** @param change is told of elements: their data, undefined when they are to go */
  constructor(family: Family, change: ChangeElement) {
    this.#family = family;
    this.#change = change;
  }

  /** Some member is a prefix. */
  get hasPrefixes(): boolean {
    return this.#hasPrefixes;
  }

  /** Some elements wait to be worked out. */
  get mustSettle(): boolean {
    return this.#mustCover;
  }

  add(member: IpSetMember, data: NftData | null): void {
    const reasons = this.#members.get(member);
    if (reasons === undefined) this.#members.set(member, [data]);
    else reasons.push(data);
    this.#hasPrefixes ||= hostKey(member, this.#family) === null;
    this.#changed(member);
  }

  remove(member: IpSetMember, data: NftData | null): void {
    const reasons = this.#members.get(member);
    if (reasons === undefined) return;
    const at = reasons.indexOf(data);
    if (at >= 0) reasons.splice(at, 1);
    if (reasons.length === 0) this.#members.delete(member);
    this.#changed(member);
  }

  /** Prefixes inside others are no elements; worked out once for all changes since the last time. */
  settle(): void {
    if (!this.#mustCover) return;
    this.#mustCover = false;
    const covering = new Set(coverOf([...this.#members.keys()]));
    for (const key of [...this.#told.keys()]) if (!covering.has(key)) this.#tell(key, undefined);
    for (const member of covering) this.#tell(member, this.#members.get(member)!.at(-1)!);
  }

  #changed(member: IpSetMember): void {
    const key = this.#hasPrefixes ? null : hostKey(member, this.#family);
    if (key === null) this.#mustCover = true;
    else this.#tell(key, this.#members.get(member)?.at(-1));
  }

  #tell(key: string, data: NftData | null | undefined): void {
    if (this.#told.get(key) === data && this.#told.has(key) === (data !== undefined)) return;
    if (data === undefined) this.#told.delete(key);
    else this.#told.set(key, data);
    this.#change(key, data);
  }
}

/** `10.0.0.1,eth0` for `10.0.0.1/32,eth0`, or null for a wider prefix. */
function hostKey(member: IpSetMember, family: Family): string | null {
  const { cidr, name } = split(member);
  const all = `/${addressBits(family)}`;
  return cidr.endsWith(all) ? `${cidr.slice(0, -all.length)}${name}` : null;
}

/** Those that are not inside another one of the same interface. */
function coverOf(members: readonly IpSetMember[]): IpSetMember[] {
  const ranges = members.map((member) => {
    const { cidr, name } = split(member);
    const first = addressValue(cidrBase(cidr));
    return { member, name, first, last: first + cidrSize(cidr) - 1n, bits: prefixLength(cidr) };
  });
  ranges.sort((a, b) => {
    if (a.name !== b.name) return a.name < b.name ? -1 : 1;
    return a.first === b.first ? a.bits - b.bits : a.first < b.first ? -1 : 1;
  });
  let outer: (typeof ranges)[number] | null = null;
  const cover: IpSetMember[] = [];
  for (const range of ranges) {
    if (outer !== null && outer.name === range.name && range.last <= outer.last) continue;
    outer = range;
    cover.push(range.member);
  }
  return cover;
}

/** `name` with the comma before it, or empty. */
function split(member: IpSetMember): { cidr: Cidr; name: string } {
  const comma = member.indexOf(',');
  return comma < 0
    ? { cidr: member as Cidr, name: '' }
    : { cidr: member.slice(0, comma) as Cidr, name: member.slice(comma) };
}
