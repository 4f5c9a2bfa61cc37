/**
 * netctl without a process around it: arguments and streams in, an exit code out.
 *
 * In: argv (after the program's name), environment, streams, version. Out: text on the streams, the exit code. Never: a stack
 * trace for a foreseen failure, more than one line for an error (wrong usage adds the usage), a crash when the reader of the
 * output went away.
 */
import type { Readable } from 'node:stream';
import { type Client, type Environment, openClient } from './client.ts';
import { type Command, type Context, UsageError } from './command.ts';
import { commands } from './commands.ts';
import { type Call, helpTopic, parseCall, usageLine } from './dispatch.ts';
import { CliError, exitCodes } from './exit.ts';
import { helpText } from './help.ts';
import { type Format, formats, Output, type OutputStreams } from './output.ts';

const DEFAULT_API = 'unix:/run/netctl/api.sock';
/** More usage lines than this are a list that `--help` shows better. */
const MOST_USAGE_LINES = 8;

export interface Streams extends OutputStreams {
  readonly stdin: Readable & { readonly isTTY?: boolean };
}

/**
 * @param lab makes hosts on this machine; without it those commands are refused
 * @returns the exit code
 */
export async function main(
  argv: readonly string[],
  env: Environment,
  streams: Streams,
  version: string,
  lab: Context['lab'] = withoutLab,
): Promise<number> {
  const written = watched(streams);
  const code = await done(argv, env, streams, version, lab);
  return (await written()) ? code : exitCodes.refused;
}

async function done(
  argv: readonly string[],
  env: Environment,
  streams: Streams,
  version: string,
  lab: Context['lab'],
): Promise<number> {
  try {
    const topic = helpTopic(argv, commands);
    if (topic !== null) {
      streams.stdout.write(`${helpText(topic).join('\n')}\n`);
      return exitCodes.done;
    }
    return await runCall(parseCall(argv, commands), env, streams, version, lab);
  } catch (error) {
    return report(error, streams);
  }
}

async function runCall(
  { command, args }: Call,
  env: Environment,
  streams: Streams,
  version: string,
  lab: Context['lab'],
): Promise<number> {
  const output = new Output(streams, formatOf(args.optionalText('output')), (env['NO_COLOR'] ?? '') !== '');
  let client: Client | undefined;
  const code = await runWithUsage(command, {
    args,
    output,
    version,
    commands,
    api: () => {
      client ??= openClient(args.optionalText('api') ?? (env['NETCTL_API'] || DEFAULT_API), {
        ca: args.optionalText('ca') ?? env['NETCTL_CA'],
        cert: args.optionalText('cert') ?? env['NETCTL_CERT'],
        key: args.optionalText('key') ?? env['NETCTL_KEY'],
      });
      return client;
    },
    lab,
    readStdin: (hint) => readStdin(streams, hint),
  });
  return code ?? exitCodes.done;
}

async function withoutLab(): Promise<never> {
  throw new CliError('this netctl cannot make hosts');
}

/** A command's own complaint about its arguments comes with its usage. */
async function runWithUsage(command: Command, context: Context): Promise<number | undefined> {
  try {
    return (await command.run(context)) ?? undefined;
  } catch (error) {
    throw error instanceof UsageError ? new UsageError(error.message, [command]) : error;
  }
}

function formatOf(text: string | undefined): Format {
  const format = formats.find((one) => one === (text ?? 'table'));
  if (format === undefined)
    throw new UsageError(`--output: "${text}" is not valid: expected ${formats.join(', ')}`);
  return format;
}

async function readStdin({ stdin }: Streams, hint: string): Promise<string> {
  if (stdin.isTTY) throw new UsageError(`standard input is a terminal: ${hint}`);
  const chunks: Buffer[] = [];
  for await (const chunk of stdin) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks).toString('utf8');
}

function report(error: unknown, { stderr }: Streams): number {
  if (!(error instanceof CliError)) {
    stderr.write(
      `netctl: unexpected error, please report it: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
    );
    return exitCodes.refused;
  }
  stderr.write(`netctl: ${error.message.replace(/\s*\n\s*/g, ' ')}\n`);
  if (error instanceof UsageError) stderr.write(usageHint(error.nearest));
  return error.exitCode;
}

function usageHint(nearest: readonly Command[]): string {
  if (nearest.length === 0) return '';
  if (nearest.length > MOST_USAGE_LINES) return 'See netctl --help\n';
  return `${nearest.map((command, i) => `${i === 0 ? 'Usage: ' : '       '}${usageLine(command)}`).join('\n')}\n`;
}

/**
 * `netctl pool show | head -1` closes our output early: what is left is not wanted. A disk that is full is said.
 * @returns what waits for the output, and says whether it arrived
 */
function watched({ stdout, stderr }: Streams): () => Promise<boolean> {
  let arrived = true;
  stderr.on('error', () => undefined);
  stdout.on('error', ({ code, message }: NodeJS.ErrnoException) => {
    if (code === 'EPIPE' || !arrived) return;
    arrived = false;
    stderr.write(`netctl: the output cannot be written: ${message}\n`);
  });
  return async () => {
    await new Promise((flushed) => stdout.write('', flushed));
    await new Promise(setImmediate);
    return arrived;
  };
}
