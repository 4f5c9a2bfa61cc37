/**
 * The namespace of a container that is to join a network.
 *
 * In: a request. Out: its open namespace. Never: the host's own; for an endpoint that only its namespace tells of (it has no link of its
 * own on the host), one that cannot be found again by the runtime's path: it would be taken for gone.
 */
import { NetctlError } from '../lib/errors.ts';
import type { Linux, Netns, NetnsIdentity } from '../linux/ports.ts';
import type { AttachRequest } from '../model/attachment.ts';

export class ContainerNetns {
  readonly #linux: Pick<Linux, 'openNetns'>;
  #host: NetnsIdentity | null = null;

  constructor(linux: Pick<Linux, 'openNetns'>) {
    this.#linux = linux;
  }

  /** The caller closes it. @throws NETNS_INVALID */
  open({ netns: { open, path }, isHanded, macvlan, foreignLink }: AttachRequest): Netns {
    const netns = this.#linux.openNetns(open);
    try {
      // What its engine moves begins on the host.
      if (!isHanded && isSame(netns.identity, this.#hosts()))
        throw new NetctlError('NETNS_INVALID', `${path} is the network namespace of the host itself`, {
          path,
        });
      if ((macvlan !== null || foreignLink !== null) && !this.#isAt(path, netns.identity))
        throw new NetctlError(
          'NETNS_INVALID',
          `CNI_NETNS ${path} is not the container's network namespace where netctld looks: it needs a path that means the same to everybody and stays, such as /run/netns/NAME`,
          { path },
        );
      return netns;
    } catch (error) {
      netns.close();
      throw error;
    }
  }

  #hosts(): NetnsIdentity {
    this.#host ??= this.#identityOf('/proc/self/ns/net');
    return this.#host;
  }

  #isAt(path: string, wanted: NetnsIdentity): boolean {
    // Not these, whatever they are at the moment.
    if (/^\/proc\/(self|thread-self)\//.test(path)) return false;
    try {
      return isSame(this.#identityOf(path), wanted);
    } catch {
      return false;
    }
  }

  #identityOf(path: string): NetnsIdentity {
    const netns = this.#linux.openNetns(path);
    netns.close();
    return netns.identity;
  }
}

const isSame = (one: NetnsIdentity, other: NetnsIdentity): boolean =>
  one.device === other.device && one.inode === other.inode;
