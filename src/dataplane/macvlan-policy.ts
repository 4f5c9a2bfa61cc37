/**
 * Policy of macvlan endpoints: in the container what depends on connections, on the parent's device the guard that the container cannot
 * touch.
 *
 * In: the calls of PolicyOutput; the steps of a link's life, from MacvlanWiring. Out: ContainerPolicies and MacvlanGuard in the order
 * that leaves no unfiltered moment. Never: a policy gone before the link is.
 */
import type { Clock, Timer } from '../lib/clock.ts';
import type { Logger } from '../lib/logger.ts';
import { type Soon, soon } from '../lib/soon.ts';
import type { IpSetMember, Linux, Netns, RuleWatch } from '../linux/ports.ts';
import type { Address, Family } from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';
import type { Chain } from '../policy/chain.ts';
import type { PolicyOutput, SetSpec } from '../policy/output.ts';
import { ContainerPolicies } from './container-policies.ts';
import { hasEgress } from './frame-table.ts';
import { MacvlanGuard } from './macvlan-guard.ts';
import { reopen } from './reopen.ts';

/** What is done about a container that could take its own rules away. */
export type PrivilegedChoice = 'flag' | 'refuse';

/** From a change of rules in a container to the look at it, and from one look to the next. */
const lookAfterMs = 100;
const lookAgainAfterMs = 2000;
/** While an endpoint is closed: the process may have been one that only set the container up. */
const lookWhileClosedMs = 5000;

/** Where the policy of an endpoint is enforced, and how well. */
interface Enforcement {
  /** `host`, or `container and guard`. */
  readonly where: string;
  readonly inSync: boolean;
  /** Why it is no more than advice, or what was put right last; null where there is nothing to say. */
  readonly notice: string | null;
}

export class MacvlanPolicy implements PolicyOutput {
  readonly #linux: Linux;
  readonly #bootId: string;
  readonly #privileged: PrivilegedChoice;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #containers: ContainerPolicies;
  readonly #guard: MacvlanGuard;
  /** Host interfaces of endpoints with a process that could take their rules away, and its number. */
  #admins = new Map<string, number>();
  /** Until the start, when the kernel may be asked what it can. */
  #early: Map<string, Endpoint> | null = new Map();
  /** From the start to the end. */
  #watch: RuleWatch | null = null;
  /** By inode of a namespace whose rules others have changed; null: of any. */
  readonly #looks = new Map<number | null, Soon>();
  readonly #adminLook: Soon;
  #nextLook: Timer | null = null;

  /** @param hostAddresses of this node, by which its containers know it */
  constructor(
    linux: Linux,
    options: {
      readonly bootId: string;
      readonly node: string;
      readonly hostAddresses: readonly Address[];
      readonly macvlanPrivileged: PrivilegedChoice;
      /** How many requests are at work, which may ask for `flush`. */
      readonly requests: () => number;
      readonly clock: Clock;
    },
    logger: Logger,
  ) {
    this.#linux = linux;
    this.#bootId = options.bootId;
    this.#privileged = options.macvlanPrivileged;
    this.#clock = options.clock;
    this.#logger = logger;
    // Once: to ask, a chain is made.
    let isKnown: boolean | null = null;
    const judgesEgress = (): boolean => {
      isKnown ??= hasEgress(linux.nftables);
      return isKnown;
    };
    const { node, hostAddresses, clock } = options;
    const together = { clock, atWork: options.requests };
    const parts = { linux, node, hostAddresses, hasEgress: judgesEgress, logger };
    this.#containers = new ContainerPolicies(parts, together);
    this.#guard = new MacvlanGuard(linux, judgesEgress, together, logger);
    this.#adminLook = this.#soon(() => this.#lookForAdmins());
  }

  set(name: string, spec: SetSpec | null): void {
    this.#containers.set(name, spec);
  }

  member(set: string, member: IpSetMember, present: boolean): void {
    this.#containers.member(set, member, present);
  }

  chain(family: Family, name: string, chain: Chain | null): void {
    this.#containers.chain(family, name, chain);
  }

  /** An endpoint of this host came, changed or went. */
  onEndpoint(before: Endpoint | null, now: Endpoint | null): void {
    if (before?.kind === 'macvlan' && now === null) this.#forget(before);
    if (now?.kind !== 'macvlan' || now.bootId !== this.#bootId) return;
    if (this.#early !== null) {
      this.#early.set(now.hostInterface, now);
      return;
    }
    this.#containers.want(now);
    // One that a request is about to make is admitted by the wiring.
    if (before !== null) this.#guard.change(now);
  }

  #forget(endpoint: Endpoint): void {
    this.#early?.delete(endpoint.hostInterface);
    this.#containers.forget(endpoint);
  }

  /** Takes over what an agent before this one has left. Errors are logged: the next resync tries again. */
  async start(): Promise<void> {
    this.#watch = this.#linux.watchRulesIn((inode) => this.#lookSoon(inode));
    for (const endpoint of this.#early?.values() ?? []) {
      this.#containers.want(endpoint);
      this.#guard.change(endpoint);
      const netns = reopen(this.#linux, endpoint);
      if (netns !== null) this.#watchIn(netns);
      netns?.close();
    }
    this.#early = null;
    await this.resync().catch((error: unknown) => this.#complain(error));
  }

  /** Looks at nothing any more; what is in the kernel stays. */
  stop(): void {
    this.#watch?.close();
    this.#watch = null;
    for (const look of [...this.#looks.values(), this.#adminLook]) look.cancel();
    this.#looks.clear();
    this.#nextLook?.cancel();
  }

  /** The link is there, down. @throws KernelError */
  async bring(endpoint: Endpoint, netns: Netns): Promise<void> {
    await this.#guard.admit(endpoint);
    await this.#containers.bring(endpoint, netns);
    this.#watchIn(netns);
  }

  /** The link is up, and the addresses are the endpoint's. @throws KernelError */
  async settle(endpoint: Endpoint): Promise<void> {
    await this.#guard.settle(endpoint);
    if (this.#privileged === 'refuse') this.#adminLook.call();
  }

  /** The link stays for who gives the addresses back. @param bare the endpoint without them @throws KernelError */
  async strip(bare: Endpoint): Promise<void> {
    await this.#guard.admit(bare);
  }

  /** The link is about to go. */
  async close(endpoint: Endpoint): Promise<void> {
    await this.#guard.close(endpoint).catch((error: unknown) => this.#complain(error));
  }

  /** The link is gone. @throws KernelError */
  async remove(endpoint: Endpoint): Promise<void> {
    this.#admins.delete(endpoint.hostInterface);
    this.#looks.get(endpoint.netns.inode)?.cancel();
    this.#looks.delete(endpoint.netns.inode);
    await this.#containers.remove(endpoint);
    await this.#guard.forget(endpoint);
  }

  /** Resolves when everything asked so far is in force. @throws KernelError of one that is not */
  async flush(): Promise<void> {
    await Promise.all([this.#guard.flush(), this.#containers.flush()]);
  }

  /** Reads everything again, in each container too, repairs it, and looks who could take it away. @throws KernelError */
  async resync(): Promise<void> {
    await this.#guard.resync();
    try {
      await this.#containers.resync();
    } finally {
      await this.#lookForAdmins();
    }
  }

  /** The same for one endpoint, and the guard. Returns what others had changed, in words. @throws KernelError */
  async resyncOf({ netns }: Endpoint): Promise<string[]> {
    const isChanged = await this.#containers.repair(netns.inode);
    if (isChanged) this.#adminLook.call();
    return [...(isChanged ? ['rules in the container'] : []), ...(await this.#guard.resync())];
  }

  /** How often each rule of the profile or policy applied in containers. @throws KernelError */
  countsOf(part: Parameters<ContainerPolicies['countsOf']>[0]): ReturnType<ContainerPolicies['countsOf']> {
    return this.#containers.countsOf(part);
  }

  /** Of all endpoints of this host. @param inSync whether the host's own rules are what they should be */
  enforcement(
    endpoints: Iterable<readonly [id: string, { readonly value: Endpoint }]>,
    inSync: boolean,
  ): (Enforcement & { readonly endpoint: string })[] {
    return Array.from(endpoints, ([endpoint, { value }]) => ({
      endpoint,
      ...(value.kind === 'macvlan' ? this.#enforcementOf(value) : { where: 'host', inSync, notice: null }),
    }));
  }

  /** For people: of each container where there is something to say. */
  get notices(): string[] {
    return this.#containers.endpoints().flatMap((endpoint) => {
      const { notice } = this.#enforcementOf(endpoint);
      return notice === null ? [] : [`${endpoint.containerId} ${endpoint.interface}: ${notice}`];
    });
  }

  #enforcementOf(endpoint: Endpoint): Enforcement {
    const status = this.#containers.statusOf(endpoint.hostInterface);
    const admin = this.#admins.get(endpoint.hostInterface);
    const repair = status?.lastRepair ?? null;
    const advisory =
      admin === undefined
        ? null
        : `advisory: process ${admin} in the container may change its rules (CAP_NET_ADMIN); the guard on the parent holds`;
    const quarantined = this.#guard.isClosed(endpoint) ? 'closed: nothing passes to or from it' : null;
    const repaired =
      repair === null
        ? null
        : `rules in the container were changed and put right at ${new Date(repair.at).toISOString()}`;
    return {
      where: 'container and guard',
      inSync: (status?.inSync ?? false) && (this.#guard.status?.inSync ?? true),
      notice: [quarantined, advisory, status?.lastError, repaired].filter((text) => text).join('; ') || null,
    };
  }

  /** Where it cannot be watched, the next resync sees what has changed. */
  #watchIn(netns: Netns): void {
    try {
      this.#watch?.add(netns);
    } catch (error) {
      this.#logger.warn({ error: String(error) }, 'rules in a container cannot be watched');
    }
  }

  /** Somebody else has changed rules in the namespace, or may have. */
  #lookSoon(inode: number | null): void {
    if (inode !== null && !this.#containers.isIn(inode)) return;
    const look = this.#looks.get(inode) ?? this.#soon(() => this.#look(inode));
    this.#looks.set(inode, look);
    look.call();
  }

  #soon(work: () => Promise<void>): Soon {
    const report = (error: unknown): void => this.#complain(error);
    return soon(this.#clock, { delayMs: lookAfterMs, pauseMs: lookAgainAfterMs, work, report });
  }

  async #look(inode: number | null): Promise<void> {
    if (await this.#containers.repair(inode)) this.#adminLook.call();
  }

  async #lookForAdmins(): Promise<void> {
    if (this.#containers.size === 0) return;
    const found = await this.#linux.networkAdmins();
    const before = this.#admins;
    this.#admins = new Map();
    for (const endpoint of this.#containers.endpoints()) {
      const { hostInterface, containerId, netns } = endpoint;
      const process = found.get(netns.inode);
      if (process === undefined) continue;
      this.#admins.set(hostInterface, process);
      if (before.has(hostInterface)) continue;
      this.#logger.warn(
        { containerId, process, choice: this.#privileged },
        'a process in the container may change its policy',
      );
    }
    if (this.#privileged === 'refuse') await this.#closeAdmins();
  }

  async #closeAdmins(): Promise<void> {
    for (const endpoint of this.#containers.endpoints())
      if (this.#admins.has(endpoint.hostInterface) !== this.#guard.isClosed(endpoint))
        await this.#guard.close(endpoint, this.#admins.has(endpoint.hostInterface));
    this.#nextLook?.cancel();
    if (this.#admins.size > 0 && this.#watch !== null)
      this.#nextLook = this.#clock.setTimer(lookWhileClosedMs, () => this.#adminLook.call());
  }

  #complain(error: unknown): void {
    this.#logger.error({ error: String(error) }, 'policy of a macvlan endpoint is not in force');
  }
}
