/**
 * From the words on the command line to one command of the table and its arguments.
 *
 * In: argv and the table. Out: the command and what yargs (strict) made of the rest, or a UsageError with the commands that
 * were probably meant. Never: a guess: an unknown word or option is refused.
 */
import yargs from 'yargs';
import { Arguments, type Command, type Option, UsageError } from './command.ts';

/** Options of every command. */
export const globalOptions: Readonly<Record<string, Option>> = {
  output: { type: 'text', value: 'FORMAT', help: 'table (default), wide, json, yaml or name' },
  api: {
    type: 'text',
    value: 'ADDRESS',
    help: 'unix:PATH or https://HOST:PORT (default: $NETCTL_API, else unix:/run/netctl/api.sock)',
  },
  cert: { type: 'text', value: 'FILE', help: 'client certificate for https (default: $NETCTL_CERT)' },
  key: { type: 'text', value: 'FILE', help: 'its key (default: $NETCTL_KEY)' },
  ca: { type: 'text', value: 'FILE', help: "authority of the agent's certificate (default: $NETCTL_CA)" },
  help: { type: 'flag', help: 'show this' },
};

/** One letter for an option that is typed often. */
export const shortForms: Readonly<Record<string, string>> = { output: 'o', file: 'f' };

export interface Call {
  readonly command: Command;
  readonly args: Arguments;
}

/** @throws UsageError */
export function parseCall(argv: readonly string[], commands: readonly Command[]): Call {
  const words = wordsOf(argv, commands);
  const command = matchCommand(words, commands);
  if (command === undefined) throw unknownCommand(words, commands);
  const rest = withoutLiterals(argv, command, commands);
  const values = unshielded(parseArguments(command, shielded(rest)));
  return { command, args: new Arguments({ ...values, ...spelledOut(values['NAME']) }) };
}

/** `name:add` is what is called add: the one spelling of a name that is never taken for a word of a command (names have no colon). */
function spelledOut(name: unknown): { NAME?: string } {
  return typeof name === 'string' && name.startsWith('name:') ? { NAME: name.slice('name:'.length) } : {};
}

/** What is asked for with `--help` (or `help`): the commands that begin with the words given. */
export function helpTopic(argv: readonly string[], commands: readonly Command[]): readonly Command[] | null {
  const end = argv.indexOf('--');
  const isHelp = (token: string): boolean => token === '--help' || token === '-h';
  const asked = argv.slice(0, end < 0 ? argv.length : end).some(isHelp) || argv[0] === 'help';
  if (!asked) return null;
  const words = wordsOf(argv, commands).filter((word, i) => i > 0 || word !== 'help');
  const exact = matchCommand(words, commands);
  return exact === undefined ? nearest(words, commands) : [exact];
}

/** The command's words for people: `netctl profile NAME rule add (inbound|outbound) [--at N] RULE...` */
export function usageLine(command: Command): string {
  const words = command.words.split(' ').map((token) => {
    const choices = command.choices?.[bareName(token)];
    return choices === undefined ? token : `(${choices.join('|')})`;
  });
  const options = Object.entries(command.options ?? {})
    .filter(([, option]) => option.hidden !== true)
    .map(
      ([name, { type, value }]) =>
        `[--${name}${type === 'flag' ? '' : ` ${value ?? 'VALUE'}`}]${type === 'list' ? '...' : ''}`,
    );
  return ['netctl', ...words, ...options].join(' ');
}

/** True for `profile`, false for `NAME`, `[NAME...]`. */
export function isLiteral(token: string): boolean {
  return /^[a-z_]/.test(token);
}

/** `NAME` of `[NAME...]`. */
export function bareName(token: string): string {
  return token.replace(/[[\].]/g, '');
}

/** The literal words decide, from the left: `profile add X` is never a profile called add. */
function matchCommand(words: readonly string[], commands: readonly Command[]): Command | undefined {
  const matches = commands.filter(({ words: pattern }) =>
    pattern.split(' ').every((token, i) => !isLiteral(token) || token === words[i]),
  );
  const shape = (command: Command): string =>
    command.words
      .split(' ')
      .map((token) => (isLiteral(token) ? '0' : '1'))
      .join('');
  return matches.sort((a, b) => (shape(a) < shape(b) ? -1 : 1))[0];
}

/** The tokens of argv that are neither options nor values of options. */
export function wordsOf(argv: readonly string[], commands: readonly Command[]): string[] {
  return positionsOfWords(argv, commands).map((position) => argv[position] ?? '');
}

function positionsOfWords(argv: readonly string[], commands: readonly Command[]): number[] {
  const takesValue = valueOptions(commands);
  const positions: number[] = [];
  for (let i = 0, optionsEnded = false; i < argv.length; i++) {
    const token = argv[i] ?? '';
    if (!optionsEnded && token === '--') optionsEnded = true;
    else if (!optionsEnded && token.startsWith('-') && token !== '-') i += takesValue.has(token) ? 1 : 0;
    else positions.push(i);
  }
  return positions;
}

function valueOptions(commands: readonly Command[]): ReadonlySet<string> {
  const all = [globalOptions, ...commands.map(({ options }) => options ?? {})].flatMap((options) =>
    Object.entries(options),
  );
  return new Set([
    ...Object.values(shortForms).map((letter) => `-${letter}`),
    ...all.filter(([, { type }]) => type !== 'flag').map(([name]) => `--${name}`),
  ]);
}

function withoutLiterals(argv: readonly string[], command: Command, commands: readonly Command[]): string[] {
  const tokens = command.words.split(' ');
  const literal = new Set(positionsOfWords(argv, commands).filter((_, i) => isLiteral(tokens[i] ?? '')));
  return argv.filter((_, position) => !literal.has(position));
}

/**
 * What yargs reads otherwise than people mean: `-ojson` (it sees five flags), `-fx`, and what stands after `--` (it does not take
 * that for positionals; no argument can hold a NUL, so one hides the dashes from it).
 */
function shielded(argv: readonly string[]): string[] {
  const end = argv.includes('--') ? argv.indexOf('--') : argv.length;
  const before = argv.slice(0, end).map((token) =>
    token
      .replace(/^-$/, '\0-')
      .replace(/^-o=?(?=.)/, '--output=')
      .replace(/^-f=?(?=.)/, '--file='),
  );
  const after = argv.slice(end + 1).map((token) => (token.startsWith('-') ? `\0${token}` : token));
  return [...before, ...after];
}

function unshielded(values: Record<string, unknown>): Record<string, unknown> {
  const strip = (value: unknown): unknown =>
    typeof value === 'string' && value.startsWith('\0') ? value.slice(1) : value;
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [
      name,
      Array.isArray(value) ? value.map(strip) : strip(value),
    ]),
  );
}

function parseArguments(command: Command, argv: readonly string[]): Record<string, unknown> {
  const positionals = command.words.split(' ').filter((token) => !isLiteral(token));
  const pattern = [
    '$0',
    ...positionals.map((token) =>
      token.startsWith('[') ? token.replace('...', '..') : `<${token.replace('...', '..')}>`,
    ),
  ];
  const parser = yargs([])
    .detectLocale(false)
    .scriptName('netctl')
    .help(false)
    .version(false)
    .exitProcess(false)
    .strict()
    .fail((message, error) => {
      const needed = positionals.filter((token) => !token.startsWith('[')).map(bareName);
      throw new UsageError(plain(message ?? error?.message ?? 'wrong usage', argv, needed), [command]);
    })
    .parserConfiguration({
      'greedy-arrays': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
      'boolean-negation': false,
      'camel-case-expansion': false,
      'dot-notation': false,
    })
    .command(pattern.join(' '), command.help, (builder) => {
      for (const token of positionals) {
        const name = bareName(token);
        const choices = command.choices?.[name];
        builder.positional(name, {
          type: 'string',
          ...(choices === undefined ? {} : { choices: [...choices] }),
          ...(name === 'KIND' ? { coerce: (kind?: string) => singular(kind, choices ?? []) } : {}),
        });
      }
      for (const [name, option] of Object.entries({ ...globalOptions, ...command.options }))
        builder.option(name, yargsOption(name, option));
      return builder;
    });
  return parser.parseSync([...argv]);
}

/** As other tools of the field take kinds: `get profiles`, `get policies`. */
function singular(kind: string | undefined, kinds: readonly string[]): string | undefined {
  const one = kind?.replace(/ies$/, 'y').replace(/s$/, '');
  return one !== undefined && kinds.includes(one) ? one : kind;
}

/** Numbers are read by Arguments, whose error names what was given. */
function yargsOption(name: string, { type }: Option) {
  if (type === 'flag') return { boolean: true } as const;
  return {
    requiresArg: true,
    string: true,
    ...(type === 'list' ? { array: true } : {}),
    ...(name in shortForms ? { alias: shortForms[name] } : {}),
  } as const;
}

/** yargs speaks of "non-option arguments", and of options without their dashes. */
function plain(message: string, argv: readonly string[], needed: readonly string[]): string {
  const [first = ''] = message.trim().split('\n');
  const [, given] = /^Not enough non-option arguments: got (\d+)/.exec(first) ?? [];
  const missing = needed.slice(Number(given));
  if (given !== undefined) return `${missing.join(' and ')} ${missing.length > 1 ? 'are' : 'is'} missing`;
  if (first.startsWith('Invalid values')) {
    const [, name, given, choices] =
      /Argument: (.*), Given: (.*), Choices: (.*)/.exec(message.replace(/\s+/g, ' ')) ?? [];
    return `${name}: ${given} is not valid: expected ${choices}`;
  }
  const [, names] = /^Unknown arguments?: (.*)/.exec(first) ?? [];
  if (names !== undefined)
    return `unknown: ${names
      .split(', ')
      .map((name) => asTyped(name, argv))
      .join(', ')}`;
  return first.replace(
    /^Not enough arguments following: (.*)/,
    (_, name: string) => `${asTyped(name, argv)} needs a value`,
  );
}

function asTyped(name: string, argv: readonly string[]): string {
  const wanted = [`--${name}`, `-${name}`, name];
  return wanted.find((form) => argv.some((token) => token === form || token.startsWith(`${form}=`))) ?? name;
}

function unknownCommand(words: readonly string[], commands: readonly Command[]): UsageError {
  const message = words.length === 0 ? 'say what to do' : `there is no command "${words.join(' ')}"`;
  return new UsageError(message, nearest(words, commands));
}

/** The commands that agree with the most words from the left; all of them when none does. */
function nearest(words: readonly string[], commands: readonly Command[]): readonly Command[] {
  const visible = commands.filter(({ hidden }) => hidden !== true);
  const agreement = ({ words: pattern }: Command): number => {
    const tokens = pattern.split(' ');
    const firstMiss = words.findIndex(
      (word, i) => tokens[i] === undefined || (isLiteral(tokens[i]) && tokens[i] !== word),
    );
    return firstMiss < 0 ? words.length : firstMiss;
  };
  const best = Math.max(...visible.map(agreement));
  return visible.filter((command) => agreement(command) === best);
}
