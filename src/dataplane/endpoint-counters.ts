/**
 * What went through the interfaces of endpoints, as the containers see it: `in` is what the container received.
 *
 * In: endpoints of this host. Out: counters by endpoint, read when asked. Never: a number made up for an interface that is not there.
 */
import type { LinkCounters } from '../linux/link-kinds.ts';
import type { LinkInfo, Linux, Routing } from '../linux/ports.ts';
import type { Endpoint } from '../model/records.ts';
import { reopen } from './reopen.ts';

export interface CountedEndpoint
  extends LinkCounters,
    Pick<Endpoint, 'network' | 'containerId' | 'interface' | 'addresses'> {
  readonly endpoint: string;
}

/** One look at the host's links for all routed endpoints, one at each namespace that has macvlans. @param endpoints by id */
export async function readCounters(
  linux: Linux,
  endpoints: readonly (readonly [string, Endpoint])[],
): Promise<CountedEndpoint[]> {
  const inside = endpoints.filter(([, { kind }]) => kind === 'macvlan');
  const onHost = endpoints.filter(([, { kind }]) => kind !== 'macvlan');
  const counted = await within(linux.openRouting(), onHost, ({ hostInterface }) => hostInterface, turned);
  const places = Map.groupBy(inside, ([, { netns }]) => `${netns.device} ${netns.inode}`);
  for (const here of places.values()) {
    const netns = reopen(linux, here[0]![1]);
    if (netns === null) continue;
    try {
      const found = await within(linux.openRouting(netns), here, (each) => each.interface, asItIs);
      for (const [id, counters] of found) counted.set(id, counters);
    } finally {
      netns.close();
    }
  }
  return endpoints.flatMap(([id, { network, containerId, interface: name, addresses }]) => {
    const counters = counted.get(id);
    return counters === undefined
      ? []
      : [{ endpoint: id, network, containerId, interface: name, addresses, ...counters }];
  });
}

async function within(
  routing: Routing,
  endpoints: readonly (readonly [string, Endpoint])[],
  nameOf: (endpoint: Endpoint) => string,
  view: (counters: LinkCounters) => LinkCounters,
): Promise<Map<string, LinkCounters>> {
  try {
    if (endpoints.length === 0) return new Map();
    const [links, counters] = await Promise.all([routing.links(), routing.counters()]);
    const indexes = new Map(links.map(({ name, index }: LinkInfo) => [name, index]));
    return new Map(
      endpoints.flatMap(([id, endpoint]): [string, LinkCounters][] => {
        const found = counters.get(indexes.get(nameOf(endpoint)) ?? 0);
        return found === undefined ? [] : [[id, view(found)]];
      }),
    );
  } finally {
    routing.close();
  }
}

const asItIs = (counters: LinkCounters): LinkCounters => counters;

/** What the host's end of a pair sends, the container receives. */
function turned(host: LinkCounters): LinkCounters {
  return {
    inPackets: host.outPackets,
    inBytes: host.outBytes,
    inDropped: host.outDropped,
    outPackets: host.inPackets,
    outBytes: host.inBytes,
    outDropped: host.inDropped,
  };
}
