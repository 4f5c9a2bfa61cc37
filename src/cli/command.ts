/**
 * What a command of netctl is, and how its words, positionals and options are written down.
 *
 * In: the table's entries. Out: their types, the parsed arguments, errors with an exit code. Never: an exit code that is not
 * in this list.
 */
import type { Client } from './client.ts';
import { CliError, exitCodes } from './exit.ts';
import type { LabControl } from './lab-control.ts';
import type { Output } from './output.ts';

export interface Command {
  /**
   * The words in their order: lower case as it stands, CAPITALS for a positional, `NAME...` for one or more, `[NAME...]` for any
   * number, `[NAME]` for an optional one.
   */
  readonly words: string;
  /** Positionals that are one of a few words. */
  readonly choices?: Readonly<Record<string, readonly string[]>>;
  readonly options?: Readonly<Record<string, Option>>;
  readonly help: string;
  /** Not shown in help and completion. */
  readonly hidden?: boolean;
  /** Resolves to an exit code, or to nothing for 0. */
  run(context: Context): Promise<number | undefined> | Promise<void>;
}

export interface Option {
  readonly type: 'text' | 'number' | 'flag' | 'list';
  readonly help: string;
  /** How its value is called in help. */
  readonly value?: string;
  readonly hidden?: boolean;
}

export interface Context {
  readonly args: Arguments;
  readonly output: Output;
  readonly version: string;
  readonly commands: readonly Command[];
  /** Opened on first use: a command that needs no agent has none. */
  api(): Client;
  /** The lab on this machine; loaded on first use. */
  lab(): Promise<LabControl>;
  /** Everything on standard input. @throws CliError when it is a terminal */
  readStdin(hint: string): Promise<string>;
}

export class UsageError extends CliError {
  /** The commands whose usage helps. */
  readonly nearest: readonly Command[];

  constructor(message: string, nearest: readonly Command[] = []) {
    super(message, exitCodes.usage);
    this.name = 'UsageError';
    this.nearest = nearest;
  }
}

/** Typed access to what yargs parsed; positionals have their names in capitals. */
export class Arguments {
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(values: Readonly<Record<string, unknown>>) {
    this.#values = values;
  }

  text(name: string): string {
    return this.optionalText(name) ?? '';
  }

  optionalText(name: string): string | undefined {
    const value = this.#values[name];
    if (Array.isArray(value)) throw new UsageError(`--${name} is given more than once`);
    return value === undefined ? undefined : String(value);
  }

  list(name: string): string[] | undefined {
    const value = this.#values[name];
    return value === undefined ? undefined : [value].flat().map(String);
  }

  flag(name: string): boolean | undefined {
    const value = this.#values[name];
    return value === undefined ? undefined : value === true;
  }

  number(name: string): number | undefined {
    const text = this.optionalText(name);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (text.trim() === '' || !Number.isFinite(value))
      throw new UsageError(`--${name}: "${text}" is not a number`);
    return value;
  }
}
