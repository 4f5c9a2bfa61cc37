/**
 * Policy of all macvlan endpoints of this host, each in its container.
 *
 * In: the calls of PolicyOutput, the endpoints. Out: to each endpoint's ContainerPolicy what concerns it. Never: a change of one set
 * that is looked at for endpoints whose chains do not name it; one container whose kernel says no keeping the others from theirs.
 */
import { SharedWork, type SharedWorkOptions } from '../lib/shared-work.ts';
import type { IpSetMember, Netns } from '../linux/ports.ts';
import type { Family } from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';
import type { Chain } from '../policy/chain.ts';
import type { PolicyOutput, SetSpec } from '../policy/output.ts';
import { addCounts, type RuleCounts } from '../policy/rule-counts.ts';
import { ToldLists } from '../policy/told-lists.ts';
import {
  ContainerPolicy,
  type ContainerPolicyParts,
  isSamePlace,
  type SetReader,
  type ToldPolicy,
} from './container-policy.ts';
import type { PolicyStatus } from './policy-dataplane.ts';

interface ToldSet {
  readonly spec: SetSpec;
  readonly members: Set<IpSetMember>;
  readonly readers: Set<SetReader>;
}

export class ContainerPolicies implements PolicyOutput, ToldPolicy {
  readonly #parts: Omit<ContainerPolicyParts, 'told'>;
  /** Those that may not be in the kernel as they should. */
  readonly #unwritten = new Set<ContainerPolicy>();
  readonly #writing: SharedWork;
  readonly #sets = new Map<string, ToldSet>();
  readonly #chains = new Map<string, Chain>();
  readonly #lists = new ToldLists();
  /** By host interface, which no two endpoints share. */
  readonly #policies = new Map<string, ContainerPolicy>();

  /** @param together how it shares its writes with others */
  constructor(
    parts: Omit<ContainerPolicyParts, 'told' | 'onChange'>,
    together: Omit<SharedWorkOptions, 'work'>,
  ) {
    this.#parts = { ...parts, onChange: (policy) => void this.#unwritten.add(policy) };
    const work = () => this.#all((policy) => policy.flush(), [...this.#unwritten]);
    this.#writing = new SharedWork({ ...together, work });
  }

  get size(): number {
    return this.#policies.size;
  }

  /** Whether the namespace with the inode has an endpoint. */
  isIn(inode: number): boolean {
    return this.#in(inode).length > 0;
  }

  endpoints(): Endpoint[] {
    return Array.from(this.#policies.values(), ({ endpoint }) => endpoint);
  }

  set(name: string, spec: SetSpec | null): void {
    const readers = this.#sets.get(name)?.readers ?? new Set();
    for (const reader of readers) reader.lost(name);
    if (spec === null || spec.type !== 'net') this.#sets.delete(name);
    else this.#sets.set(name, { spec, members: new Set(), readers: new Set() });
  }

  member(set: string, member: IpSetMember, present: boolean): void {
    const hostInterface = this.#lists.member(set, member, present);
    if (hostInterface !== null) this.#policies.get(hostInterface)?.refresh();
    const told = this.#sets.get(set);
    if (told === undefined) return;
    if (present) told.members.add(member);
    else told.members.delete(member);
    for (const reader of told.readers) reader.member(set, member, present);
  }

  chain(family: Family, name: string, chain: Chain | null): void {
    const key = `${family} ${name}`;
    if (chain === null) this.#chains.delete(key);
    else this.#chains.set(key, chain);
    for (const policy of this.#policies.values()) if (policy.needsChain(family, name)) policy.refresh();
  }

  listOf(hostInterface: string, family: Family): string | null {
    return this.#lists.listOf(hostInterface, family);
  }

  chainOf(family: Family, name: string): Chain | undefined {
    return this.#chains.get(`${family} ${name}`);
  }

  read(set: string, reader: SetReader): ToldSet | undefined {
    const told = this.#sets.get(set);
    told?.readers.add(reader);
    return told;
  }

  leave(set: string, reader: SetReader): void {
    this.#sets.get(set)?.readers.delete(reader);
  }

  /** A macvlan endpoint of this host came or changed. */
  want(endpoint: Endpoint): void {
    const known = this.#policies.get(endpoint.hostInterface);
    if (known !== undefined && isSamePlace(known.endpoint, endpoint)) known.change(endpoint);
    else this.#renew(endpoint);
  }

  forget({ hostInterface }: Endpoint): void {
    this.#leave(hostInterface);
    this.#policies.delete(hostInterface);
  }

  /** Before the endpoint's link is up. @throws KernelError */
  async bring(endpoint: Endpoint, netns: Netns): Promise<void> {
    const policy = this.#policies.get(endpoint.hostInterface) ?? this.#renew(endpoint);
    await this.#all((one) => one.bring(netns), [policy]);
  }

  /** After the endpoint's link is gone. @throws KernelError */
  async remove(endpoint: Endpoint): Promise<void> {
    const known = this.#policies.get(endpoint.hostInterface);
    const policy = known ?? this.#newPolicy(endpoint);
    await policy.remove();
    // Until the next `bring` nobody writes here: a look at all containers would make anew what has just gone.
    if (known !== undefined) this.forget(policy.endpoint);
    else policy.leave();
  }

  /**
   * Resolves when everything asked so far is in all containers: one pass over them for all who ask before it begins.
   * @throws KernelError of the first where it is not; the others have it
   */
  async flush(): Promise<void> {
    if (this.#unwritten.size > 0) await this.#writing.ask();
  }

  /** Reads everything again and repairs it. @throws as flush */
  resync(): Promise<void> {
    return this.#each((policy) => policy.resync());
  }

  /**
   * The same where policy stands already. @param inode of one namespace; null: of all
   * @returns whether something had to be put right @throws as flush
   */
  async repair(inode: number | null): Promise<boolean> {
    const before = this.#repairs(inode);
    await this.#each(async (policy) => {
      if (policy.status !== null) await policy.resync();
    }, inode);
    return this.#repairs(inode) > before;
  }

  /** How often each rule of the profile or policy applied in all of them together. @throws as flush */
  async countsOf(part: Parameters<ContainerPolicy['countsOf']>[0]): Promise<RuleCounts> {
    const counts: RuleCounts[] = [];
    await this.#each(async (policy) => void counts.push(await policy.countsOf(part)));
    return addCounts(counts);
  }

  /** Null before it is in the kernel. */
  statusOf(hostInterface: string): PolicyStatus | null {
    return this.#policies.get(hostInterface)?.status ?? null;
  }

  #each(work: (policy: ContainerPolicy) => Promise<void>, inode: number | null = null): Promise<void> {
    return this.#all(work, this.#in(inode));
  }

  async #all(
    work: (policy: ContainerPolicy) => Promise<void>,
    policies: readonly ContainerPolicy[],
  ): Promise<void> {
    const results = await Promise.allSettled(policies.map(work));
    for (const policy of policies) this.#note(policy);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  /** What is brought later is written then. */
  #note(policy: ContainerPolicy): void {
    const isOurs = this.#policies.get(policy.endpoint.hostInterface) === policy;
    if (isOurs && policy.status?.inSync === false) this.#unwritten.add(policy);
    else this.#unwritten.delete(policy);
  }

  #repairs(inode: number | null): number {
    return this.#in(inode).reduce((sum, { status }) => sum + (status?.writes['repairs'] ?? 0), 0);
  }

  #in(inode: number | null): ContainerPolicy[] {
    const all = [...this.#policies.values()];
    return inode === null ? all : all.filter(({ endpoint }) => endpoint.netns.inode === inode);
  }

  #renew(endpoint: Endpoint): ContainerPolicy {
    this.#leave(endpoint.hostInterface);
    const policy = this.#newPolicy(endpoint);
    this.#policies.set(endpoint.hostInterface, policy);
    return policy;
  }

  #newPolicy(endpoint: Endpoint): ContainerPolicy {
    return new ContainerPolicy(endpoint, { ...this.#parts, told: this });
  }

  #leave(hostInterface: string): void {
    const policy = this.#policies.get(hostInterface);
    policy?.leave();
    if (policy !== undefined) this.#unwritten.delete(policy);
  }
}
