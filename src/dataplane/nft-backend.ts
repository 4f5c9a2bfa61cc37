/**
 * Policy by nftables: a table of our own for each family that the kernel has, others beside them as asked, everything over netlink.
 *
 *     endpoint, member of a tag   → elements; one transaction of a few dozen microseconds
 *     chains, sets                → one transaction for all, with the elements
 *
 * In: the calls of PolicyBackend. Out: transactions, each of both families. Never: a program executed, another table touched, a
 * moment between two states.
 */

import type { Nftables, NftPlace, NftRequest } from '../linux/nftables-port.ts';
import { type IpSetMember, KernelError, type Linux } from '../linux/ports.ts';
import type { Family } from '../model/ip.ts';
import type { Chain, ChainRule } from '../policy/chain.ts';
import { mergePorts } from '../policy/merge-ports.ts';
import type { SetSpec } from '../policy/output.ts';
import type { ChainCounts, Count } from '../policy/rule-counts.ts';
import { IndexOwners } from './index-pairs.ts';
import type { NftReconciler } from './nft-reconciler.ts';
import { hostLayout, NftTableOutput, type TableLayout } from './nft-table-output.ts';
import type { PolicyBackend } from './policy-backend.ts';

export class NftBackend implements PolicyBackend {
  readonly name = 'nftables';
  #lackedTable = false;
  /** Each base chain is asked: none stands before another. */
  readonly notices: readonly string[] = [];
  readonly #nftables: Nftables;
  readonly #table: string;
  readonly #tables: ReadonlyMap<Family, NftTableOutput>;
  /** By set: where it is. */
  readonly #tableOf = new Map<string, NftTableOutput>();
  /** Those of the families, and those that are told by others what they are to hold. */
  readonly #kernels: readonly NftReconciler[];
  #transactions = 0;
  #expectsNothing = false;

  /** @param more tables that are read and written with those of the families */
  constructor(
    { families, nftables }: Pick<Linux, 'families' | 'nftables'>,
    layout: TableLayout = hostLayout,
    more: readonly NftReconciler[] = [],
  ) {
    this.#nftables = nftables;
    this.#table = layout.table;
    const owners = new IndexOwners();
    this.#tables = new Map(families.map((family) => [family, new NftTableOutput(family, layout, owners)]));
    this.#kernels = [...Array.from(this.#tables.values(), ({ kernel }) => kernel), ...more];
  }

  set(name: string, spec: SetSpec | null): void {
    const table = spec === null ? this.#tableOf.get(name) : this.#tables.get(spec.family);
    if (table === undefined) return;
    table.set(name, spec);
    if (spec === null) this.#tableOf.delete(name);
    else this.#tableOf.set(name, table);
  }

  member(set: string, member: IpSetMember, present: boolean): void {
    this.#tableOf.get(set)?.member(set, member, present);
  }

  chain(family: Family, name: string, chain: Chain | null): void {
    this.#tables.get(family)?.chain(name, chain);
  }

  get isClean(): boolean {
    return this.#settled.every((table) => table.isClean);
  }

  get counters(): PolicyBackend['counters'] {
    return { nftTransactions: this.#transactions };
  }

  /** Where chains wait to be written, elements go with them: an endpoint whose list changes is in one of the two at any time. */
  writeMembers(): void {
    const tables = this.#settled;
    if (tables.some((table) => table.awaitsStructure)) return;
    this.#transact(tables, (table, requests) => table.elementRequests(requests));
  }

  /** Most likely none of the tables is there: the next reading believes it, and whether it is so, the kernel says at the next write. */
  expectNothing(): void {
    this.#expectsNothing = true;
  }

  get lackedTable(): boolean {
    return this.#lackedTable;
  }

  async read(): Promise<string[]> {
    if (this.#expectsNothing) return this.#settled.flatMap((table) => table.observe(null));
    for (const table of this.#kernels) table.beginRead();
    const found = await Promise.all(
      this.#kernels.map(({ place: { family, table, layer } }) => this.#nftables.read(family, table, layer)),
    );
    this.#lackedTable = found.includes(null);
    return this.#settled.flatMap((table, i) => table.observe(found[i]!));
  }

  async write(): Promise<void> {
    const expectsNothing = this.#expectsNothing;
    this.#expectsNothing = false;
    try {
      this.#write(expectsNothing);
    } catch (error) {
      if (!expectsNothing || !(error instanceof KernelError) || error.errno !== 'EEXIST') throw error;
      await this.read();
      this.#write(false);
    }
  }

  #write(mustBeNew: boolean): void {
    this.#transact(this.#settled, (table, requests) => table.requests(requests, mustBeNew));
  }

  rulesOf(chain: Chain): readonly ChainRule[] {
    return mergePorts(chain.rules);
  }

  /** A rule without a counter counts as never met. */
  async counts(): Promise<ChainCounts> {
    const counts = new Map<string, Count[]>();
    for (const family of this.#tables.keys()) {
      for (const [chain, rules] of await this.#nftables.counts(family, this.#table))
        counts.set(
          `${family} ${chain}`,
          rules.map((count) => count ?? { packets: 0, bytes: 0 }),
        );
    }
    return counts;
  }

  watch(onForeignChange: () => void): () => void {
    return this.#nftables.watch(this.#table, onForeignChange);
  }

  async isThere(): Promise<boolean> {
    return (await this.#placesThere()).length > 0;
  }

  async removeAll(): Promise<boolean> {
    const there = await this.#placesThere();
    this.#nftables.transact(there.map((place) => ({ ...place, kind: 'table-delete' })));
    return there.length > 0;
  }

  /** As removeAll, where nobody asks what there was: nothing is read. */
  dropAll(): void {
    this.#nftables.transact(
      this.#kernels.flatMap(({ place: { family, table, layer } }): NftRequest[] => {
        const place = { family, table, layer };
        return [
          { ...place, kind: 'table-add' },
          { ...place, kind: 'table-delete' },
        ];
      }),
    );
  }

  async #placesThere(): Promise<NftPlace[]> {
    const there: NftPlace[] = [];
    for (const { place } of this.#kernels) {
      const { family, table, layer } = place;
      const found = await this.#nftables.read(family, table, layer).catch(noneWithoutNftables);
      if (found !== null) there.push(place);
    }
    return there;
  }

  #transact(
    tables: readonly NftReconciler[],
    ask: (table: NftReconciler, requests: NftRequest[]) => () => void,
  ): void {
    const requests: NftRequest[] = [];
    const written = tables.map((table) => ask(table, requests));
    if (requests.length === 0) return;
    this.#transactions++;
    this.#nftables.transact(requests);
    for (const note of written) note();
  }

  /** With all that was told. */
  get #settled(): readonly NftReconciler[] {
    for (const table of this.#tables.values()) table.settle();
    return this.#kernels;
  }
}

/** A kernel without nftables has no table of ours either. */
function noneWithoutNftables(error: unknown): null {
  if (error instanceof KernelError) return null;
  throw error;
}
