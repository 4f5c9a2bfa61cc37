/**
 * Policy by nftables: a table of our own for each family that the kernel has, everything over netlink.
 *
 *     endpoint, member of a tag   → elements; one transaction of a few dozen microseconds
 *     chains, sets                → one transaction for all, with the elements
 *
 * In: the calls of PolicyBackend. Out: transactions, each of both families. Never: a program executed, another table touched, a
 * moment between two states.
 */
import { type IpSetMember, KernelError, type Linux, type Nftables, type NftRequest } from '../linux/ports.ts';
import type { Cidr, Family } from '../model/ip.ts';
import type { Chain, ChainRule } from '../policy/chain.ts';
import { mergePorts } from '../policy/merge-ports.ts';
import type { SetSpec } from '../policy/output.ts';
import type { ChainCounts, Count } from '../policy/rule-counts.ts';
import { type NftReconciler, nftTable } from './nft-reconciler.ts';
import { NftTableOutput } from './nft-table-output.ts';
import type { PolicyBackend } from './policy-backend.ts';

export class NftBackend implements PolicyBackend {
  readonly name = 'nftables';
  readonly #nftables: Nftables;
  readonly #tables: ReadonlyMap<Family, NftTableOutput>;
  #transactions = 0;

  constructor({ families, nftables }: Pick<Linux, 'families' | 'nftables'>) {
    this.#nftables = nftables;
    this.#tables = new Map(families.map((family) => [family, new NftTableOutput(family)]));
  }

  set(name: string, spec: SetSpec | null): void {
    for (const [family, table] of this.#tables) {
      if (spec === null || spec.family === family) table.set(name, spec);
    }
  }

  member(set: string, member: IpSetMember, present: boolean): void {
    for (const table of this.#tables.values()) table.member(set, member, present);
  }

  chain(family: Family, name: string, chain: Chain | null): void {
    this.#tables.get(family)?.chain(name, chain);
  }

  get isClean(): boolean {
    return this.#settled.every(({ kernel }) => kernel.isClean);
  }

  get counters(): PolicyBackend['counters'] {
    return { nftTransactions: this.#transactions };
  }

  /** Where chains wait to be written, elements go with them: an endpoint whose list changes is in one of the two at any time. */
  writeMembers(): void {
    const tables = this.#settled.map(({ kernel }) => kernel);
    if (tables.some((table) => table.awaitsStructure)) return;
    this.#transact(tables, (table, requests) => table.elementRequests(requests));
  }

  async read(): Promise<string[]> {
    const tables = [...this.#tables].map(([family, { kernel }]) => ({ family, kernel }));
    for (const { kernel } of tables) kernel.beginRead();
    const found = await Promise.all(tables.map(({ family }) => this.#nftables.read(family, nftTable)));
    return this.#settled.flatMap(({ kernel }, i) => kernel.observe(found[i]!));
  }

  async write(): Promise<void> {
    const tables = this.#settled.map(({ kernel }) => kernel);
    this.#transact(tables, (table, requests) => table.requests(requests));
  }

  rulesOf(chain: Chain): readonly ChainRule[] {
    return mergePorts(chain.rules);
  }

  /** A rule without a counter counts as never met. */
  async counts(): Promise<ChainCounts> {
    const counts = new Map<string, Count[]>();
    for (const family of this.#tables.keys()) {
      for (const [chain, rules] of await this.#nftables.counts(family, nftTable))
        counts.set(
          `${family} ${chain}`,
          rules.map((count) => count ?? { packets: 0, bytes: 0 }),
        );
    }
    return counts;
  }

  watch(onForeignChange: () => void): () => void {
    return this.#nftables.watch(nftTable, onForeignChange);
  }

  async removeAll(): Promise<boolean> {
    const there: NftRequest[] = [];
    for (const family of this.#tables.keys()) {
      const table = await this.#nftables.read(family, nftTable).catch(noneWithoutNftables);
      if (table !== null) there.push({ family, table: nftTable, kind: 'table-delete' });
    }
    if (there.length > 0) this.#nftables.transact(there);
    return there.length > 0;
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

  get #settled(): NftTableOutput[] {
    const tables = [...this.#tables.values()];
    for (const table of tables) table.settle();
    return tables;
  }
}

/**
 * Tries all that we use, in a table that is gone when the transaction ends.
 * @returns null when it works, else the kernel's words
 */
export function whyNftablesFails({
  families,
  nftables,
}: Pick<Linux, 'families' | 'nftables'>): string | null {
  try {
    nftables.transact(families.flatMap(probeRequests));
    return null;
  } catch (error) {
    if (error instanceof KernelError) return error.message;
    throw error;
  }
}

function probeRequests(family: Family): NftRequest[] {
  const probe = new NftTableOutput(family);
  const pairs = family === 4 ? 'nctl4-ep-probe' : 'nctl6-ep-probe';
  const nets = 'probe-nets';
  probe.set(pairs, { type: 'net,iface', family });
  probe.set(nets, { type: 'net', family });
  probe.member(pairs, family === 4 ? '192.0.2.1/32,nctl' : '2001:db8::1/128,nctl', true);
  probe.member(nets, family === 4 ? '192.0.2.0/24' : '2001:db8::/32', true);
  const verdict = { kind: 'goto', chain: 'probe' } as const;
  const inSet = (set: string, withInterface: boolean) =>
    ({ kind: 'set', set, side: 'src', withInterface, negated: false }) as const;
  probe.chain('nctl-FORWARD', {
    name: 'nctl-FORWARD',
    rules: [
      {
        conditions: [{ kind: 'connection', states: ['ESTABLISHED'] }],
        verdict: { kind: 'accept' },
        comment: '',
      },
      { conditions: [inSet(nets, false)], verdict: { kind: 'log', prefix: 'netctl' }, comment: '' },
      { conditions: [inSet(pairs, true)], verdict, comment: '' },
    ],
  });
  probe.chain('probe', {
    name: 'probe',
    rules: [
      {
        conditions: [
          { kind: 'protocol', protocol: 6, negated: false },
          {
            kind: 'ports',
            side: 'dst',
            ports: [
              { from: 1, to: 2 },
              { from: 4, to: 5 },
            ],
            negated: false,
          },
          {
            kind: 'net',
            side: 'src',
            net: (family === 4 ? '192.0.2.0/24' : '2001:db8::/32') as Cidr,
            negated: true,
          },
        ],
        verdict: { kind: 'drop' },
        comment: '',
      },
    ],
  });
  probe.settle();
  const requests: NftRequest[] = [];
  probe.kernel.requests(requests);
  const table = `${nftTable}-probe`;
  return [...requests, { family, kind: 'table-delete' } as const].map(
    (request) => ({ ...request, table }) as NftRequest,
  );
}

/** A kernel without nftables has no table of ours either. */
function noneWithoutNftables(error: unknown): null {
  if (error instanceof KernelError) return null;
  throw error;
}
