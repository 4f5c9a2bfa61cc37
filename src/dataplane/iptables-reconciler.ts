/**
 * Our chains and jumps in table filter of one family: read, compare by the hashes in the comments, write.
 *
 * In: which chains should be. Out: one run of iptables-restore per write, all or nothing. Never: a foreign rule touched; a chain
 * rewritten that is right (its packet counters survive).
 */
import { Deltas } from '../lib/deltas.ts';
import type { Iptables } from '../linux/ports.ts';
import type { Family } from '../model/ip.ts';
import { type Chain, setsOfChain } from '../policy/chain.ts';
import { jumps } from '../policy/compile.ts';
import { type RenderedChain, renderChain } from '../policy/render-iptables.ts';
import { parseSave, type SavedChain, type SavedJump } from './iptables-save.ts';

interface DesiredChain extends SavedChain {
  readonly rendered: RenderedChain;
}

interface DesiredJump {
  readonly builtin: string;
  readonly hash: string;
  /** What follows `-A <chain> `. */
  readonly body: string;
}

export class IptablesReconciler {
  readonly #iptables: Iptables;
  readonly #family: Family;
  readonly #chains = new Deltas<string, SavedChain>((a, b) => isSameList(a.hashes, b.hashes));
  readonly #desiredJumps: readonly DesiredJump[] = jumps.map(renderJump);
  #jumps: ReadonlyMap<string, readonly SavedJump[]> = new Map();
  #foreignTargets: ReadonlySet<string> = new Set();
  #isKnown = false;
  #writes = 0;

  constructor(iptables: Iptables, family: Family) {
    this.#iptables = iptables;
    this.#family = family;
  }

  /** Runs of iptables-restore, since the start. */
  get writes(): number {
    return this.#writes;
  }

  chain(name: string, chain: Chain | null): void {
    if (chain === null) {
      this.#chains.unwant(name);
      return;
    }
    const rendered = renderChain(chain);
    const desired: DesiredChain = { rendered, hashes: rendered.hashes, sets: setsOfChain(chain) };
    this.#chains.want(name, desired);
  }

  /** False also when nothing was read yet, or a write failed and may have done something. */
  get isClean(): boolean {
    return (
      this.#isKnown &&
      this.#wrongJumps().length === 0 &&
      this.#chains.pendingUpdates.size === 0 &&
      this.#removable().length === 0
    );
  }

  /** What differs, in words for people. */
  differences(): string[] {
    return [
      ...Array.from(
        this.#chains.pendingUpdates.keys(),
        (name) => `chain ${name} (IPv${this.#family}) missing or changed`,
      ),
      ...this.#removable().map((name) => `chain ${name} (IPv${this.#family}) left over`),
      ...this.#wrongJumps().map(
        ({ builtin }) => `jump from ${builtin} (IPv${this.#family}) missing or not first`,
      ),
    ];
  }

  /** Returns the differences that we did not know of, in words. */
  async read(): Promise<string[]> {
    const saved = parseSave(await this.#iptables.save(this.#family));
    const known = new Set(this.differences());
    this.#chains.observe(saved.chains);
    this.#jumps = saved.jumps;
    this.#foreignTargets = saved.foreignTargets;
    this.#isKnown = true;
    return this.differences().filter((difference) => !known.has(difference));
  }

  /** @throws KernelError; then what is there must be read again */
  async write(): Promise<void> {
    const changed = [...this.#chains.pendingUpdates] as [string, DesiredChain][];
    const removed = this.#removable();
    const moved = this.#wrongJumps();
    if (changed.length + removed.length + moved.length === 0) return;
    this.#isKnown = false;
    this.#writes++;
    await this.#iptables.restore(this.#family, this.#text(changed, removed, moved));
    this.#isKnown = true;
    for (const [name, chain] of changed) this.#chains.wrote(name, chain);
    for (const name of removed) this.#chains.erased(name);
    this.#jumps = new Map(this.#desiredJumps.map(({ builtin, hash }) => [builtin, [{ hash, position: 1 }]]));
  }

  /** True when a rule of ours in the kernel names the set. */
  namesSet(set: string): boolean {
    for (const chain of this.#chains.actual.values()) if (chain.sets.has(set)) return true;
    return false;
  }

  /** Chains are declared before any rule, so that rules may name each other's; a declaration also empties the chain. */
  #text(
    changed: readonly [string, DesiredChain][],
    removed: readonly string[],
    moved: readonly DesiredJump[],
  ): string {
    const lines = ['*filter'];
    for (const [name] of changed) lines.push(`:${name} - [0:0]`);
    for (const name of removed) lines.push(`:${name} - [0:0]`);
    for (const [, chain] of changed) lines.push(...chain.rendered.lines);
    for (const { builtin, body } of moved) {
      const old = (this.#jumps.get(builtin) ?? []).map((jump) => jump.position);
      for (const position of old.reverse()) lines.push(`-D ${builtin} ${position}`);
      lines.push(`-I ${builtin} 1 ${body}`);
    }
    for (const name of removed) lines.push(`-X ${name}`);
    return `${[...lines, 'COMMIT'].join('\n')}\n`;
  }

  /** A chain that a foreign rule leads to stays as it is. */
  #removable(): string[] {
    return [...this.#chains.pendingDeletes].filter((name) => !this.#foreignTargets.has(name));
  }

  /** Right is: exactly one of ours, in the first place. */
  #wrongJumps(): DesiredJump[] {
    return this.#desiredJumps.filter(({ builtin, hash }) => {
      const [first, ...more] = this.#jumps.get(builtin) ?? [];
      return first === undefined || more.length > 0 || first.position !== 1 || first.hash !== hash;
    });
  }
}

function renderJump({ builtin, rule }: (typeof jumps)[number]): DesiredJump {
  const { lines, hashes } = renderChain({ name: builtin, rules: [rule] });
  return { builtin, hash: hashes[0]!, body: lines[0]!.slice(`-A ${builtin} `.length) };
}

function isSameList(a: readonly unknown[], b: readonly unknown[]): boolean {
  return a.length === b.length && a.every((item, i) => item === b[i]);
}
