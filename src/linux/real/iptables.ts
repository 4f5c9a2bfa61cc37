/**
 * The port Iptables: iptables-save and iptables-restore, of the nft or the legacy variant.
 *
 * In: restore texts. Out: the saved table; a KernelError with the program's words. Never: the other variant's rules, a text
 * half applied (restore commits a table as a whole).
 */
import { readFileSync } from 'node:fs';
import { ProgramError, run } from '../../lib/process.ts';
import { type Family, families } from '../../model/ip.ts';
import { type Iptables, KernelError } from '../ports.ts';

const TIMEOUT_MS = 60_000;
/** How long to wait for another program that holds the lock of the legacy variant; nft needs none. */
const LOCK_WAIT = { legacy: ['-w', '10'], nft: [] } as const;

/** @param onStart told of every process that changes rules */
export function createIptables(backend: Iptables['backend'], onStart: (pid: number) => void): Iptables {
  return {
    backend,
    hasLegacyRules: () => families.some((family) => hasLegacyTable(family, 'filter')),
    async save(family, table = 'filter', withCounters = false) {
      if (backend === 'legacy' && !hasLegacyTable(family, table)) return '';
      return await call(`${programPrefix(family)}-${backend}-save`, [
        '-t',
        table,
        ...(withCounters ? ['-c'] : []),
      ]);
    },
    async restore(family, text) {
      await call(
        `${programPrefix(family)}-${backend}-restore`,
        ['--noflush', ...LOCK_WAIT[backend]],
        text,
        onStart,
      );
    },
  };
}

/** The variant that the plain `iptables` is: what others on this machine use. nft where there is no iptables to ask. */
export async function detectBackend(): Promise<Iptables['backend']> {
  try {
    const { stdout } = await run('iptables', ['-V'], { timeoutMs: TIMEOUT_MS });
    return stdout.includes('nf_tables') ? 'nft' : 'legacy';
  } catch {
    return 'nft';
  }
}

/** Listing a table of the legacy variant would make it. */
function hasLegacyTable(family: Family, table: string): boolean {
  try {
    const path = `/proc/net/${family === 4 ? 'ip' : 'ip6'}_tables_names`;
    return readFileSync(path, 'utf8').split('\n').includes(table);
  } catch {
    return false;
  }
}

function programPrefix(family: Family): string {
  return family === 4 ? 'iptables' : 'ip6tables';
}

async function call(
  program: string,
  args: readonly string[],
  stdin = '',
  onStart?: (pid: number) => void,
): Promise<string> {
  try {
    return (await run(program, args, { stdin, timeoutMs: TIMEOUT_MS, ...(onStart && { onStart }) })).stdout;
  } catch (error) {
    if (!(error instanceof ProgramError)) throw error;
    const words = error.stderr.trim().replaceAll('\n', '; ');
    throw new KernelError(program, errnoOf(error), words === '' ? error.message : words);
  }
}

/** The programs have no numbers for what went wrong: exit code 4 is a lost race for the lock as well as a chain in use. */
function errnoOf({ exitCode, stderr }: ProgramError): string {
  if (exitCode === null) return 'EIO';
  if (/holding the xtables lock|temporarily unavailable/.test(stderr)) return 'EAGAIN';
  return /resource busy/.test(stderr) ? 'EBUSY' : 'EINVAL';
}
