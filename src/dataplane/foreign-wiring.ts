/**
 * Endpoints whose interface another plugin has made: it is looked at, never changed.
 *
 * In: endpoints as the store has them. Out: refusals. Never: a link made or deleted, a policy that could not be enforced accepted.
 */
import { NetctlError } from '../lib/errors.ts';
import type { Linux, Netns, Routing } from '../linux/ports.ts';
import { hostInterfacePrefix } from '../model/attachment.ts';
import type { Endpoint } from '../model/records.ts';
import type { Wiring } from './wiring.ts';

export class ForeignWiring implements Wiring {
  readonly #linux: Linux;
  readonly #host: Routing;

  constructor(linux: Linux) {
    this.#linux = linux;
    this.#host = linux.openRouting();
  }

  /** @throws POLICY when packets of the container do not pass by an interface of the host that rules can name */
  async make(endpoint: Endpoint): Promise<void> {
    if (!hasHostEnd(endpoint)) return;
    const { hostInterface } = endpoint;
    const link = this.#host.link({ name: hostInterface });
    const refuse = (why: string): NetctlError =>
      new NetctlError(
        'POLICY',
        `policy cannot be enforced on ${hostInterface} of the plugin before: it ${why}`,
        {
          hostInterface,
        },
      );
    if (link === null) throw refuse('is not on this host');
    if (link.type !== 'veth') throw refuse('is not the end of a veth pair');
    if (link.masterIndex !== null) throw refuse('is a port of a bridge, where packets are not routed');
  }

  async unmake(): Promise<void> {}

  stands(endpoint: Endpoint, netns: Netns): boolean {
    const { device, inode } = netns.identity;
    return endpoint.netns.device === device && endpoint.netns.inode === inode;
  }

  async inspect(endpoint: Endpoint, netns: Netns): Promise<string[]> {
    if (!hasHostEnd(endpoint)) return [];
    const container = this.#linux.openRouting(netns);
    try {
      const inside = container.link({ name: endpoint.interface });
      const host = this.#host.link({ name: endpoint.hostInterface });
      const present = inside === null ? [] : await container.addresses(inside.index);
      return [
        ...(inside === null ? [`interface ${endpoint.interface} is missing in the container`] : []),
        ...(host === null ? [`host interface ${endpoint.hostInterface} is missing`] : []),
        ...endpoint.addresses
          .filter((wanted) => inside !== null && !present.some(({ address }) => address === wanted))
          .map((address) => `address ${address} is missing in the container`),
      ];
    } finally {
      container.close();
    }
  }

  close(): void {
    this.#host.close();
  }
}

/** An endpoint that only got addresses has the name that a link of ours would have, and none. */
function hasHostEnd({ hostInterface }: Endpoint): boolean {
  return !hostInterface.startsWith(hostInterfacePrefix);
}
