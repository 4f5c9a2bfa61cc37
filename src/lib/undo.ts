/**
 * The one way back: each step of a request pushes its own undo; a failure runs them in reverse.
 *
 * In: undo functions. Out: everything undone, or a list of what could not be. Never: an undo skipped because another failed.
 */
export class UndoStack {
  readonly #steps: { what: string; undo: () => void | Promise<void> }[] = [];

  push(what: string, undo: () => void | Promise<void>): void {
    this.#steps.push({ what, undo });
  }

  /** The request succeeded: what was done stays. */
  forget(): void {
    this.#steps.length = 0;
  }

  /** Undoes in reverse order, all of it; returns what failed. */
  async run(): Promise<{ what: string; error: unknown }[]> {
    const failures: { what: string; error: unknown }[] = [];
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        await step.undo();
      } catch (error) {
        failures.push({ what: step.what, error });
      }
    }
    return failures;
  }
}
