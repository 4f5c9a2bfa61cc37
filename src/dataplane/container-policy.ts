/**
 * Policy of one macvlan endpoint, in its container: the chains of its list with the sets that they name, what leads into them, and
 * the rules for frames on its interface.
 *
 *     ip, ip6   netctl-eth0        policy, as compiled for routed endpoints
 *     netdev    netctl-eth0-4, -6  whose MAC and addresses leave by the interface
 *
 * In: the endpoint, what the engine has told so far. Out: tables, by a PolicyDataplane of the endpoint's own. Never: a set there that no
 * chain there names; a write before `bring`.
 */
import { isDeepStrictEqual } from 'node:util';
import { NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';
import type { IpSetMember, Linux, Netns } from '../linux/ports.ts';
import { insideRules, insideSetSpecs, insideSets } from '../macvlan/frame-rules.ts';
import { type Address, type Family, familyOf, hostCidr } from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';
import { type Chain, setsOfChain } from '../policy/chain.ts';
import {
  compileContainer,
  containerJumps,
  entriesOf,
  ownExtraSet,
  ownSet,
} from '../policy/container-chains.ts';
import type { SetSpec } from '../policy/output.ts';
import { setMembers } from '../policy/set-members.ts';
import { ToldChains } from '../policy/told-chains.ts';
import { containerEnds } from './container-ends.ts';
import { frameHook, nameFor, tellFrames } from './frame-table.ts';
import { macvlanOf } from './macvlan-wiring.ts';
import { NetnsNftables } from './netns-nftables.ts';
import { NftBackend } from './nft-backend.ts';
import { NftMembers } from './nft-members.ts';
import { NftReconciler } from './nft-reconciler.ts';
import { PolicyDataplane, type PolicyStatus } from './policy-dataplane.ts';

/** What the engine has told, as far as lists are concerned. */
export interface ToldPolicy {
  /** Id of the list that the endpoint has in the family; null where it has no address of it. */
  listOf(hostInterface: string, family: Family): string | null;
  chainOf(family: Family, name: string): Chain | undefined;
  /** The set as it is; its changes are told to the reader from now on. */
  read(set: string, reader: SetReader): { spec: SetSpec; members: ReadonlySet<IpSetMember> } | undefined;
  leave(set: string, reader: SetReader): void;
}

export interface SetReader {
  member(set: string, member: IpSetMember, present: boolean): void;
  /** The set goes, with its members. */
  lost(set: string): void;
}

export interface ContainerPolicyParts {
  readonly linux: Linux;
  readonly told: ToldPolicy;
  /** Name of this host. */
  readonly node: string;
  /** By which containers know the host. */
  readonly hostAddresses: readonly Address[];
  /** Whether the kernel judges frames that leave. */
  readonly hasEgress: () => boolean;
  /** Hears that the container's policy may have to be written. */
  readonly onChange: (policy: ContainerPolicy) => void;
  readonly logger: Logger;
}

export class ContainerPolicy implements SetReader {
  readonly #parts: ContainerPolicyParts;
  readonly #nftables: NetnsNftables;
  readonly #backend: NftBackend;
  readonly #dataplane: PolicyDataplane;
  readonly #frames: ReadonlyMap<Family, FrameTable>;
  readonly #chains: ToldChains;
  readonly #sets = new Set<string>();
  /** By family: the chains of lists that it needs, those not told yet, too. */
  readonly #needed = new Map<Family, ReadonlySet<string>>();
  readonly #own = new Map<string, Set<IpSetMember>>();
  #endpoint: Endpoint;
  #isUp = false;

  constructor(endpoint: Endpoint, parts: ContainerPolicyParts) {
    const { linux, hasEgress, logger } = parts;
    this.#parts = parts;
    this.#endpoint = endpoint;
    const table = tableOf(endpoint);
    this.#nftables = new NetnsNftables(linux, endpoint);
    this.#frames = new Map(
      (hasEgress() ? linux.families : []).map((family) => [family, frameTable(family, `${table}-${family}`)]),
    );
    this.#backend = new NftBackend(
      { families: linux.families, nftables: this.#nftables },
      { table, jumps: containerJumps(containerEnds(this.#endpoint, this.#parts, null)), dispatches: false },
      Array.from(this.#frames.values(), ({ kernel }) => kernel),
    );
    this.#chains = new ToldChains(this.#backend);
    this.#dataplane = new PolicyDataplane({ backend: this.#backend, other: null }, about(endpoint, logger));
    this.#tellFrames();
    this.refresh();
  }

  /** Null before it is in the kernel. */
  get status(): PolicyStatus | null {
    return this.#isUp ? this.#dataplane.status : null;
  }

  get endpoint(): Endpoint {
    return this.#endpoint;
  }

  /** @param endpoint in the same namespace, by the same interface */
  change(endpoint: Endpoint): void {
    this.#endpoint = endpoint;
    this.#tellFrames();
    this.refresh();
  }

  /** Works out anew which chains and sets the container needs. */
  refresh(): void {
    this.#parts.onChange(this);
    for (const family of this.#parts.linux.families) this.#refresh(family);
  }

  needsChain(family: Family, name: string): boolean {
    return this.#needed.get(family)?.has(name) ?? false;
  }

  member(set: string, member: IpSetMember, present: boolean): void {
    this.#parts.onChange(this);
    this.#backend.member(set, member, present);
  }

  lost(set: string): void {
    this.#parts.onChange(this);
    this.#sets.delete(set);
    this.#backend.set(set, null);
  }

  /** Brings it into the kernel, and keeps it there from then on. The link is there, and is not up. @throws KernelError */
  async bring(netns: Netns): Promise<void> {
    const isUp = this.#isUp;
    this.#isUp = true;
    await this.#nftables.within(netns, async () => {
      if (isUp) {
        await this.#dataplane.resync();
        return;
      }
      this.#backend.expectNothing();
      await this.#dataplane.start();
    });
  }

  /** @throws KernelError; what was asked is kept for the next attempt */
  async flush(): Promise<void> {
    if (!this.#isUp) return;
    // After a failure, the next resync.
    const { retryInMs, lastError } = this.#dataplane.status;
    if (retryInMs !== null) throw new NetctlError('POLICY', lastError ?? 'the kernel refused');
    await this.#dataplane.flush();
  }

  /** Takes over what an agent before this one has left, or repairs what others have changed. @throws KernelError */
  async resync(): Promise<void> {
    if (!this.#nftables.isThere) return;
    if (this.#isUp) {
      await this.#dataplane.resync();
      return;
    }
    this.#isUp = true;
    await this.#dataplane.start();
  }

  /** How often each rule of the profile or policy applied here. @throws KernelError */
  countsOf(part: Parameters<PolicyDataplane['countsOf']>[0]): ReturnType<PolicyDataplane['countsOf']> {
    const chains = this.#parts.linux.families.flatMap((family) =>
      Array.from(this.#chains.of(family), (chain) => ({ key: `${family} ${chain.name}`, chain })),
    );
    return this.#dataplane.countsOf(part, chains);
  }

  /** Takes it out of a namespace that lives on. @throws KernelError */
  async remove(): Promise<void> {
    this.#isUp = false;
    this.#backend.dropAll();
  }

  /** No changes any more. */
  leave(): void {
    for (const set of this.#sets) this.#parts.told.leave(set, this);
    this.#isUp = false;
  }

  #refresh(family: Family): void {
    const { told } = this.#parts;
    const list = told.listOf(this.#endpoint.hostInterface, family);
    const extra = setMembers(this.#endpoint.extraSources).filter((each) => each.family === family);
    const ends = containerEnds(this.#endpoint, this.#parts, family);
    const around = compileContainer(family, list, ends, extra.length > 0);
    const isAround = (name: string): boolean => around.some((chain) => chain.name === name);
    const find = (name: string) => (isAround(name) ? undefined : told.chainOf(family, name));
    const behind = list === null ? new Map<string, undefined>() : closure(entriesOf(list, ends), find);
    this.#needed.set(family, new Set(behind.keys()));
    const chains = [...around, ...[...behind.values()].filter((chain) => chain !== undefined)];
    const own = this.#endpoint.addresses.filter((address) => familyOf(address) === family).map(hostCidr);
    const extraMembers = extra.map(({ member }) => member);
    this.#tellOwn(ownSet(family), family, [...own, ...extraMembers]);
    if (extra.length > 0) this.#tellOwn(ownExtraSet(family), family, extraMembers);
    const sets = new Set(chains.flatMap((chain) => [...setsOfChain(chain)]));
    for (const set of sets) this.#readSet(set);
    for (const chain of chains) this.#chains.tell(family, chain);
    const names = new Set(chains.map(({ name }) => name));
    for (const { name } of [...this.#chains.of(family)])
      if (!names.has(name)) this.#chains.untell(family, name);
    for (const set of [...this.#sets])
      if (set.startsWith(`nctl${family}-`) && !sets.has(set)) {
        told.leave(set, this);
        this.lost(set);
      }
    if (extra.length === 0 && this.#own.delete(ownExtraSet(family)))
      this.#backend.set(ownExtraSet(family), null);
  }

  #readSet(set: string): void {
    if (this.#sets.has(set) || this.#own.has(set)) return;
    const found = this.#parts.told.read(set, this);
    if (found === undefined) return;
    this.#sets.add(set);
    this.#backend.set(set, found.spec);
    for (const member of found.members) this.#backend.member(set, member, true);
  }

  #tellOwn(set: string, family: Family, members: readonly IpSetMember[]): void {
    const before = this.#own.get(set);
    const now = new Set(members);
    if (before === undefined) this.#backend.set(set, { type: 'net', family });
    for (const member of now) if (!before?.has(member)) this.#backend.member(set, member, true);
    for (const member of before ?? []) if (!now.has(member)) this.#backend.member(set, member, false);
    this.#own.set(set, now);
  }

  #tellFrames(): void {
    const { interface: device, mac, addresses, extraSources } = this.#endpoint;
    const isPassthru = macvlanOf(this.#endpoint).mode === 'passthru';
    for (const [family, { kernel, sources, members }] of this.#frames) {
      const own = addresses.filter((address) => familyOf(address) === family);
      const extra = setMembers(extraSources).filter((each) => each.family === family);
      const now = new Set([...own.map(hostCidr), ...extra.map(({ member }) => member)]);
      for (const net of now) if (!members.has(net)) sources.add(net, null);
      for (const net of members) if (!now.has(net)) sources.remove(net, null);
      members.clear();
      for (const net of now) members.add(net);
      const specs = insideSetSpecs(sources.hasPrefixes);
      for (const set of ['own', 'sources'] as const) kernel.set(insideSets[set], specs[set]);
      sources.settle();
      for (const address of own) kernel.element(insideSets.own, address, null);
      const rules = insideRules(family, isPassthru ? null : mac, this.#parts.linux.families);
      tellFrames(kernel, { name: 'egress', rules }, frameHook('egress', device));
    }
  }
}

/** A table of the link layer, with what its set of sources holds. */
interface FrameTable {
  readonly kernel: NftReconciler;
  readonly sources: NftMembers;
  readonly members: Set<IpSetMember>;
}

function frameTable(family: Family, table: string): FrameTable {
  const kernel = new NftReconciler({ family, table, layer: 'link' });
  const sources = new NftMembers(family, (key, data) => kernel.element(insideSets.sources, key, data));
  for (const set of ['own', 'sources'] as const) kernel.set(insideSets[set], insideSetSpecs(false)[set]);
  return { kernel, sources, members: new Set() };
}

/** What differs in it makes other tables. */
export function isSamePlace(a: Endpoint, b: Endpoint): boolean {
  const place = ({ interface: name, hostInterface, netns, macvlan, mac }: Endpoint) =>
    [name, hostInterface, netns, macvlan?.hostAccess, macvlan?.mode, mac] as const;
  return isDeepStrictEqual(place(a), place(b)) && isDeepStrictEqual(a.addresses, b.addresses);
}

function tableOf({ interface: name }: Endpoint): string {
  return `netctl-${nameFor(name)}`;
}

/** The chains by these names, and those that they lead to; undefined for one that `find` does not know. */
function closure(
  names: readonly string[],
  find: (name: string) => Chain | undefined,
): Map<string, Chain | undefined> {
  const found = new Map<string, Chain | undefined>();
  const visit = (name: string): void => {
    if (found.has(name)) return;
    const chain = find(name);
    found.set(name, chain);
    for (const { verdict } of chain?.rules ?? []) if (verdict.kind === 'goto') visit(verdict.chain);
  };
  for (const name of names) visit(name);
  return found;
}

/** Each ADD would else tell that policy is in the kernel. */
function about({ containerId, interface: name }: Endpoint, logger: Logger): Logger {
  const fields = { containerId, interface: name };
  return {
    debug: (more, message) => logger.debug({ ...fields, ...more }, message),
    info: (more, message) => logger.debug({ ...fields, ...more }, message),
    warn: (more, message) => logger.warn({ ...fields, ...more }, message),
    error: (more, message) => logger.error({ ...fields, ...more }, message),
  };
}
