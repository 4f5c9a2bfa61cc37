/**
 * A machine of the lab: network, mount, process and host-name namespaces, held by one first process that only reaps.
 *
 * In: a name, a script that furnishes it, the machine whose part it is. Out: a place to run programs in; its end. Killing the
 * first process ends every other and takes mounts, links and machines inside along, so nothing has to be found again.
 * Never: a mount that shows outside.
 */
import { isRunning, type ProcessId, parseProcess } from './daemon.ts';
import type { Place } from './place.ts';
import { eventually, run } from './run.ts';

/** /proc is still the one of the caller: what it says here are the numbers by which the caller knows this process. */
const firstProcess = `set -eu
read -r stat </proc/self/stat
record=$1 furnish=$2
shift 2
[ -z "$record" ] || printf '%s\\n' "$stat" >"$record"
eval "$furnish"
printf '%s\\n' "$stat"
exec sh -c 'trap : TERM INT HUP; while :; do sleep 1000000 & wait $! || :; done' "$0" >/dev/null 2>&1`;

export interface MachineOptions {
  readonly name: string;
  /** Shell commands, run inside before anything else; their arguments are $1, $2, … */
  readonly furnish?: string;
  readonly arguments?: readonly string[];
  /** Inside this machine, so that it ends with it. */
  readonly within?: Machine;
  /** A file that names the first process before anything is furnished. */
  readonly record?: string;
}

export class Machine implements Place {
  /** Of the first process, as numbered here. */
  readonly process: ProcessId;

  constructor(process: ProcessId) {
    this.process = process;
  }

  /** @throws with what the furnishing complained about; nothing is left then */
  static async boot(options: MachineOptions): Promise<Machine> {
    const { name, furnish = '', within, record = '' } = options;
    const script = [firstProcess, name, record, furnish, ...(options.arguments ?? [])];
    const command = ['unshare', '--mount', '--net', '--pid', '--uts', '--', 'setsid', '--fork', 'sh', '-c'];
    // Its exit code is that of setsid, which does not wait; the shell prints a line when all went well.
    const { stdout, stderr } = await run(within?.command([...command, ...script]) ?? [...command, ...script]);
    if (stdout === '') throw new Error(`${name} does not start: ${stderr.trim()}`);
    return new Machine(parseProcess(stdout));
  }

  get isRunning(): boolean {
    return isRunning(this.process);
  }

  command(command: readonly string[], netns?: string): string[] {
    const { pid } = this.process;
    const network = netns === undefined ? '--net' : `--net=${this.path(`/run/netns/${netns}`)}`;
    return ['nsenter', `--target=${pid}`, '--mount', '--uts', '--pid', network, ...command];
  }

  /** A program in its network, but not one of its processes: numbers of processes mean the same as here. */
  networkCommand(command: readonly string[]): string[] {
    return ['nsenter', `--target=${this.process.pid}`, '--net', ...command];
  }

  path(path: string): string {
    return `/proc/${this.process.pid}/root${path}`;
  }

  /** As pulling the plug: everything in it is gone when this returns. */
  async kill(): Promise<void> {
    if (!this.isRunning) return;
    process.kill(this.process.pid, 'SIGKILL');
    await eventually('the end of a machine', 10_000, async () => !this.isRunning);
  }
}
