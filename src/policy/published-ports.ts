/**
 * Ports of the host that lead to endpoints (pure, in memory).
 *
 *     PREROUTING, OUTPUT ─► nctl-published        to an address of this host: the destination becomes the endpoint's
 *     POSTROUTING ────────► nctl-published-back   what the endpoint asked of itself, and what came from this host's loopback: they alone
 *                                                 get another source, since their answers would not come back
 *     INPUT ──────────────► nctl-published-in     answers to the loopback, and nothing else that endpoints send there
 *
 * What is forwarded then is judged as any packet to the endpoint: by its inbound rules, with the source that it came from.
 *
 * In: endpoints of this node. Out: the chains, per family, while an endpoint of that family publishes something. Never: a source changed of
 * a packet that could be answered without.
 */
import { type Address, type Cidr, type Family, families, familyOf, hostCidr } from '../model/ip.ts';
import { hostFamilies, isEvery, type PortMapping, portProtocolNumbers } from '../model/port-mapping.ts';
import { ACCEPT, type Chain, type ChainRule, DROP, rule } from './chain.ts';
import { loopbackNet } from './compile.ts';
import { chains as chainNames, endpointInterfaces, endpointSet } from './names.ts';
import type { ToldChains } from './told-chains.ts';

/** What publishing has to know of an endpoint of this node. */
export interface Publishing {
  readonly addresses: readonly Address[];
  readonly portMappings?: readonly PortMapping[];
}

interface Published {
  readonly mapping: PortMapping;
  readonly address: Address;
}

export class PublishedPorts {
  readonly #chains: ToldChains;
  readonly #published: Readonly<Record<Family, Map<string, readonly Published[]>>> = {
    4: new Map(),
    6: new Map(),
  };

  constructor(chains: ToldChains) {
    this.#chains = chains;
  }

  /** @param endpoint null: gone, or not of this node */
  onEndpoint(id: string, endpoint: Publishing | null): void {
    for (const family of families) {
      const published = this.#published[family];
      const now = endpoint === null ? [] : publishedIn(family, endpoint);
      if (now.length === 0 && !published.has(id)) continue;
      if (now.length > 0) published.set(id, now);
      else published.delete(id);
      this.#tell(family);
    }
  }

  #tell(family: Family): void {
    const published = [...this.#published[family].values()].flat();
    const all = published.length > 0 ? compilePublished(family, published) : [];
    for (const chain of all) this.#chains.tell(family, chain);
    if (all.length === 0)
      for (const name of [chainNames.published, chainNames.publishedBack, chainNames.publishedIn])
        this.#chains.untell(family, name);
  }
}

function publishedIn(family: Family, { addresses, portMappings = [] }: Publishing): Published[] {
  const address = addresses.find((each) => familyOf(each) === family);
  if (address === undefined) return [];
  return portMappings
    .filter(({ hostIP }) => hostFamilies(hostIP).includes(family))
    .map((mapping) => ({ mapping, address }));
}

function compilePublished(family: Family, published: readonly Published[]): Chain[] {
  const hairpin = {
    kind: 'set',
    set: endpointSet(family),
    side: 'src',
    withInterface: true,
    interfaceSide: 'dst',
    negated: false,
  } as const;
  const back = [rule([hairpin], { kind: 'masquerade' }, 'asked of itself by way of the host')];
  const led: Chain = {
    name: chainNames.published,
    table: 'nat',
    rules: [...(family === 6 ? [leftLoopback()] : []), ...sorted(published).map(ledRule)],
  };
  if (family === 6) return [led, { name: chainNames.publishedBack, table: 'nat', rules: back }];
  const fromLoopback = rule(
    [
      { kind: 'interface', side: 'dst', pattern: endpointInterfaces, negated: false },
      { kind: 'net', side: 'src', net: loopbackNet, negated: false },
    ],
    { kind: 'masquerade' },
    'from the loopback',
  );
  const isOwn = {
    kind: 'set',
    set: endpointSet(family),
    side: 'src',
    withInterface: true,
    negated: false,
  } as const;
  return [
    led,
    { name: chainNames.publishedBack, table: 'nat', rules: [...back, fromLoopback] },
    {
      name: chainNames.publishedIn,
      rules: [
        rule(
          [{ kind: 'connection', states: ['RELATED', 'ESTABLISHED'] }, isOwn],
          ACCEPT,
          'answers to the loopback',
        ),
        rule([], DROP, 'to the loopback of this host'),
      ],
    },
  ];
}

/** One address before all, since the first rule that applies decides. */
function sorted(published: readonly Published[]): Published[] {
  const order = ({ mapping: { protocol, hostPort, hostIP } }: Published): string =>
    `${isEvery(hostIP) ? 1 : 0} ${protocol} ${String(hostPort).padStart(5, '0')} ${hostIP ?? ''}`;
  return published.toSorted((a, b) => (order(a) < order(b) ? -1 : 1));
}

function ledRule({ mapping: { protocol, hostPort, containerPort, hostIP }, address }: Published): ChainRule {
  const only = hostIP === null || isEvery(hostIP) ? [] : [hostCidr(hostIP)];
  return rule(
    [
      { kind: 'protocol', protocol: portProtocolNumbers[protocol], negated: false },
      { kind: 'ports', side: 'dst', ports: [{ from: hostPort, to: hostPort }], negated: false },
      ...only.map((net) => ({ kind: 'net', side: 'dst', net, negated: false }) as const),
    ],
    { kind: 'dnat', address, port: containerPort },
    'published',
  );
}

/** The kernel lets nothing from ::1 leave by another interface: who asks there is told at once that nobody listens. */
function leftLoopback(): ChainRule {
  return rule(
    [{ kind: 'net', side: 'dst', net: '::1/128' as Cidr, negated: false }],
    { kind: 'return' },
    'the loopback cannot be led elsewhere',
  );
}
