/**
 * Endpoints whose container's end the container engine moves (Docker): the pair is made on the host, with all that belongs to the host's
 * end; the engine takes the other end, names it, and gives it addresses and routes.
 *
 * In: endpoints as the store has them. Out: netlink batches. Never: an end that nobody fetched kept for long, a gateway that waits for
 * somebody: the container's neighbours are not ours to set, so the host's end answers for the gateway itself.
 */
import type { Clock } from '../lib/clock.ts';
import type { Linux, Netns, Routing } from '../linux/ports.ts';
import { handedInterfaceName } from '../model/attachment.ts';
import { families, familyOf } from '../model/ip.ts';
import type { Mac } from '../model/mac.ts';
import type { Endpoint } from '../model/records.ts';
import { planGateway, planHostRoutes } from '../veth/plan.ts';
import type { EndpointWiring } from './endpoint-wiring.ts';
import type { Wiring } from './wiring.ts';

/** Of the container's end until the engine fetches it, and sets its MAC. So it can be told from one that the engine has given back. */
const unfetchedMac = '02:00:00:00:00:00' as Mac;

/** Between the engine's request for the endpoint and its fetching of the link it sets up the whole container. */
const fetchMilliseconds = 120_000;

export class HandedWiring implements Wiring {
  readonly #host: Routing;
  readonly #routed: EndpointWiring;
  readonly #clock: Clock;

  constructor(linux: Linux, routed: EndpointWiring, clock: Clock) {
    this.#host = linux.openRouting();
    this.#routed = routed;
    this.#clock = clock;
  }

  /** @param netns that of the host */
  async make(endpoint: Endpoint, netns: Netns): Promise<void> {
    const spec = await this.#routed.begin(
      { ...endpoint, interface: handedInterfaceName(endpoint.hostInterface), mac: unfetchedMac },
      netns,
    );
    const used = families.filter((family) =>
      endpoint.addresses.some((address) => familyOf(address) === family),
    );
    this.#host.batch([
      ...planHostRoutes(spec.hostIndex, endpoint.mac, endpoint.addresses, spec.announced),
      ...used.map((family) => planGateway(spec.hostIndex, family)),
    ]);
  }

  unmake(endpoint: Endpoint): Promise<void> {
    return this.#routed.unmake(endpoint);
  }

  /** The container's end vanishes with its container and takes the host's along; an engine that gives it back puts it on the host. */
  stands(endpoint: Endpoint): boolean {
    if (this.#host.link({ name: endpoint.hostInterface }) === null) return false;
    const container = this.#host.link({ name: handedInterfaceName(endpoint.hostInterface) });
    const isFetched = container === null;
    if (container?.mac === endpoint.mac) return false;
    if (this.#clock.now() - Date.parse(endpoint.createdAt) < fetchMilliseconds) return true;
    return isFetched;
  }

  async inspect({ hostInterface }: Endpoint): Promise<string[]> {
    const link = this.#host.link({ name: hostInterface });
    if (link === null) return [`host interface ${hostInterface} is missing`];
    return link.up ? [] : [`host interface ${hostInterface} is down`];
  }

  close(): void {
    this.#host.close();
  }
}
