/**
 * Policy on the host and in macvlan containers as one: what the engine tells goes to both.
 *
 * In: the calls of PolicyOutput. Out: the same to each. Never: a request that fails because some other container's kernel says no: that
 * is tried again, and shown.
 */
import type { IpSetMember } from '../linux/ports.ts';
import type { Family } from '../model/ip.ts';
import type { Endpoint } from '../model/records.ts';
import type { Chain } from '../policy/chain.ts';
import type { PolicyOutput, SetSpec } from '../policy/output.ts';
import { addCounts, type RuleCounts } from '../policy/rule-counts.ts';
import type { MacvlanPolicy } from './macvlan-policy.ts';
import type { PolicyDataplane, PolicyStatus } from './policy-dataplane.ts';

export class JointPolicy implements PolicyOutput {
  readonly #host: PolicyDataplane;
  readonly #macvlan: MacvlanPolicy;

  constructor(host: PolicyDataplane, macvlan: MacvlanPolicy) {
    this.#host = host;
    this.#macvlan = macvlan;
  }

  set(name: string, spec: SetSpec | null): void {
    this.#host.set(name, spec);
    this.#macvlan.set(name, spec);
  }

  member(set: string, member: IpSetMember, present: boolean): void {
    this.#host.member(set, member, present);
    this.#macvlan.member(set, member, present);
  }

  chain(family: Family, name: string, chain: Chain | null): void {
    this.#host.chain(family, name, chain);
    this.#macvlan.chain(family, name, chain);
  }

  /** Of the host's. */
  get status(): PolicyStatus {
    return this.#host.status;
  }

  /** Resolves when everything asked so far is in force on the host, and in containers unless one refuses. @throws KernelError */
  async flush(): Promise<void> {
    await Promise.all([this.#host.flush(), this.#macvlan.flush().catch(() => undefined)]);
  }

  /** Resolves when everything asked so far is in force everywhere. @throws KernelError */
  async everywhere(): Promise<void> {
    await Promise.all([this.#host.flush(), this.#macvlan.flush()]);
  }

  /** How often each rule of the profile or policy applied, on the host and in containers. @throws KernelError */
  async countsOf(...[part, chains]: Parameters<PolicyDataplane['countsOf']>): Promise<RuleCounts> {
    return addCounts(await Promise.all([this.#host.countsOf(part, chains), this.#macvlan.countsOf(part)]));
  }

  /** Reads again what stands for the endpoint, and repairs it. Returns what others had changed, in words. @throws KernelError */
  async resyncOf(endpoint: Endpoint): Promise<string[]> {
    const wrong = await this.#host.resync();
    return endpoint.kind === 'macvlan' ? [...wrong, ...(await this.#macvlan.resyncOf(endpoint))] : wrong;
  }
}
