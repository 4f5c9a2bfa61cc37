/**
 * A place of one's own for tests on the real kernel: a new network namespace, a new mount namespace, an empty /run.
 *
 * In: the running test process. Out: the same process (same pid, same pipes to the test runner), moved. Never: a trace left on
 * the machine, however the process ends: what it makes belongs to namespaces that go with it.
 */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const MARK = 'NETCTL_TEST_SANDBOX';

/** Call first. Does not return until the process is in the sandbox. @param testUrl `import.meta.url` of the test file */
export function enterSandbox(testUrl: string): void {
  if (process.env[MARK] === '1') return;
  const setUp = 'mount -t tmpfs none /run && ip link set lo up && exec "$@"';
  const command = [process.execPath, ...process.execArgv, fileURLToPath(testUrl)];
  process.execve?.(
    '/usr/bin/unshare',
    ['unshare', '--net', '--mount', '--propagation', 'private', 'sh', '-c', setUp, 'sh', ...command],
    { ...(process.env as Record<string, string>), [MARK]: '1' },
  );
}

/** Makes a namespace by this name; returns its path. */
export function addNetns(name: string): string {
  ip('netns', 'add', name);
  return `/run/netns/${name}`;
}

export function removeNetns(name: string): void {
  ip('netns', 'del', name);
}

export function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}
