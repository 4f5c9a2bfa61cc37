/**
 * Our chains and jumps of one family: read, compare by the hashes in the comments, write.
 *
 * In: which chains should be. Out: one run of iptables-restore per write, all or nothing for each table. Never: a foreign rule touched;
 * a chain rewritten that is right (its packet counters survive).
 */
import type { Iptables, IptablesTable } from '../linux/ports.ts';
import type { Family } from '../model/ip.ts';
import type { Chain } from '../policy/chain.ts';
import type { Count } from '../policy/rule-counts.ts';
import { parseCounts } from './iptables-save.ts';
import { TableState, type TableWrite } from './iptables-table.ts';

export class IptablesReconciler {
  readonly #iptables: Iptables;
  readonly #family: Family;
  readonly #tables: { readonly filter: TableState; readonly nat: TableState };
  #isKnown = false;
  #writes = 0;

  constructor(iptables: Iptables, family: Family, options: { readonly keepFirst: boolean }) {
    this.#iptables = iptables;
    this.#family = family;
    this.#tables = { filter: new TableState('filter', options), nat: new TableState('nat', options) };
  }

  /** Runs of iptables-restore, since the start. */
  get writes(): number {
    return this.#writes;
  }

  chain(name: string, chain: Chain | null): void {
    if (chain === null) for (const table of Object.values(this.#tables)) table.chain(name, null);
    else this.#tables[chain.table ?? 'filter'].chain(name, chain);
  }

  /** False also when nothing was read yet, or a write failed and may have done something. */
  get isClean(): boolean {
    return this.#isKnown && this.#all.every((table) => table.isClean);
  }

  /** What differs, in words for people. */
  differences(): string[] {
    return this.#all.flatMap((table) => table.differences(`IPv${this.#family}`));
  }

  /** Rules of others that stand before ours, in words. */
  get notices(): string[] {
    return this.#all.flatMap((table) => table.notices(`IPv${this.#family}`));
  }

  /** Returns the differences that we did not know of, in words. */
  async read(): Promise<string[]> {
    const saved = await Promise.all(
      this.#all.map(async (table) => ({ table, text: await this.#iptables.save(this.#family, table.name) })),
    );
    const known = new Set(this.differences());
    for (const { table, text } of saved) table.observe(text);
    this.#isKnown = true;
    return this.differences().filter((difference) => !known.has(difference));
  }

  /** @throws KernelError; then what is there must be read again */
  async write(): Promise<void> {
    const dirty = this.#all.filter((table) => !table.isClean);
    await this.#restore(dirty.map((table) => ({ name: table.name, ...table.plan() })));
  }

  /** Takes the sets out of our rules: what they decided is dropped until the next write. @throws KernelError */
  async close(sets: readonly string[]): Promise<void> {
    const plans = this.#all.map((table) => ({ name: table.name, ...table.planWithout(sets) }));
    await this.#restore(plans.filter(({ lines }) => lines.length > 0));
  }

  async #restore(plans: readonly (TableWrite & { readonly name: IptablesTable })[]): Promise<void> {
    if (plans.length === 0) return;
    this.#isKnown = false;
    this.#writes++;
    const text = plans.map(({ name, lines }) => [`*${name}`, ...lines, 'COMMIT', ''].join('\n')).join('');
    await this.#iptables.restore(this.#family, text);
    this.#isKnown = true;
    for (const { done } of plans) done();
  }

  /** Of the rules of our chains in table filter, as `4 nctl-in-…`. */
  async counts(): Promise<[string, readonly Count[]][]> {
    const text = await this.#iptables.save(this.#family, 'filter', true);
    return Array.from(parseCounts(text), ([chain, counts]) => [`${this.#family} ${chain}`, counts]);
  }

  /** True when a rule of ours in the kernel names the set. */
  namesSet(set: string): boolean {
    return this.#all.some((table) => table.namesSet(set));
  }

  get #all(): TableState[] {
    const tables = Object.values(this.#tables);
    for (const table of tables) table.settle();
    return tables;
  }
}
