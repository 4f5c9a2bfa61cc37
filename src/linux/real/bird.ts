/**
 * The real BIRD: a program that is started once and outlives the agent.
 *
 * In: where the program and its files are. Out: the port. Never: a shell, a second process on the same control socket (BIRD itself
 * refuses), a configuration that others can read (it may hold passwords).
 */
import {
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { ProgramError, run } from '../../lib/process.ts';
import { type Bird, BirdRejection } from '../bird.ts';
import { connectBird } from './bird-control.ts';

const checkMilliseconds = 20_000;
const startMilliseconds = 10_000;

export interface BirdFiles {
  /** The program. */
  readonly program: string;
  /** For its configuration, control socket and pid file: `bird.conf`, `bird.ctl`, `bird.pid`. */
  readonly directory: string;
}

export function createBird({ program, directory }: BirdFiles): Bird {
  const config = join(directory, 'bird.conf');
  const control = join(directory, 'bird.ctl');
  const pidFile = join(directory, 'bird.pid');
  const pid = (): number | null => {
    const text = textOf(pidFile)?.trim() ?? '';
    return /^\d+$/.test(text) ? Number(text) : null;
  };
  return {
    async version() {
      if (!existsSync(program)) return null;
      const { stdout, stderr } = await run(program, ['--version'], { timeoutMs: checkMilliseconds });
      return /version (\S+)/.exec(stdout + stderr)?.[1] ?? 'unknown';
    },
    installed: () => textOf(config),
    async install(text) {
      const temporary = `${config}.new`;
      writeFileSync(temporary, text, { mode: 0o600 });
      try {
        await run(program, ['-p', '-c', temporary], { timeoutMs: checkMilliseconds });
      } catch (error) {
        rmSync(temporary, { force: true });
        throw error instanceof ProgramError && error.exitCode !== null
          ? new BirdRejection(complaint(error, temporary))
          : error;
      }
      renameSync(temporary, config);
    },
    async start(recover) {
      // It puts itself into the background, in a session of its own, once it has read the configuration.
      const args = ['-c', config, '-s', control, '-P', pidFile, ...(recover ? ['-R'] : [])];
      await run(program, args, { timeoutMs: startMilliseconds });
      const deadline = Date.now() + startMilliseconds;
      for (;;) {
        const session = await connectBird(control, { onLog: () => undefined, onEnd: () => undefined });
        session?.close();
        if (session !== null) return;
        if (Date.now() > deadline)
          throw new Error(`${program} was started and does not answer at ${control}`);
        await new Promise((wake) => setTimeout(wake, 20));
      }
    },
    connect: (listener) => connectBird(control, listener),
    pid,
    others: () => otherBirds(program, pid()),
  };
}

/** Its own words, without the place of a file that is gone by the time somebody reads them. */
function complaint(error: ProgramError, file: string): string {
  const line = error.stderr.split('\n').find((text) => text.trim() !== '') ?? error.message;
  return line.replace(`bird: ${file}:`, 'line ').replace(file, 'the configuration').trim();
}

/** By name and namespace: whatever it was started by. */
function otherBirds(program: string, own: number | null): number[] {
  const name = program.split('/').at(-1) ?? program;
  const here = readlinkSync('/proc/self/ns/net');
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((pid) => pid !== own)
    .filter((pid) => {
      try {
        return (
          readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === name &&
          readlinkSync(`/proc/${pid}/ns/net`) === here
        );
      } catch {
        // It has ended meanwhile.
        return false;
      }
    });
}

function textOf(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
