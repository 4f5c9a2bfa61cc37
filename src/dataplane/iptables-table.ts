/**
 * Our chains and jumps in one table of one family: what they should be, what was read, what to write (no I/O).
 *
 * In: desired chains, what iptables-save printed. Out: the lines between `*table` and COMMIT. Never: a foreign rule touched; a chain
 * rewritten that is right.
 */
import { Deltas } from '../lib/deltas.ts';
import type { IptablesTable } from '../linux/ports.ts';
import { type Chain, setsOfChain } from '../policy/chain.ts';
import { type Jump, jumps } from '../policy/compile.ts';
import { type RenderedChain, renderChain } from '../policy/render-iptables.ts';
import { parseSave, type SavedChain, type SavedJump } from './iptables-save.ts';

interface DesiredChain extends SavedChain {
  readonly rendered: RenderedChain;
}

interface DesiredJump {
  /** It is wanted while this chain is. */
  readonly chain: string;
  readonly hash: string;
  /** What follows `-A <chain> `. */
  readonly body: string;
}

/** What is to be written, and how to remember that it was. */
export interface TableWrite {
  readonly lines: readonly string[];
  done(): void;
}

export class TableState {
  readonly name: IptablesTable;
  /** By built-in chain, in their order. */
  readonly #allJumps: ReadonlyMap<string, readonly DesiredJump[]>;
  readonly #chains = new Deltas<string, SavedChain>((a, b) => isSameList(a.hashes, b.hashes));
  /** Not rendered yet: while many lists come, the chains that dispatch are told with each. */
  readonly #told = new Map<string, Chain | null>();
  #jumps = new Map<string, readonly SavedJump[]>();
  #foreignTargets: ReadonlySet<string> = new Set();
  /** Rules of others before ours, per built-in chain. */
  #before = new Map<string, readonly string[]>();
  readonly #keepFirst: boolean;

  constructor(name: IptablesTable, { keepFirst }: { readonly keepFirst: boolean }) {
    this.name = name;
    this.#keepFirst = keepFirst;
    this.#allJumps = Map.groupBy(
      jumps.filter(({ table }) => table === name).map(renderJump),
      ({ builtin }) => builtin,
    );
  }

  chain(name: string, chain: Chain | null): void {
    this.#told.set(name, chain);
  }

  /** To be called before anything is asked. */
  settle(): void {
    for (const [name, chain] of this.#told) {
      if (chain === null) {
        this.#chains.unwant(name);
        continue;
      }
      const rendered = renderChain(chain);
      const desired: DesiredChain = { rendered, hashes: rendered.hashes, sets: setsOfChain(chain) };
      this.#chains.want(name, desired);
    }
    this.#told.clear();
  }

  observe(saveOutput: string): void {
    const saved = parseSave(saveOutput);
    this.#chains.observe(saved.chains);
    this.#jumps = new Map(saved.jumps);
    this.#foreignTargets = saved.foreignTargets;
    this.#before = new Map(saved.before);
  }

  /** Rules of others that stand before ours, in words. @param where `IPv4` */
  notices(where: string): string[] {
    return [...this.#before].flatMap(([builtin, rules]) =>
      rules.map((rule) => `stands before the rules of netctl in ${builtin} (${where}): ${rule}`),
    );
  }

  get isClean(): boolean {
    return (
      this.#chains.pendingUpdates.size === 0 &&
      this.#removable().length === 0 &&
      this.#wrongBuiltins().length === 0
    );
  }

  /** What differs, in words for people. @param where `IPv4` */
  differences(where: string): string[] {
    return [
      ...Array.from(
        this.#chains.pendingUpdates.keys(),
        (name) => `chain ${name} (${where}) missing or changed`,
      ),
      ...this.#removable().map((name) => `chain ${name} (${where}) left over`),
      ...this.#wrongBuiltins().map((builtin) => {
        const before = this.#before.get(builtin) ?? [];
        const behind = before.length === 0 ? '' : `: behind ${before.join('; ')}`;
        return `jump from ${builtin} (${where}) missing or not first${behind}`;
      }),
    ];
  }

  /** True when a rule of ours in the kernel names the set. */
  namesSet(set: string): boolean {
    for (const chain of this.#chains.actual.values()) if (chain.sets.has(set)) return true;
    return false;
  }

  /** Chains are declared before any rule, so that rules may name each other's; a declaration also empties the chain. */
  plan(): TableWrite {
    const changed = [...this.#chains.pendingUpdates] as [string, DesiredChain][];
    const removed = this.#removable();
    const lines = [...changed.map(([name]) => name), ...removed].map((name) => `:${name} - [0:0]`);
    for (const [, chain] of changed) lines.push(...chain.rendered.lines);
    const wrong = this.#wrongBuiltins();
    for (const builtin of wrong) {
      // Not by position: others may have inserted rules since we read.
      for (const { body } of this.#jumps.get(builtin) ?? []) lines.push(`-D ${builtin} ${body}`);
      this.#wantedJumps(builtin).forEach(({ body }, i) => {
        lines.push(`-I ${builtin} ${i + 1} ${body}`);
      });
    }
    for (const name of removed) lines.push(`-X ${name}`);
    const jumpsThen = (builtin: string): SavedJump[] =>
      this.#wantedJumps(builtin).map(({ hash, body }, i) => ({ hash, position: i + 1, body }));
    const done = (): void => {
      for (const [name, chain] of changed) this.#chains.wrote(name, chain);
      for (const name of removed) this.#chains.erased(name);
      for (const builtin of wrong) this.#before.delete(builtin);
      for (const builtin of wrong) this.#jumps.set(builtin, jumpsThen(builtin));
    };
    return { lines, done };
  }

  /** Of chains that name one of the sets nothing is left but a drop (in nat, which cannot drop, nothing). */
  planWithout(sets: readonly string[]): TableWrite {
    const names = [...this.#chains.actual]
      .filter(([, chain]) => sets.some((set) => chain.sets.has(set)))
      .map(([name]) => name);
    const lines = names.flatMap((name) => [
      `:${name} - [0:0]`,
      ...(this.name === 'filter' ? [`-A ${name} -j DROP`] : []),
    ]);
    const done = (): void => {
      for (const name of names) this.#chains.wrote(name, { hashes: [null], sets: new Set() });
    };
    return { lines, done };
  }

  /** A chain that a foreign rule leads to stays as it is. */
  #removable(): string[] {
    return [...this.#chains.pendingDeletes].filter((name) => !this.#foreignTargets.has(name));
  }

  /** Right is: exactly the wanted ones of ours, in order, and in the first places unless others may stand before them. */
  #wrongBuiltins(): string[] {
    return [...this.#allJumps.keys()].filter((builtin) => {
      const wanted = this.#wantedJumps(builtin);
      const actual = this.#jumps.get(builtin) ?? [];
      return (
        actual.length !== wanted.length ||
        actual.some(({ hash }, i) => hash !== wanted[i]!.hash) ||
        (this.#keepFirst && actual.some(({ position }, i) => position !== i + 1))
      );
    });
  }

  #wantedJumps(builtin: string): DesiredJump[] {
    return (this.#allJumps.get(builtin) ?? []).filter(({ chain }) => this.#chains.desired.has(chain));
  }
}

function renderJump({ builtin, chain, rule }: Jump): DesiredJump & { builtin: string } {
  const { lines, hashes } = renderChain({ name: builtin, rules: [rule] });
  return { builtin, chain, hash: hashes[0]!, body: lines[0]!.slice(`-A ${builtin} `.length) };
}

function isSameList(a: readonly unknown[], b: readonly unknown[]): boolean {
  return a.length === b.length && a.every((item, i) => item === b[i]);
}
