/**
 * Everything that netctl prints, in the form that `-o` asks for.
 *
 * In: items with their columns, or the result of a change. Out: text on the two streams. Never: a message for people among the
 * lines of `-o json|yaml|name`, colour on anything but a terminal, a complaint when the reader went away (EPIPE).
 */
import type { Writable } from 'node:stream';
import { type Column, formatFields, formatTable } from './table.ts';

export const formats = ['table', 'wide', 'json', 'yaml', 'name'] as const;
export type Format = (typeof formats)[number];

export interface View<T> {
  /** `pool`: the first half of `-o name`, and the word for "none". */
  readonly kind: string;
  /** Where it is not the kind with an s. */
  readonly plural?: string;
  readonly name: (item: T) => string;
  readonly columns: readonly Column<T>[];
}

export type Colour = 'bold' | 'red' | 'green' | 'yellow';
const CODES: Readonly<Record<Colour, number>> = { bold: 1, red: 31, green: 32, yellow: 33 };

export interface OutputStreams {
  readonly stdout: Writable & { readonly isTTY?: boolean };
  readonly stderr: Writable & { readonly isTTY?: boolean };
}

export class Output {
  readonly format: Format;
  readonly #streams: OutputStreams;
  readonly #colour: boolean;

  constructor(streams: OutputStreams, format: Format, noColour: boolean) {
    this.format = format;
    this.#streams = streams;
    this.#colour = streams.stdout.isTTY === true && !noColour;
  }

  /** True when people read it: tables, sentences. */
  get forPeople(): boolean {
    return this.format === 'table' || this.format === 'wide';
  }

  async list<T>(view: View<T>, items: readonly T[]): Promise<void> {
    if (this.format === 'name') {
      for (const item of items) this.line(`${view.kind}/${view.name(item)}`);
    } else if (!this.forPeople) {
      await this.data(items);
    } else if (items.length === 0) {
      this.note(`no ${view.plural ?? `${view.kind}s`}`);
    } else {
      const columns = view.columns.filter(({ wide }) => this.format === 'wide' || wide !== true);
      for (const line of formatTable(items, columns, (text) => this.paint('bold', text))) this.line(line);
    }
  }

  /** One thing in full: `fields` for people, `item` for programs. */
  async one(
    kind: string,
    name: string,
    item: unknown,
    fields: readonly (readonly [string, string | number | null])[],
  ): Promise<void> {
    if (this.format === 'name') this.line(`${kind}/${name}`);
    else if (this.forPeople) for (const line of formatFields(fields)) this.line(line);
    else await this.data(item);
  }

  /** The result of a change: a sentence for people, the item as it stands now for programs. */
  async changed(kind: string, name: string, sentence: string, item: unknown): Promise<void> {
    if (this.format === 'name') this.line(`${kind}/${name}`);
    else if (this.forPeople) this.line(sentence);
    else await this.data(item);
  }

  /** For programs: JSON, or YAML with `-o yaml`. */
  async data(value: unknown): Promise<void> {
    if (this.format === 'yaml') {
      const { stringify } = await import('yaml');
      this.write(stringify(value));
    } else {
      this.line(JSON.stringify(value, null, 2));
    }
  }

  /** On a terminal, what comes next begins at its top. */
  clear(): void {
    if (this.#streams.stdout.isTTY === true) this.write('\u001b[H\u001b[2J');
  }

  line(text: string): void {
    this.write(`${text}\n`);
  }

  write(text: string): void {
    this.#streams.stdout.write(text);
  }

  /** A remark on standard error. */
  note(text: string): void {
    this.#streams.stderr.write(`${text}\n`);
  }

  /** How far something is, on standard error: a line that the next one replaces. Not on a terminal, only what is `done` is told. */
  progress(text: string, done: boolean): void {
    const { stderr } = this.#streams;
    if (stderr.isTTY === true) stderr.write(`\r\u001b[K${text}${done ? '\n' : ''}`);
    else if (done) this.note(text);
  }

  /** A remark that something is not as it should be, though the command did what it was told. */
  warn(text: string): void {
    this.note(`netctl: warning: ${text}`);
  }

  paint(colour: Colour, text: string): string {
    return this.#colour ? `\u001b[${CODES[colour]}m${text}\u001b[0m` : text;
  }
}
