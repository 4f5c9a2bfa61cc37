/**
 * The fake's nftables: tables of both families.
 *
 * In: transactions. Out: what a table holds, or a KernelError as the kernel's. Never: half of a transaction done, a chain or set
 * deleted that a rule or an element leads to, a rule that names what is not there.
 */
import type { Family } from '../../model/ip.ts';
import { describeNft } from '../describe.ts';
import { checkElement } from '../netlink/nft-element.ts';
import { checkNftRequest } from '../netlink/nftables.ts';
import type {
  Nftables,
  NftBaseChain,
  NftCount,
  NftData,
  NftHook,
  NftPlace,
  NftRequest,
  NftRule,
  NftSetSpec,
  NftTable,
  NftVerdict,
  OpenNftables,
} from '../nftables-port.ts';
import { KernelError } from '../ports.ts';
import { type Failures, Refusal } from './refusal.ts';

interface Table {
  readonly chains: Map<string, { readonly hook: NftHook | null; rules: NftRule[] }>;
  readonly sets: Map<string, { readonly spec: NftSetSpec; readonly elements: Map<string, NftData | null> }>;
}

type Tables = Map<string, Table>;

export class FakeNftables implements Nftables {
  #tables: Tables = new Map();
  /** What others have at the hook forward. */
  foreignDrops: readonly NftBaseChain[] = [];
  readonly #failures: Failures;
  readonly #hasDevice: (name: string) => boolean;
  readonly #watchers = new Set<{ readonly table: string; readonly onForeignChange: () => void }>();

  /** @param hasDevice whether its namespace has a link of the name */
  constructor(failures: Failures, hasDevice: (name: string) => boolean) {
    this.#failures = failures;
    this.#hasDevice = hasDevice;
  }

  /** As a socket of another namespace's does it. */
  open(): OpenNftables {
    return {
      transact: (requests) => this.transact(requests),
      read: (...place) => this.read(...place),
      counts: (...place) => this.counts(...place),
      dropsAtForward: () => this.dropsAtForward(),
      watch: (...what) => this.watch(...what),
      close: () => {},
    };
  }

  transact(requests: readonly NftRequest[]): void {
    for (const request of requests) checkWhole(request);
    const ordered = this.#failures.take('nftables');
    const tables = copyTables(this.#tables, requests);
    for (const [position, request] of requests.entries()) {
      try {
        if (ordered?.position === position) throw new Refusal(ordered.errno);
        carryOut(tables, request, this.#hasDevice);
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        throw new KernelError(describeNft(request), error.errno, error.text, position);
      }
    }
    this.#tables = tables;
  }

  /** No packet goes through a fake. */
  async counts(family: Family, table: string): Promise<Map<string, (NftCount | null)[]>> {
    this.#failures.check('nftables.read', 'list nftables');
    const none = { packets: 0, bytes: 0 };
    return new Map(
      Array.from(this.#tables.get(keyOf({ family, table }))?.chains ?? [], ([name, { rules }]) => [
        name,
        rules.map(({ expressions }) => (expressions.some(({ kind }) => kind === 'counter') ? none : null)),
      ]),
    );
  }

  async read(family: Family, table: string, layer?: 'link'): Promise<NftTable | null> {
    this.#failures.check('nftables.read', 'list nftables');
    const found = this.#tables.get(keyOf({ family, table, layer }));
    if (found === undefined) return null;
    return {
      isDormant: false,
      chains: new Map(
        Array.from(found.chains, ([name, { hook, rules }]) => [
          name,
          { hook, comments: rules.map(({ comment }) => comment) },
        ]),
      ),
      sets: new Map(
        Array.from(found.sets, ([name, { spec, elements }]) => [name, { spec, elements: [...elements] }]),
      ),
    };
  }

  async dropsAtForward(): Promise<NftBaseChain[]> {
    this.#failures.check('nftables.read', 'list nftables');
    return [...this.foreignDrops];
  }

  watch(table: string, onForeignChange: () => void): () => void {
    const watcher = { table, onForeignChange };
    this.#watchers.add(watcher);
    return () => void this.#watchers.delete(watcher);
  }

  /** As another program would. */
  transactAsForeigner(requests: readonly NftRequest[]): void {
    this.transact(requests);
    for (const { table, onForeignChange } of this.#watchers) {
      if (requests.some((request) => request.table === table)) onForeignChange();
    }
  }

  /** The rules of a chain, for tests. */
  rules(family: Family, table: string, chain: string, layer?: 'link'): readonly NftRule[] {
    return this.#tables.get(keyOf({ family, table, layer }))?.chains.get(chain)?.rules ?? [];
  }

  print(): string[] {
    return Array.from(this.#tables).flatMap(([key, { chains, sets }]) => [
      `table ${key}`,
      ...Array.from(sets, ([name, { elements }]) => `  set ${name}: ${[...elements.keys()].join(', ')}`),
      ...Array.from(
        chains,
        ([name, { rules }]) => `  chain ${name}: ${rules.map(({ comment }) => comment).join('; ')}`,
      ),
    ]);
  }
}

/** All that is refused before the kernel is asked. */
function checkWhole(request: NftRequest): void {
  checkNftRequest(request);
  if (request.kind !== 'elements-add' && request.kind !== 'elements-delete') return;
  for (const element of request.elements) checkElement(request.family, request.spec, element);
}

/** Only tables that the transaction touches. */
function copyTables(tables: Tables, requests: readonly NftRequest[]): Tables {
  const copy = new Map(tables);
  for (const key of new Set(requests.map(keyOf))) {
    const table = tables.get(key);
    if (table !== undefined) copy.set(key, structuredClone(table));
  }
  return copy;
}

function keyOf({ family, table, layer }: NftPlace): string {
  return `${layer === 'link' ? 'netdev' : family} ${table}`;
}

function carryOut(tables: Tables, request: NftRequest, hasDevice: (name: string) => boolean): void {
  const key = keyOf(request);
  const table = tables.get(key);
  if (request.kind === 'table-make' && table !== undefined) throw new Refusal('EEXIST');
  if (request.kind === 'table-add' || request.kind === 'table-make') {
    if (table === undefined) tables.set(key, { chains: new Map(), sets: new Map() });
    return;
  }
  if (table === undefined) throw new Refusal('ENOENT');
  switch (request.kind) {
    case 'table-delete':
      tables.delete(key);
      break;
    case 'chain-add':
      checkHook(request, hasDevice);
      if (!table.chains.has(request.chain))
        table.chains.set(request.chain, { hook: request.hook, rules: [] });
      break;
    case 'chain-flush':
      existing(table.chains, request.chain).rules = [];
      break;
    case 'chain-delete':
      if (existing(table.chains, request.chain).rules.length > 0 || leadsTo(table, request.chain)) {
        throw new Refusal('EBUSY');
      }
      table.chains.delete(request.chain);
      break;
    case 'rule-add': {
      const chain = existing(table.chains, request.chain);
      checkRule(table, request.rule);
      chain.rules.push(request.rule);
      break;
    }
    case 'set-add': {
      const found = table.sets.get(request.set);
      if (found !== undefined && !isSame(found.spec, request.spec)) throw new Refusal('EEXIST');
      if (found === undefined) table.sets.set(request.set, { spec: request.spec, elements: new Map() });
      break;
    }
    case 'set-delete':
      existing(table.sets, request.set);
      if (isNamed(table, request.set)) throw new Refusal('EBUSY');
      table.sets.delete(request.set);
      break;
    case 'elements-add':
    case 'elements-delete':
      changeElements(table, request);
  }
}

function checkHook(
  { hook, layer }: NftRequest & { kind: 'chain-add' },
  hasDevice: (name: string) => boolean,
): void {
  if (hook === null) return;
  if ('device' in hook !== (layer === 'link')) throw new Refusal('EOPNOTSUPP');
  // Kernels from 6.16 on wait for the device.
  if ('device' in hook && !hasDevice(hook.device)) throw new Refusal('ENOENT');
}

function changeElements(table: Table, request: NftRequest & { elements: unknown }): void {
  const { kind, set, spec, elements } = request as NftRequest & { kind: 'elements-add' | 'elements-delete' };
  const found = existing(table.sets, set);
  if (!isSame(found.spec, spec)) throw new Refusal('EINVAL');
  for (const [key, data] of elements) {
    if (kind === 'elements-delete') {
      if (!found.elements.delete(key)) throw new Refusal('ENOENT');
      continue;
    }
    const there = found.elements.get(key);
    if (there !== undefined && !isSame(there, data)) throw new Refusal('EEXIST');
    if (spec.data !== null && data === null) throw new Refusal('EINVAL');
    if (typeof data === 'object' && data !== null) checkVerdict(table, data);
    found.elements.set(key, data);
  }
}

function checkRule(table: Table, { expressions }: NftRule): void {
  for (const expression of expressions) {
    const set = setIn(expression);
    if (set !== null) existing(table.sets, set);
    if (expression.kind === 'verdict') checkVerdict(table, expression.verdict);
  }
}

function checkVerdict(table: Table, verdict: NftVerdict): void {
  if ('chain' in verdict && existing(table.chains, verdict.chain).hook !== null)
    throw new Refusal('EOPNOTSUPP');
}

function leadsTo(table: Table, chain: string): boolean {
  const leads = (verdict: unknown): boolean =>
    typeof verdict === 'object' && verdict !== null && 'chain' in verdict && verdict.chain === chain;
  return (
    [...table.sets.values()].some(({ elements }) => [...elements.values()].some(leads)) ||
    expressionsOf(table).some((expression) => expression.kind === 'verdict' && leads(expression.verdict))
  );
}

function isNamed(table: Table, set: string): boolean {
  return expressionsOf(table).some((expression) => setIn(expression) === set);
}

function expressionsOf({ chains }: Table) {
  return [...chains.values()].flatMap(({ rules }) => rules.flatMap(({ expressions }) => expressions));
}

function setIn(expression: NftRule['expressions'][number]): string | null {
  if (expression.kind === 'in-set') return expression.set;
  return expression.kind === 'map' || expression.kind === 'verdict-map' ? expression.map : null;
}

function existing<T>(map: ReadonlyMap<string, T>, name: string): T {
  const found = map.get(name);
  if (found === undefined) throw new Refusal('ENOENT');
  return found;
}

function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
