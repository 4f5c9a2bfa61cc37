/**
 * Runs a program and waits for it, with a deadline.
 *
 * In: a command line, standard input, a deadline. Out: exit code and what it printed. Never: a program that outlives its
 * deadline, an exception for a non-zero exit (the caller judges it).
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

export interface Result {
  /** Exit code; -1 when a signal ended it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly stdin?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly deadlineMs?: number;
}

/** @throws when the program cannot be started or misses its deadline (20 s) */
export function run(command: readonly string[], options: RunOptions = {}): Promise<Result> {
  const [program = '', ...args] = command;
  const deadlineMs = options.deadlineMs ?? 20_000;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { env: { ...process.env, ...options.env }, stdio: 'pipe' });
    let stdout = '';
    let stderr = '';
    let late = false;
    const alarm = setTimeout(() => {
      late = true;
      child.kill('SIGKILL');
    }, deadlineMs);
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    // A program that does not read its input closes the pipe early; its exit code says the rest.
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.stdin ?? '');
    child.on('error', reject);
    child.on('close', (code) => {
      clearTimeout(alarm);
      if (late)
        reject(new Error(`${command.join(' ')}: not done after ${deadlineMs} ms\n${stdout}${stderr}`));
      else resolve({ code: code ?? -1, stdout, stderr });
    });
  });
}

/** As run, for programs that must succeed; returns what was printed. @throws with the program's own words */
export async function mustRun(command: readonly string[], options: RunOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await run(command, options);
  if (code !== 0) throw new Error(`${command.join(' ')}: exit code ${code}: ${(stderr || stdout).trim()}`);
  return stdout;
}

/** Starts a program that runs on (`ip monitor`); the function that it returns stops it and tells what it printed. */
export async function follow(command: readonly string[]): Promise<() => Promise<string>> {
  const [program = '', ...args] = command;
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let printed = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    printed += text;
  });
  // From now on: it may end by itself.
  const closed = once(child, 'close');
  await once(child, 'spawn');
  return async () => {
    child.kill('SIGTERM');
    await closed;
    return printed;
  };
}

/** Asks again while the answer is false, null or undefined. @throws after the deadline, naming what was waited for */
export async function eventually<T extends NonNullable<unknown>>(
  what: string,
  deadlineMs: number,
  ask: () => Promise<T | null | undefined | false>,
): Promise<T> {
  const end = Date.now() + deadlineMs;
  for (;;) {
    const answer = await ask();
    if (answer !== null && answer !== undefined && answer !== false) return answer;
    if (Date.now() >= end) throw new Error(`${what}: not within ${deadlineMs} ms`);
    await new Promise((wake) => setTimeout(wake, 20));
  }
}
