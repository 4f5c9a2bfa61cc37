/**
 * dockerd on a runtime's host: without a bridge and rules of its own, with live restore.
 *
 * In: a host, more flags. Out: a daemon that answers; the command line against it. Never: a command that waits for ever.
 */
import type { Daemon } from '../../lab/daemon.ts';
import { eventually, type Result } from '../../lab/run.ts';
import type { RuntimeHost } from './runtime-host.ts';

/** Docker asks a plugin that is away again and again, for minutes in all. */
const deadlineMs = 300_000;

export function docker(host: RuntimeHost, ...words: string[]): Promise<Result> {
  return host.exec(['docker', ...words], { deadlineMs });
}

export async function startDocker(host: RuntimeHost, dockerd: Daemon, ...flags: string[]): Promise<void> {
  const own = ['--bridge=none', '--iptables=false', '--live-restore', `--cgroup-parent=/${host.cgroup}`];
  await dockerd.start(['dockerd', ...own, ...flags]);
  await eventually('dockerd answers', 60_000, async () => {
    if (dockerd.pid === null) throw new Error(dockerd.log().slice(-2000));
    return (await docker(host, 'version')).code === 0;
  });
}
