/**
 * Chains on their way to the output, with a memory of what was told (pure, in memory).
 *
 * In: chains as they should be. Out: only those that differ from what was told last. Never: the same chain told twice.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Family } from '../model/ip.ts';
import type { Chain } from './chain.ts';
import type { PolicyOutput } from './output.ts';

export class ToldChains {
  readonly #output: PolicyOutput;
  readonly #told = new Map<string, Chain>();

  constructor(output: PolicyOutput) {
    this.#output = output;
  }

  tell(family: Family, chain: Chain): void {
    const key = `${family} ${chain.name}`;
    if (isDeepStrictEqual(this.#told.get(key), chain)) return;
    this.#told.set(key, chain);
    this.#output.chain(family, chain.name, chain);
  }

  /** One that is known to differ: its rules are not looked at, so they may be worked out when somebody asks for them. */
  tellChanged(family: Family, chain: Chain): void {
    this.#told.set(`${family} ${chain.name}`, chain);
    this.#output.chain(family, chain.name, chain);
  }

  untell(family: Family, name: string): void {
    const key = `${family} ${name}`;
    if (this.#told.delete(key)) this.#output.chain(family, name, null);
  }

  /** All chains of the family. */
  *of(family: Family): Generator<Chain> {
    for (const [key, chain] of this.#told) if (key.startsWith(`${family} `)) yield chain;
  }
}
