/**
 * Our IP sets in the kernel: read, compare, write.
 *
 * In: which sets with which members should be. Out: requests over netlink. Never: a set of somebody else; a set destroyed that a
 * rule of ours still names.
 */
import { Deltas } from '../lib/deltas.ts';
import type { Logger } from '../lib/logger.ts';
import {
  type IpSetInfo,
  type IpSetMember,
  type IpSetRequest,
  type IpSets,
  KernelError,
} from '../linux/ports.ts';
import { setPrefixes } from '../policy/names.ts';
import type { SetSpec } from '../policy/output.ts';

/** What is there may be of a kind that we never make. */
type ActualSpec = Pick<IpSetInfo, 'type' | 'family'>;

export class IpsetReconciler {
  readonly #ipsets: IpSets;
  readonly #logger: Logger;
  readonly #sets = new Deltas<string, ActualSpec>((a, b) => a.type === b.type && a.family === b.family);
  readonly #members = new Map<string, Deltas<IpSetMember, true>>();
  /** Sets with members to add or remove. */
  readonly #dirty = new Set<string>();
  /** Members written while a read is under way: there, what we did is newer than what was read. */
  #writtenDuringRead: Map<string, Set<IpSetMember>> | null = null;
  #requests = 0;

  constructor(ipsets: IpSets, logger: Logger) {
    this.#ipsets = ipsets;
    this.#logger = logger;
  }

  /** Requests that have been sent, since the start. */
  get requests(): number {
    return this.#requests;
  }

  set(name: string, spec: SetSpec | null): void {
    if (spec === null) {
      this.#sets.unwant(name);
      const members = this.#membersOf(name);
      for (const member of [...members.desired.keys()]) members.unwant(member);
    } else {
      this.#sets.want(name, spec);
    }
    this.#noteDirt(name);
  }

  member(set: string, member: IpSetMember, present: boolean): void {
    if (present) this.#membersOf(set).want(member, true);
    else this.#membersOf(set).unwant(member);
    this.#noteDirt(set);
  }

  /** Every set that should be is there (its members aside). */
  get hasAllSets(): boolean {
    return this.#sets.pendingUpdates.size === 0;
  }

  get isClean(): boolean {
    return this.hasAllSets && this.#dirty.size === 0;
  }

  /** Sets that are there and should not be. */
  get unwanted(): ReadonlySet<string> {
    return this.#sets.pendingDeletes;
  }

  /** Sets that are there under a name of ours, but are of another type than they should be. */
  get wrongTyped(): string[] {
    return [...this.#sets.pendingUpdates.keys()].filter((name) => this.#sets.actual.has(name));
  }

  /** What differs, in words for people. */
  differences(): string[] {
    const texts = Array.from(
      this.#sets.pendingUpdates.keys(),
      (name) => `set ${name} missing or of another type`,
    );
    for (const name of this.#dirty) {
      const { pendingUpdates, pendingDeletes } = this.#membersOf(name);
      if (this.#sets.actual.has(name)) {
        texts.push(`set ${name}: ${pendingUpdates.size} members missing, ${pendingDeletes.size} too many`);
      }
    }
    for (const name of this.unwanted) texts.push(`set ${name} left over`);
    return texts;
  }

  /** Returns the differences that we did not know of, in words. */
  async read(): Promise<string[]> {
    const written = new Map<string, Set<IpSetMember>>();
    this.#writtenDuringRead = written;
    try {
      const lists = await Promise.all(setPrefixes.map((prefix) => this.#ipsets.list(prefix)));
      const known = new Set(this.differences());
      this.#observe(lists.flat(), written);
      return this.differences().filter((difference) => !known.has(difference));
    } finally {
      this.#writtenDuringRead = null;
    }
  }

  /** Makes the sets that are missing and brings the members of all up to date, before it returns. @throws KernelError */
  write(): void {
    for (const [name, spec] of [...this.#sets.pendingUpdates]) this.#create(name, spec as SetSpec);
    this.writeMembers();
  }

  /**
   * Brings the members of the sets that are there up to date, before it returns, in one batch. Additions first, so that what
   * moves is never nowhere. @throws KernelError; then what is there must be read again
   */
  writeMembers(): void {
    const names = [...this.#dirty].filter((name) => this.#sets.actual.has(name));
    const additions = names.map((name) => ({
      name,
      members: [...this.#membersOf(name).pendingUpdates.keys()],
    }));
    const deletions = names.map((name) => ({ name, members: [...this.#membersOf(name).pendingDeletes] }));
    const requests: IpSetRequest[] = [
      ...additions.map((each) => ({ kind: 'add' as const, ...each })),
      ...deletions.map((each) => ({ kind: 'delete' as const, ...each })),
    ].filter(({ members }) => members.length > 0);
    if (requests.length === 0) return;
    this.#send(requests);
    for (const { name, members } of additions)
      for (const member of members) this.#noteWritten(name, member, true);
    for (const { name, members } of deletions)
      for (const member of members) this.#noteWritten(name, member, false);
    for (const name of names) this.#noteDirt(name);
  }

  /** Destroys what is not wanted. One that cannot go (a foreign rule names it) stays for the next time. */
  destroyUnwanted(isNamed: (set: string) => boolean): void {
    for (const name of [...this.unwanted]) {
      if (isNamed(name)) continue;
      try {
        this.#destroy(name);
      } catch (error) {
        if (!(error instanceof KernelError)) throw error;
        this.#logger.warn(
          { set: name, error: error.message },
          'cannot destroy a set that is not needed any more',
        );
      }
    }
  }

  #create(name: string, spec: SetSpec): void {
    if (this.#sets.actual.has(name)) this.#destroy(name);
    this.#send([{ kind: 'create', name, type: spec.type, family: spec.family }]);
    this.#sets.wrote(name, spec);
  }

  #destroy(name: string): void {
    this.#send([{ kind: 'destroy', name }]);
    this.#sets.erased(name);
    this.#membersOf(name).observe([]);
    this.#noteDirt(name);
    if (!this.#sets.desired.has(name)) this.#members.delete(name);
  }

  #send(requests: readonly IpSetRequest[]): void {
    this.#requests += requests.length;
    this.#ipsets.batch(requests);
  }

  #noteWritten(name: string, member: IpSetMember, present: boolean): void {
    const members = this.#membersOf(name);
    if (present) members.wrote(member, true);
    else members.erased(member);
    const written = this.#writtenDuringRead;
    if (written === null) return;
    if (!written.has(name)) written.set(name, new Set());
    written.get(name)!.add(member);
  }

  #observe(infos: readonly IpSetInfo[], written: ReadonlyMap<string, ReadonlySet<IpSetMember>>): void {
    this.#sets.observe(infos.map(({ name, type, family }) => [name, { type, family }]));
    const read = new Map(infos.map((info) => [info.name, info.members]));
    for (const name of new Set([...this.#members.keys(), ...read.keys()])) {
      const members = this.#membersOf(name);
      const newer = written.get(name) ?? new Set();
      const ours = [...newer].filter((member) => members.actual.has(member));
      const theirs = (read.get(name) ?? []).filter((member) => !newer.has(member));
      members.observe([...ours, ...theirs].map((member) => [member, true]));
      this.#noteDirt(name);
      if (!read.has(name) && !this.#sets.desired.has(name)) this.#members.delete(name);
    }
  }

  /** The members of a set that is to go do not matter. */
  #noteDirt(name: string): void {
    const isDirty = this.#sets.desired.has(name) && !this.#membersOf(name).isClean;
    if (isDirty) this.#dirty.add(name);
    else this.#dirty.delete(name);
  }

  #membersOf(name: string): Deltas<IpSetMember, true> {
    let members = this.#members.get(name);
    if (members === undefined) {
      members = new Deltas();
      this.#members.set(name, members);
    }
    return members;
  }
}
