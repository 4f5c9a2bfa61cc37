/**
 * A program that runs on by itself in some place: it outlives whoever started it, and is found again by its pid file.
 *
 * In: a place, a name, a command line. Out: start, signals, its log, whether it runs. Never: a signal to another process that
 * has got the same number (the time of its start is recorded too), a zombie counted as running.
 */
import { appendFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Place } from './place.ts';
import { eventually, mustRun, run } from './run.ts';

/** A process as the kernel tells it apart from all others until the next boot. */
export interface ProcessId {
  readonly pid: number;
  /** Ticks since boot. */
  readonly startedAt: number;
}

/** Prints what the kernel says of it, then becomes the program. */
const starter =
  'read -r stat </proc/self/stat; echo "$stat"; log=$1; shift; exec "$@" >>"$log" 2>&1 </dev/null';

export class Daemon {
  readonly #place: Place;
  readonly name: string;
  readonly #directory: string;

  /** @param directory on the place: log and pid file are kept there */
  constructor(place: Place, name: string, directory: string) {
    this.#place = place;
    this.name = name;
    this.#directory = directory;
  }

  async start(command: readonly string[]): Promise<void> {
    const log = this.#file('log');
    appendFileSync(this.#place.path(log), '', { mode: 0o600 });
    const started = await mustRun(
      this.#place.command(['setsid', '--fork', 'sh', '-c', starter, this.name, log, ...command]),
    );
    writeFileSync(this.#place.path(this.#file('pid')), JSON.stringify(parseProcess(started)));
  }

  /** As the place numbers it; null when it does not run. */
  get pid(): number | null {
    return this.#running()?.pid ?? null;
  }

  /** Sends the signal and waits until it is gone, with SIGKILL after 10 s. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    const pid = this.pid;
    if (pid === null) return;
    await this.signal(signal);
    const gone = (ms: number) => eventually(`the end of ${this.name}`, ms, async () => this.pid !== pid);
    await gone(10_000).catch(async () => {
      await this.signal('SIGKILL');
      await gone(5000);
    });
  }

  async signal(signal: NodeJS.Signals): Promise<void> {
    const pid = this.pid;
    // Failing means that it has just ended.
    if (pid !== null) await run(this.#place.command(['kill', '-s', signal.slice(3), String(pid)]));
  }

  log(): string {
    return readFileSync(this.#place.path(this.#file('log')), 'utf8');
  }

  #file(extension: string): string {
    return join(this.#directory, `${this.name}.${extension}`);
  }

  #running(): ProcessId | null {
    let recorded: ProcessId;
    try {
      recorded = JSON.parse(readFileSync(this.#place.path(this.#file('pid')), 'utf8')) as ProcessId;
    } catch {
      return null;
    }
    return isRunning(recorded, this.#place.path('/proc')) ? recorded : null;
  }
}

/** @param stat a line of /proc/PID/stat */
export function parseProcess(stat: string): ProcessId {
  const pid = Number.parseInt(stat, 10);
  const startedAt = Number(fieldsOf(stat)[19]);
  if (!Number.isSafeInteger(pid) || !Number.isSafeInteger(startedAt))
    throw new Error(`not a line of /proc/PID/stat: ${stat}`);
  return { pid, startedAt };
}

export function isRunning({ pid, startedAt }: ProcessId, proc = '/proc'): boolean {
  try {
    const stat = readFileSync(`${proc}/${pid}/stat`, 'utf8');
    if (parseProcess(stat).startedAt !== startedAt) return false;
    // The first thread may be dead before the others: until they are, the sockets of the process are open.
    return !/^[ZX]$/.test(fieldsOf(stat)[0]!) || readdirSync(`${proc}/${pid}/task`).length > 1;
  } catch {
    return false;
  }
}

/** From the third on; the second is the program's name, which may hold anything. */
function fieldsOf(stat: string): string[] {
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}
