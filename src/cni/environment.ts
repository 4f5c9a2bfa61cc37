/**
 * What the environment of a CNI call says.
 *
 * In: the frame that the shim sent. Out: whose interface, which namespace, the arguments of CNI_ARGS. Never: an interface made by a name
 * that the kernel would read as another.
 */
import { NetctlError } from '../lib/errors.ts';
import type { AttachmentId } from '../model/attachment.ts';
import { parseNewInterfaceName } from '../model/names.ts';
import { CniError } from './errors.ts';
import type { Request } from './frame.ts';

/** As namedId, in the form of what can be made. @throws CniError 4 */
export function attachmentId(env: ReadonlyMap<string, string>, network: string): AttachmentId {
  const id = namedId(env, network);
  if (id.containerId.length > longestContainerId)
    throw new CniError(4, `CNI_CONTAINERID is longer than ${longestContainerId} characters`);
  try {
    parseNewInterfaceName(id.interface, 'CNI_IFNAME');
  } catch (error) {
    throw new CniError(4, (error as Error).message);
  }
  return id;
}

const longestContainerId = 1024;

/** @throws CniError 4 */
export function namedId(env: ReadonlyMap<string, string>, network: string): AttachmentId {
  const containerId = env.get('CNI_CONTAINERID') ?? '';
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(containerId))
    throw new CniError(4, 'invalid characters in containerID', containerId.slice(0, 80));
  return { network, containerId, interface: env.get('CNI_IFNAME') ?? '' };
}

/** As the runtime named it; empty where a DEL has none. */
export function netnsPath(request: Request): string {
  return request.env.get('CNI_NETNS') ?? '';
}

/** The shim keeps the namespace open while we work, so its path needs no sense in our mount namespace. */
export function netnsOpenPath(request: Request): string {
  if (request.netnsFd === null)
    throw new NetctlError('NETNS_INVALID', 'CNI_NETNS: the plugin handed over no open network namespace');
  return `/proc/${request.pid}/fd/${request.netnsFd}`;
}

/** Called as `netctl-ipam` by another plugin: addresses, and nothing else. */
export function isIpamOnly(request: Request): boolean {
  return request.env.get('NETCTL_ROLE') === 'ipam';
}

/** When the shim put a DEL aside because the agent was away. */
export function queuedAt(env: ReadonlyMap<string, string>): Date | null {
  const milliseconds = Number(env.get('NETCTL_QUEUED_AT') ?? Number.NaN);
  return Number.isFinite(milliseconds) ? new Date(milliseconds) : null;
}

/**
 * `K=V;K=V`; split at the first `=` only, since Nomad passes JSON. Keys that we do not know belong to others, unless they are spelled as
 * ours. @throws CniError 4
 */
export function cniArgs(text: string): Map<string, string> {
  const args = new Map<string, string>();
  for (const pair of text.split(';')) {
    const at = pair.indexOf('=');
    if (at > 0) args.set(pair.slice(0, at).trim(), pair.slice(at + 1).trim());
  }
  const stray = [...args.keys()].find((key) => key.startsWith('NETCTL_') && !ownArguments.includes(key));
  if (stray !== undefined)
    throw new CniError(4, `unknown argument ${stray} in CNI_ARGS: netctl knows ${ownArguments.join(', ')}`);
  return args;
}

const ownArguments: readonly string[] = [
  'PROFILE',
  'POOL',
  'OWNER',
  'RESERVATION',
  'ON_RELEASE',
  'RETAIN_SECONDS',
].map((name) => `NETCTL_${name}`);
