/**
 * Policy by iptables and ipset.
 *
 *     member of a set that is there   → over netlink; no program, no dump
 *     anything else                   → 1. sets are made and filled  2. chains and jumps, one program per family
 *                                       3. sets that no rule names any more are destroyed
 *
 * In: the calls of PolicyBackend. Out: netlink requests, runs of the programs. Never: a set destroyed that a rule of ours names.
 */
import type { Logger } from '../lib/logger.ts';
import type { IpSetMember, Linux } from '../linux/ports.ts';
import type { Family } from '../model/ip.ts';
import type { Chain, ChainRule } from '../policy/chain.ts';
import { ListTree } from '../policy/list-tree.ts';
import { setPrefixes } from '../policy/names.ts';
import type { SetSpec } from '../policy/output.ts';
import type { ChainCounts } from '../policy/rule-counts.ts';
import { IpsetReconciler } from './ipset-reconciler.ts';
import { IptablesReconciler } from './iptables-reconciler.ts';
import type { PolicyBackend } from './policy-backend.ts';

export class IptablesBackend implements PolicyBackend {
  readonly name: PolicyBackend['name'];
  readonly #linux: Pick<Linux, 'families' | 'ipsets' | 'iptables'>;
  readonly #logger: Logger;
  readonly #ipsets: IpsetReconciler;
  /** One for each family that the kernel has. */
  readonly #tables: ReadonlyMap<Family, IptablesReconciler>;
  readonly #tree: ListTree;

  /** @param options `keepFirst`: rules of others do not stay before our jumps */
  constructor(
    linux: Pick<Linux, 'families' | 'ipsets' | 'iptables'>,
    logger: Logger,
    options: { readonly keepFirst: boolean } = { keepFirst: true },
  ) {
    this.#linux = linux;
    this.#logger = logger;
    this.name = `iptables-${linux.iptables.backend}`;
    this.#ipsets = new IpsetReconciler(linux.ipsets, logger);
    this.#tables = new Map(
      linux.families.map((family) => [family, new IptablesReconciler(linux.iptables, family, options)]),
    );
    this.#tree = new ListTree({
      set: (name, spec) => this.#ipsets.set(name, spec),
      member: (set, member, present) => this.#ipsets.member(set, member, present),
      chain: (family, name, chain) => this.#tables.get(family)?.chain(name, chain),
    });
  }

  set(name: string, spec: SetSpec | null): void {
    this.#tree.set(name, spec);
  }

  member(set: string, member: IpSetMember, present: boolean): void {
    this.#tree.member(set, member, present);
  }

  chain(family: Family, name: string, chain: Chain | null): void {
    this.#tree.chain(family, name, chain);
  }

  get isClean(): boolean {
    return this.#ipsets.isClean && this.#allTables.every((table) => table.isClean);
  }

  get counters(): PolicyBackend['counters'] {
    return {
      ipsetRequests: this.#ipsets.requests,
      iptablesRuns: this.#allTables.reduce((runs, table) => runs + table.writes, 0),
    };
  }

  writeMembers(): void {
    this.#ipsets.writeMembers();
  }

  readonly lackedTable = false;

  async read(): Promise<string[]> {
    const differences = await allDone([...this.#allTables.map((table) => table.read()), this.#ipsets.read()]);
    return differences.flat();
  }

  get notices(): string[] {
    return this.#allTables.flatMap((table) => table.notices);
  }

  async write(): Promise<void> {
    // A set cannot be changed, nor destroyed while rules name it: their chains drop everything until the right one is there.
    const wrong = this.#ipsets.wrongTyped;
    if (wrong.length > 0) await allDone(this.#allTables.map((table) => table.close(wrong)));
    this.#ipsets.write();
    await allDone(this.#allTables.map((table) => table.write()));
    this.#ipsets.destroyUnwanted((set) => this.#allTables.some((table) => table.namesSet(set)));
  }

  rulesOf(chain: Chain): readonly ChainRule[] {
    return chain.rules;
  }

  async counts(): Promise<ChainCounts> {
    return new Map((await allDone(this.#allTables.map((table) => table.counts()))).flat());
  }

  /** Of sets and of the legacy variant the kernel tells nobody; of the other one `Linux.watchForeignRules` does. */
  watch(): () => void {
    return () => {};
  }

  /**
   * No program is run where no set of ours is: the sets are made before the rules and go after them. Nothing was asked of this
   * object, so that everything which it finds is to go.
   */
  async removeAll(): Promise<boolean> {
    if (!(await this.isThere())) return false;
    const leftOver = new IptablesBackend(this.#linux, this.#logger);
    await leftOver.read();
    await leftOver.write();
    return true;
  }

  async isThere(): Promise<boolean> {
    const lists = await Promise.all(setPrefixes.map((prefix) => this.#linux.ipsets.list(prefix)));
    return lists.flat().length > 0;
  }

  get #allTables(): IptablesReconciler[] {
    return [...this.#tables.values()];
  }
}

/** Waits for all, also when one fails: nothing of this pass may run into the next one. */
async function allDone<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(promises);
  return Promise.all(promises);
}
