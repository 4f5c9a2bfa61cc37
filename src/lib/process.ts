/**
 * Runs a program to its end: the only place that starts one.
 *
 * In: program, arguments, text for its standard input, a time limit. Out: what it printed. Never: a shell in between, a program
 * that outlives its limit, output without bound in memory.
 */
import { spawn } from 'node:child_process';
import { getPriority, setPriority } from 'node:os';
import { NetctlError } from './errors.ts';

const MAX_OUTPUT_BYTES = 256 * 1024 * 1024;

export interface RunOptions {
  readonly stdin?: string;
  readonly timeoutMs: number;
  /** Told the number of the process, before it can have done anything that others are told of. */
  readonly onStart?: (pid: number) => void;
  /** Instead of our own. */
  readonly env?: Readonly<Record<string, string>>;
}

/** A program that could not be started, failed or ran too long. The message names it and the first line of its complaint. */
export class ProgramError extends NetctlError {
  /** Null where it did not end by itself. */
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;

  constructor(
    program: string,
    problem: string,
    exitCode: number | null,
    { stdout, stderr }: { stdout: string; stderr: string },
  ) {
    super('KERNEL', `${program}: ${problem}`, { program, exitCode });
    this.name = 'ProgramError';
    this.exitCode = exitCode;
    this.stdout = stdout;
    this.stderr = stderr;
  }
}

/** @throws ProgramError unless the program ends with exit code 0 in time */
export function run(
  program: string,
  args: readonly string[],
  { stdin = '', timeoutMs, env, onStart }: RunOptions,
): Promise<{ stdout: string; stderr: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ stdout: string; stderr: string }>();
  const child = atNormalPriority(() =>
    spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], ...(env && { env }) }),
  );
  if (child.pid !== undefined) onStart?.(child.pid);
  const output = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
  let bytes = 0;
  let killedBecause: string | null = null;

  const kill = (reason: string) => {
    killedBecause ??= reason;
    child.kill('SIGKILL');
  };
  const timer = setTimeout(() => kill(`did not end within ${timeoutMs} ms`), timeoutMs);

  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream].on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > MAX_OUTPUT_BYTES) kill(`printed more than ${MAX_OUTPUT_BYTES} bytes`);
      else output[stream].push(chunk);
    });
  }
  child.on('error', (error) => {
    clearTimeout(timer);
    reject(
      new ProgramError(program, `cannot be started: ${error.message}`, null, { stdout: '', stderr: '' }),
    );
  });
  child.on('close', (exitCode, signal) => {
    clearTimeout(timer);
    const stdout = Buffer.concat(output.stdout).toString();
    const stderr = Buffer.concat(output.stderr).toString();
    if (exitCode === 0 && killedBecause === null) return resolve({ stdout, stderr });
    const complaint = stderr.split('\n').find((line) => line.trim() !== '') ?? 'no message';
    const ending =
      killedBecause ?? `${complaint.trim()} (${signal ? `signal ${signal}` : `exit code ${exitCode}`})`;
    reject(new ProgramError(program, ending, exitCode, { stdout, stderr }));
  });
  // A program may end without reading all of its input; its exit code says what that means.
  child.stdin.on('error', () => {});
  child.stdin.end(stdin);
  return promise;
}

/** The agent's own is for its requests; a daemon that it starts may compute for seconds. */
function atNormalPriority<T>(start: () => T): T {
  const own = getPriority();
  if (own >= 0) return start();
  setPriority(0);
  try {
    return start();
  } finally {
    try {
      setPriority(own);
    } catch {
      // It was given to us, and we may not take it ourselves.
    }
  }
}
