/**
 * Members of sets as the policy engine tells them → elements as nftables takes them (pure).
 *
 * In: members that come and go, prefixes among them, one inside another. Out: elements. Never: two elements that overlap (the
 * kernel refuses them), a scan of a set that holds single addresses only.
 */

import type { NftData } from '../linux/nftables-port.ts';
import type { IpSetMember } from '../linux/ports.ts';
import { addressValue, type Cidr, cidrBase, cidrSize, type Family, prefixLength } from '../model/ip.ts';

type Data = NftData | null;
/** @param data undefined: it is to go @param before undefined: it comes */
type ChangeElement = (key: string, data: Data | undefined, before: Data | undefined) => void;

export class NftMembers {
  readonly #family: Family;
  readonly #change: ChangeElement;
  /** Each with what the reasons for it say, the newest last, which is the data of a map's element: in a list where there are several. */
  readonly #members = new Map<IpSetMember, Data | readonly Data[]>();
  /** From the first prefix on, for good: the kernel cannot change a set. Before, each member is an element. */
  #told: Map<string, Data> | null = null;
  #mustCover = false;

  constructor(family: Family, change: ChangeElement) {
    this.#family = family;
    this.#change = change;
  }

  /** Some member is a prefix. */
  get hasPrefixes(): boolean {
    return this.#told !== null;
  }

  /** Some elements wait to be worked out. */
  get mustSettle(): boolean {
    return this.#mustCover;
  }

  add(member: IpSetMember, data: Data): void {
    const known = this.#members.get(member);
    this.#members.set(member, known === undefined ? data : [...reasonsOf(known), data]);
    this.#changed(member, known === undefined ? undefined : newest(known), data);
  }

  remove(member: IpSetMember, data: Data): void {
    const known = this.#members.get(member);
    if (known === undefined) return;
    const reasons = reasonsOf(known);
    const at = reasons.indexOf(data);
    const left = at < 0 ? reasons : reasons.toSpliced(at, 1);
    if (left.length === 0) this.#members.delete(member);
    else this.#members.set(member, left);
    this.#changed(member, newest(known), left.at(-1));
  }

  /** Prefixes inside others are no elements; worked out once for all changes since the last time. */
  settle(): void {
    if (!this.#mustCover || this.#told === null) return;
    this.#mustCover = false;
    const covering = new Set(coverOf([...this.#members.keys()]));
    for (const key of [...this.#told.keys()]) if (!covering.has(key)) this.#tell(this.#told, key, undefined);
    for (const member of covering) this.#tell(this.#told, member, newest(this.#members.get(member)!));
  }

  /** All that was told. */
  *elements(): Generator<[key: string, data: Data]> {
    if (this.#told !== null) yield* this.#told;
    else for (const [member, known] of this.#members) yield [hostKey(member, this.#family)!, newest(known)];
  }

  #changed(member: IpSetMember, before: Data | undefined, now: Data | undefined): void {
    const key = this.#told === null ? hostKey(member, this.#family) : null;
    if (key !== null) {
      if (now !== before) this.#change(key, now, before);
      return;
    }
    this.#mustCover = true;
    if (this.#told !== null) return;
    this.#told = new Map();
    for (const [each, known] of this.#members)
      if (each !== member) this.#told.set(hostKey(each, this.#family)!, newest(known));
  }

  #tell(told: Map<string, Data>, key: string, data: Data | undefined): void {
    const before = told.get(key);
    if (before === data) return;
    if (data === undefined) told.delete(key);
    else told.set(key, data);
    this.#change(key, data, before);
  }
}

function reasonsOf(known: Data | readonly Data[]): readonly Data[] {
  return Array.isArray(known) ? known : [known as Data];
}

function newest(known: Data | readonly Data[]): Data {
  return Array.isArray(known) ? (known as readonly Data[]).at(-1)! : (known as Data);
}

/** `10.0.0.1,eth0` for `10.0.0.1/32,eth0`, or null for a wider prefix. */
function hostKey(member: IpSetMember, family: Family): string | null {
  const all = family === 4 ? '/32' : '/128';
  const comma = member.indexOf(',');
  const end = comma < 0 ? member.length : comma;
  return member.endsWith(all, end) ? `${member.slice(0, end - all.length)}${member.slice(end)}` : null;
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
