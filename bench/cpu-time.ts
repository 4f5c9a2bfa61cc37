/** CPU time in milliseconds, the kernel's work included, of what this process or a program does. Never: that of a program that failed. */
import { readFileSync } from 'node:fs';
import { run } from '../lab/run.ts';

/** Of this process and of the programs that it ran. */
export async function ownCpu(act: () => Promise<unknown>): Promise<number> {
  const children = childrenCpu();
  const before = process.cpuUsage();
  await act();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000 + childrenCpu() - children;
}

/** cutime and cstime of proc(5), which come in hundredths of a second. */
function childrenCpu(): number {
  const [, fields = ''] = readFileSync('/proc/self/stat', 'utf8').split(') ');
  const [user, system] = fields.split(' ').slice(13, 15).map(Number);
  return (user! + system!) * 10;
}

/** Of a program, with its input. @throws when it fails, with what it printed */
export async function programCpu(program: readonly string[], stdin: string): Promise<number> {
  const timed = ['bash', '-c', 'TIMEFORMAT="%U %S"; time "$@"', 'bash', ...program];
  const { code, stderr } = await run(timed, { stdin, deadlineMs: 120_000 });
  const [, user, system] = /([0-9.]+) ([0-9.]+)\n$/.exec(stderr) ?? [];
  if (code !== 0 || user === undefined) throw new Error(`${program.join(' ')}: ${stderr}`);
  return (Number(user) + Number(system)) * 1000;
}
