/** CPU time in milliseconds, the kernel's work included, of what this process or a program does. Never: that of a program that failed. */
import { run } from '../lab/run.ts';

/** Of this process. */
export async function ownCpu(act: () => Promise<unknown>): Promise<number> {
  const before = process.cpuUsage();
  await act();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/** Of a program, with its input. @throws when it fails, with what it printed */
export async function programCpu(program: readonly string[], stdin: string): Promise<number> {
  const timed = ['bash', '-c', 'TIMEFORMAT="%U %S"; time "$@"', 'bash', ...program];
  const { code, stderr } = await run(timed, { stdin, deadlineMs: 120_000 });
  const [, user, system] = /([0-9.]+) ([0-9.]+)\n$/.exec(stderr) ?? [];
  if (code !== 0 || user === undefined) throw new Error(`${program.join(' ')}: ${stderr}`);
  return (Number(user) + Number(system)) * 1000;
}
