/**
 * Processes that may change the network of the namespace that they are in.
 *
 * In: /proc. Out: by namespace one of them. Never: an error for a process that has ended meanwhile.
 */
import { readdir, readFile, readlink } from 'node:fs/promises';

const CAP_NET_ADMIN = 12n;

/** Number of a process that has CAP_NET_ADMIN in effect, by the inode of its network namespace. */
export async function networkAdmins(): Promise<Map<number, number>> {
  const found = new Map<number, number>();
  const own = await namespaceOf('self');
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const namespace = await namespaceOf(name);
    if (namespace === null || namespace === own || found.has(namespace)) continue;
    if (await mayChangeNetwork(name)) found.set(namespace, Number(name));
  }
  return found;
}

/** `net:[4026531840]` */
async function namespaceOf(process: string): Promise<number | null> {
  const link = await readlink(`/proc/${process}/ns/net`).catch(() => '');
  const inode = /^net:\[(\d+)\]$/.exec(link)?.[1];
  return inode === undefined ? null : Number(inode);
}

async function mayChangeNetwork(process: string): Promise<boolean> {
  const status = await readFile(`/proc/${process}/status`, 'utf8').catch(() => '');
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  return effective !== undefined && ((BigInt(`0x${effective}`) >> CAP_NET_ADMIN) & 1n) === 1n;
}
