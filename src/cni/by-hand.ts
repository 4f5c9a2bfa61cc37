/**
 * What a runtime does by CNI, done for an operator: an interface added to, and taken from, a container that runs.
 *
 * In: a process, a path or a name of a network namespace, a network by name. Out: the same calls as the plugin makes. Never: the
 * namespace of the host itself, a container under two names.
 */
import { closeSync, fstatSync, openSync, statSync } from 'node:fs';
import { invalid, NetctlError } from '../lib/errors.ts';
import type { Attacher, Attachment, AttachmentId } from '../model/attachment.ts';
import { parseInterfaceName } from '../model/names.ts';
import type { PortMapping } from '../model/port-mapping.ts';
import { networkConfig } from './networks.ts';
import { parseCall } from './request.ts';

interface Identity {
  readonly device: number;
  readonly inode: number;
}

export interface ByHandParts {
  readonly attacher: Attacher;
  /** Where networks are. */
  readonly directory: string;
  /** What this node has in the namespace. */
  endpointsIn(netns: Identity): readonly AttachmentId[];
}

export interface HandAttach {
  /** A process id, an absolute path, or a name below /run/netns. */
  readonly target: string;
  readonly network: string;
  /** null: the first of net1, net2, … that is free. */
  readonly interface: string | null;
  readonly profiles: readonly string[];
  readonly addresses: readonly string[];
  readonly portMappings: readonly PortMapping[];
}

export class ByHand {
  readonly #parts: ByHandParts;

  constructor(parts: ByHandParts) {
    this.#parts = parts;
  }

  /** @throws NETNS_INVALID, NOT_FOUND for a network, and as an ADD does */
  async attach(request: HandAttach): Promise<Attachment> {
    const config = networkConfig(this.#parts.directory, request.network);
    const path = netnsPath(request.target);
    const { fd, identity } = open(path);
    try {
      const others = this.#parts.endpointsIn(identity);
      const env = new Map([
        ['CNI_COMMAND', 'ADD'],
        ['CNI_CONTAINERID', others[0]?.containerId ?? `netns-${identity.inode}`],
        ['CNI_NETNS', path],
        ['CNI_IFNAME', request.interface ?? freeName(others)],
        ['CNI_ARGS', argsOf(request)],
        ['NETCTL_ATTACHED_BY', 'operator'],
      ]);
      // A second interface takes the default route only where its network says so.
      const runtimeConfig = { portMappings: request.portMappings };
      const stdin = JSON.stringify({
        ...(others.length > 0 ? { defaultRoute: false } : {}),
        ...config,
        runtimeConfig,
      });
      const call = parseCall({ pid: process.pid, netnsFd: fd, env, stdin });
      if (call.command !== 'ADD') throw new NetctlError('BUG', `an ADD was read as ${call.command}`);
      return await this.#parts.attacher.attach(call.attach);
    } finally {
      closeSync(fd);
    }
  }

  /** @throws NETNS_INVALID, NOT_FOUND when the namespace has no such interface of ours */
  async detach(target: string, name: string): Promise<AttachmentId> {
    const { fd, identity } = open(netnsPath(target));
    closeSync(fd);
    const wanted = parseInterfaceName(name, 'interface');
    const found = this.#parts.endpointsIn(identity).find((each) => each.interface === wanted);
    if (found === undefined)
      throw new NetctlError('NOT_FOUND', `${target} has no interface ${wanted} of ours`, {
        interface: wanted,
      });
    const { network, containerId, interface: own } = found;
    await this.#parts.attacher.detach(found);
    return { network, containerId, interface: own };
  }
}

function netnsPath(target: string): string {
  if (/^[1-9]\d{0,9}$/.test(target)) return `/proc/${target}/ns/net`;
  if (target.startsWith('/')) return target;
  if (/^[\w.-]{1,255}$/.test(target) && !/^\.+$/.test(target)) return `/run/netns/${target}`;
  throw invalid('netns', target, 'a process id, an absolute path, or a name below /run/netns');
}

function open(path: string): { fd: number; identity: Identity } {
  const own = statSync('/proc/self/ns/net');
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    throw new NetctlError('NETNS_INVALID', `${path}: ${(error as Error).message}`, { path }, error);
  }
  const { dev, ino } = fstatSync(fd);
  if (dev === own.dev && ino === own.ino) {
    closeSync(fd);
    throw new NetctlError('NETNS_INVALID', `${path} is the network namespace of the host itself`, { path });
  }
  return { fd, identity: { device: dev, inode: ino } };
}

function freeName(others: readonly AttachmentId[]): string {
  for (let number = 1; ; number++)
    if (!others.some((each) => each.interface === `net${number}`)) return `net${number}`;
}

function argsOf({ profiles, addresses }: HandAttach): string {
  const lists = { NETCTL_PROFILE: profiles, IP: addresses };
  for (const [field, list] of Object.entries(lists)) {
    const bad = list.find((each) => /[;,=]/.test(each));
    if (bad !== undefined)
      throw invalid(field === 'IP' ? 'addresses' : 'profiles', bad, 'one name or address each');
  }
  return Object.entries(lists)
    .flatMap(([key, list]) => (list.length === 0 ? [] : [`${key}=${list.join(',')}`]))
    .join(';');
}
