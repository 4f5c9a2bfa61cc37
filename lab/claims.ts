/**
 * Claims that are checked while they are told: each is a line with a tick or a cross.
 *
 * In: a sentence and its check. Out: lines on standard output, and in the end the exit code. Never: a claim that counts as
 * held because its check could not be made.
 */

/** False, or text that says what was seen instead, or an exception: the claim does not hold. */
export type Check = () => Promise<boolean | string | undefined>;

export class Claims {
  #held = 0;
  #failed = 0;
  readonly #colour = process.stdout.isTTY === true;

  heading(text: string): void {
    console.log(`\n${this.#paint('1', text)}`);
  }

  /** Shown between claims: what an operator would see with the tools at hand. */
  show(text: string): void {
    for (const line of text.trimEnd().split('\n')) console.log(this.#paint('2', `      ${line}`));
  }

  /** Returns whether it held; `details`, asked afterwards, is put behind the sentence. */
  async claim(sentence: string, check: Check, details?: () => string): Promise<boolean> {
    const problem = await check().then(
      (seen) => (typeof seen === 'string' ? seen : seen === false ? 'it does not' : null),
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
    if (problem === null) {
      this.#held++;
      console.log(
        `  ${this.#paint('32', '✓')} ${sentence}${details ? this.#paint('2', ` (${details()})`) : ''}`,
      );
      return true;
    }
    this.#failed++;
    console.log(`  ${this.#paint('31', '✗')} ${sentence}`);
    for (const line of problem.split('\n')) console.log(this.#paint('31', `      ${line}`));
    return false;
  }

  /** As claim, for what everything after it needs. @throws Stop when it does not hold */
  async must(sentence: string, check: Check, details?: () => string): Promise<void> {
    if (!(await this.claim(sentence, check, details))) throw new Stop();
  }

  /** Prints the sum; the exit code is 0 only if there were claims and all held. */
  finish(): number {
    const sum =
      this.#failed === 0
        ? `all ${this.#held} claims hold`
        : `${this.#failed} of ${this.#held + this.#failed} claims do not hold`;
    console.log(`\n${this.#paint(this.#failed === 0 ? '32' : '31', sum)}`);
    return this.#failed === 0 && this.#held > 0 ? 0 : 1;
  }

  #paint(code: string, text: string): string {
    return this.#colour ? `\x1b[${code}m${text}\x1b[0m` : text;
  }
}

/** Ends the telling after a claim that all later ones need. */
export class Stop extends Error {}
