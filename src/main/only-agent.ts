/**
 * One agent for a run directory, and one for a network namespace: two would take each other's rules for a stranger's, for ever.
 *
 * In: the run directory. Out: the claim, which ends with the process however that ends. Never: a start refused because of what is
 * left of a dead agent, or because a program without privileges has taken the name.
 */
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import { join } from 'node:path';
import { NetctlError } from '../lib/errors.ts';
import type { Logger } from '../lib/logger.ts';

/** An abstract socket: each network namespace has its own names, and the kernel gives one back when its process is gone. */
const claimName = 'netctld';

/** The claim holds as long as this process lives. @throws CONFLICT where another agent runs */
export async function claimOnly(runDir: string, logger: Logger): Promise<void> {
  if (await answers(join(runDir, 'cni.sock')))
    throw new NetctlError(
      'CONFLICT',
      `another agent is running on ${runDir}: stop it, or give this one its own network namespace, --run-dir and --state-dir`,
    );
  const claim = createServer().unref();
  const refusal = await new Promise<NodeJS.ErrnoException | null>((resolve) => {
    claim.once('error', resolve);
    claim.listen(`\0${claimName}`, () => resolve(null));
  });
  if (refusal === null) return;
  const holder = refusal.code === 'EADDRINUSE' ? holderOf(claimName) : null;
  if (refusal.code !== 'EADDRINUSE' || (holder !== null && !holder.isRoot)) {
    const error = refusal.message;
    logger.warn(
      { error, process: holder?.pid },
      'cannot see to it that no other agent runs in this network namespace',
    );
    return;
  }
  const which = holder === null ? '' : `, process ${holder.pid}`;
  throw new NetctlError(
    'CONFLICT',
    `another agent is running in this network namespace${which}: they would undo each other's rules; stop it first`,
  );
}

/** A socket file may be a left-over; one that answers is a running agent. */
async function answers(path: string): Promise<boolean> {
  if (!existsSync(path)) return false;
  return new Promise((resolve) => {
    const socket = createConnection(path, () => resolve(true));
    socket.once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

/** Who has the abstract socket; null where that cannot be seen from here. */
function holderOf(name: string): { readonly pid: number; readonly isRoot: boolean } | null {
  const line = readFileSync('/proc/net/unix', 'utf8')
    .split('\n')
    .find((each) => each.endsWith(` @${name}`));
  const target = `socket:[${line?.trim().split(/\s+/).at(-2)}]`;
  for (const pid of readdirSync('/proc').filter((each) => /^\d+$/.test(each))) {
    try {
      const fds = `/proc/${pid}/fd`;
      if (!readdirSync(fds).some((fd) => linkOf(join(fds, fd)) === target)) continue;
      return { pid: Number(pid), isRoot: statSync(`/proc/${pid}`).uid === 0 };
    } catch {
      // It has ended meanwhile.
    }
  }
  return null;
}

function linkOf(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch {
    return null;
  }
}
