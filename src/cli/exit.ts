/**
 * Exit codes, and the failure that carries one.
 *
 * In: a message. Out: an error that main turns into one line and an exit code. Never: an exit code that is not in this list.
 */

/** As INTERFACES.md has them; scripts rely on it. */
export const exitCodes = { done: 0, refused: 1, usage: 2, unreachable: 3, unhealthy: 4 } as const;

/** A failure with its exit code; the message becomes the one line on standard error. */
export class CliError extends Error {
  readonly exitCode: number;

  constructor(message: string, exitCode: number = exitCodes.refused) {
    super(message);
    this.name = 'CliError';
    this.exitCode = exitCode;
  }
}
