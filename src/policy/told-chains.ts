/**
 * Chains on their way to the output, with a memory of what was told (pure, in memory).
 *
 * In: chains as they should be. Out: only those that differ from what was told last. Never: the same chain told twice.
 */
import type { Family } from '../model/ip.ts';
import type { Chain } from './chain.ts';
import type { PolicyOutput } from './output.ts';

export class ToldChains {
  readonly #output: PolicyOutput;
  readonly #told = new Map<string, Chain>();
  /** The same as JSON, to compare by. */
  readonly #texts = new Map<string, string>();

  constructor(output: PolicyOutput) {
    this.#output = output;
  }

  tell(family: Family, chain: Chain): void {
    const key = `${family} ${chain.name}`;
    const text = JSON.stringify(chain);
    if (this.#texts.get(key) === text) return;
    this.#texts.set(key, text);
    this.#told.set(key, chain);
    this.#output.chain(family, chain.name, chain);
  }

  untell(family: Family, name: string): void {
    const key = `${family} ${name}`;
    this.#texts.delete(key);
    if (this.#told.delete(key)) this.#output.chain(family, name, null);
  }

  /** All chains of the family. */
  *of(family: Family): Generator<Chain> {
    for (const [key, chain] of this.#told) if (key.startsWith(`${family} `)) yield chain;
  }
}
